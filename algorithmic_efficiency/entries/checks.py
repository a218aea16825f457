"""The checks of an unpacked entry against the rules, from its files alone. No code of it runs."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import seeds
from algorithmic_efficiency.benchmark.check_rules import KINDS
from algorithmic_efficiency.benchmark.registry import SubmissionFolder
from algorithmic_efficiency.entries import trials
from algorithmic_efficiency.entries.manifest import CODE, Manifest
from algorithmic_efficiency.entries.trials import EntryTrial, Rules
from algorithmic_efficiency.entries.verdict import Finding, Severity
from algorithmic_efficiency.experiments.check import source, submission_info
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.submission_info import FILE as INFO_FILE
from algorithmic_efficiency.results.trial_record import Point, TrialRecord
from algorithmic_efficiency.trial import submission as submissions
from scoring.notes import KINDS as NOTES
from scoring.notes import Note

SAME = 1e-9  # relative; of numbers that two machines compute from the same seeds

_NUM_LISTED = 5
# What scoring notes on runs, by what it means for an entry; the rest is checked here.
_NOTES: Mapping[str, Severity] = {
  **dict.fromkeys(
    (
      *('damaged', 'missing_column', 'truncated', 'damaged_log', 'altered_table', 'lost_log'),
      *('contradiction', 'impossible_metric', 'lost_record', 'no_record'),
      *('bad_steps', 'bad_times', 'mixed_submissions', 'duplicate', 'stray_trial', 'stray_file'),
      *('unknown_workload', 'merged', 'dangling_link'),
    ),
    'refused',
  ),
  **dict.fromkeys(('other_name', 'study_names'), 'doubtful'),
  **dict.fromkeys(('runner_note', 'nan_metric'), 'note'),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
  """An unpacked entry.

  Attributes:
    folder: where it was unpacked.
    notes: what scoring found in its runs.
    seed: the root seed that was drawn for it; None if that is not known.
  """

  folder: Path
  manifest: Manifest
  rules: Rules
  trials: tuple[EntryTrial, ...]
  notes: tuple[Note, ...]
  seed: int | None = None

  @property
  def code(self) -> SubmissionFolder:
    return SubmissionFolder('', self.manifest.ruleset, self.folder / CODE)

  @property
  def frameworks(self) -> tuple[str, ...]:
    return tuple(sorted({one.place[2] for one in self.trials}))

  @property
  def recorded(self) -> Iterator[tuple[EntryTrial, TrialRecord]]:
    """The trials that have a record, with it."""
    for one in self.trials:
      if one.record is not None:
        yield one, one.record


@dataclass(frozen=True)
class Check:
  """A check: its name in `verdict.CHECKS`, and the function that makes its findings."""

  name: str
  findings: Callable[[Entry], Iterator[Finding]]


Found = Callable[[Severity, str, str], Finding]


def as_check(name: str) -> Callable[[Callable[[Entry, Found], Iterator[Finding]]], Check]:
  """Makes a check of a function that takes the entry, and a function that makes findings."""

  def found(severity: Severity, where: str, text: str) -> Finding:
    return Finding(check=name, severity=severity, where=where, text=text)

  return lambda function: Check(name, lambda entry: function(entry, found))


def _listed(names: Iterable[str]) -> str:
  found = list(names)
  more = len(found) - _NUM_LISTED
  return ', '.join(found[:_NUM_LISTED]) + (f' and {more} more' if more > 0 else '')


def _not_stated(entry: Entry, found: Found, what: str) -> Iterator[Finding]:
  """Says how many trials, such as those of AlgoPerf, do not state what a check needs to know."""
  number = sum(one.record is None for one in entry.trials)
  if number:
    yield found('unchecked', 'runs', f'{number} of {len(entry.trials)} trials do not state {what}.')


@as_check('files')
def files(entry: Entry, found: Found) -> Iterator[Finding]:
  """Asks scoring how it reads the runs, and holds each table against its log."""
  for note in entry.notes:
    where = _below(entry.folder, note.where)
    if note.kind in _NOTES:
      text = f'{NOTES[note.kind].partition(";")[0]}: {note.detail}'.removesuffix(': ')
      yield found(_NOTES[note.kind], where, f'Scoring finds {text}.')
    elif note.kind == 'no_hparams' and note.detail:
      yield found('refused', where, f'Its point is damaged or was changed: {note.detail}.')
  for one, _ in entry.recorded:
    if (one.folder / measurements.LOG_FILE).is_file():
      for name in measurements.altered_views(one.folder):
        yield found('refused', one.name, f'{name} is not what {measurements.LOG_FILE} says.')


def _below(folder: Path, where: str) -> str:
  path = Path(where)
  return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else where


@as_check('info')
def info(entry: Entry, found: Found) -> Iterator[Finding]:
  path = entry.code.folder / INFO_FILE
  if not path.is_file():
    yield found('refused', CODE, f'{INFO_FILE} is missing.')
  for finding in submission_info.findings(path):
    yield found('refused', INFO_FILE, finding.text)


@as_check('code')
def code(entry: Entry, found: Found) -> Iterator[Finding]:
  for framework in entry.frameworks:
    file = entry.code.file(framework)
    if file is None:
      yield found('refused', CODE, f'It has no code for {framework}, in which trials ran.')
      continue
    own = submissions.source_hash(file)
    others = [
      one.name
      for one, record in entry.recorded
      if one.place[2] == framework and record.submission_hash != own
    ]
    if others:
      text = f'The code was changed after these trials: {_listed(others)}.'
      yield found('refused', file.name, text)
    for finding in source.findings(file):
      if KINDS[finding.kind].severity == 'error' and finding.kind != 'info':
        where = f'{_below(entry.code.folder, finding.file)}:{finding.line}'
        yield found('doubtful', where, finding.text)
  yield from _not_stated(entry, found, 'which code ran')


@as_check('rules')
def rules(entry: Entry, found: Found) -> Iterator[Finding]:
  suite, ruleset = entry.rules.scoring.suite, entry.manifest.ruleset
  rules_hash = suite.rules_hash(ruleset)
  for one, record in entry.recorded:
    for what, stated, now in (
      ('the suite', record.suite, suite.name),
      ('the ruleset', record.ruleset, ruleset),
      ('the rules', record.suite_hash, rules_hash),
      ('the workload', record.definition_hash, _definition_hash(entry, one)),
    ):
      if now is not None and stated != now:
        yield found('refused', one.name, f'It ran with {what} {stated or "unknown"}, not {now}.')
    yield from (found(severity, one.name, text) for severity, text in _options(entry, one, record))
  for note in entry.notes:
    if note.kind == 'spared':
      text = f'An official race has no {note.detail}.'
      yield found('doubtful', _below(entry.folder, note.where), text)
  yield from _not_stated(entry, found, 'suite, workload and options')


def _definition_hash(entry: Entry, trial: EntryTrial) -> str | None:
  """The hash of a trial's workload as the suite races it; None if it is not scored there."""
  definition = entry.rules.definitions.get(trial.workload)
  return None if definition is None else definition.content_hash()


def _options(
  entry: Entry, trial: EntryTrial, record: TrialRecord
) -> Iterator[tuple[Severity, str]]:
  """What sets a trial apart from one of an official race."""
  suite = entry.rules.scoring.suite
  if record.smoke:
    yield 'refused', 'It is a smoke run, which is never scored.'
  if record.options.get('eval_steps'):
    yield 'refused', 'It was evaluated at steps of its own; such a trial is never scored.'
  definition = entry.rules.definitions.get(trial.workload)
  if definition is not None and suite.fixes_batch_size and not record.smoke:
    fixed = definition.batch_sizes.train
    if record.batch_size != fixed:
      text = f'Its batch size is {record.batch_size}; the suite fixes {fixed}.'
      yield 'refused', text


@as_check('trials')
def complete(entry: Entry, found: Found) -> Iterator[Finding]:
  there = {one.place: one for one in entry.trials}
  wanted = trials.expected(entry.rules, entry.trials)
  missing = [trials.name_of(place) for place in wanted if place not in there]
  if missing:
    severity: Severity = 'doubtful' if entry.manifest.is_partial else 'refused'
    number = f'{len(missing)} of {len(wanted)} trials are missing, and count as misses'
    yield found(severity, entry.manifest.suite, f'{number}: {_listed(missing)}.')
  for place in there.keys() - set(wanted):
    text = 'The suite has no such trial.'
    if place[1] not in entry.rules.definitions:
      yield found('note', trials.name_of(place), f'{text} It is not scored.')
    else:
      yield found('refused', trials.name_of(place), text)
  for one in entry.trials:
    text_or_none = trials.shortcoming(one)
    if text_or_none is not None:
      is_claim = one.record is not None and one.record.status == 'finished' and not one.rows
      yield found('refused' if is_claim else 'doubtful', one.name, f'It {text_or_none}.')
  yield from _copies(entry, found)


def _copies(entry: Entry, found: Found) -> Iterator[Finding]:
  """Finds trials with the same metrics in every row, which two seeds never give."""
  known: dict[tuple, str] = {}
  for one in entry.trials:
    values = tuple(tuple(sorted(_metrics(row).items())) for row in one.rows)
    is_finite = all(math.isfinite(value) for row in values for _, value in row)
    if len(values) < 2 or not is_finite:
      continue
    other = known.setdefault((one.workload, one.place[2], values), one.name)
    if other != one.name:
      yield found('refused', one.name, f'It is there twice: {other} has the same metrics.')


def _metrics(row: Mapping[str, float]) -> dict[str, float]:
  splits = ('train/', 'validation/', 'test/', 'global_step')
  return {name: value for name, value in row.items() if name.startswith(splits)}


@as_check('seeds')
def follow_from_root(entry: Entry, found: Found) -> Iterator[Finding]:
  roots = collections.Counter(_root(record) for _, record in entry.recorded)
  [(common, _)] = roots.most_common(1) or [(None, 0)]
  paired = common if entry.seed is None else entry.seed
  for one, record in entry.recorded:
    root = _root(record)
    if root is None or root != paired:
      text = f'Its root seed is {root}; that of the entry is {paired}.'
      yield found('refused', one.name, text)
      continue
    study, _, _, trial = one.place
    if (f'study_{record.study}', f'trial_{record.trial}') != (study, trial):
      text = f'Its record is that of study {record.study}, trial {record.trial}.'
      yield found('refused', one.name, text)
    own = seeds.derive(root, 'study', record.study)
    for name, value in (('study', own), ('trial', seeds.derive(own, 'trial', record.trial))):
      if record.seeds.get(name) != value:
        text = f'The seed of its {name} is {record.seeds.get(name)}; the root seed gives {value}.'
        yield found('refused', one.name, text)
  yield from _not_stated(entry, found, 'their seeds')


def _root(record: TrialRecord) -> int | None:
  """The root seed of a trial; None if it states none that can be one."""
  root = record.seeds.get('seed')
  return None if root is None or root < 0 else root


@as_check('points')
def of_the_space(entry: Entry, found: Found) -> Iterator[Finding]:
  for one, record in entry.recorded:
    if entry.rules.space is None:
      if one.point is not None or record.hyperparameters is not None:
        yield found('refused', one.name, 'It has hyperparameters; self tuning has none.')
      continue
    if not any(_are_same(one.point, point) for point in _points(entry, record)):
      yield found('refused', one.name, 'The search space gives its seed another point.')
  if entry.rules.space is None:
    return
  known = entry.rules.points(0, entry.rules.num_trials)
  for one in entry.trials:
    if one.record is None and not any(_are_same(one.point, point) for point in known):
      yield found('doubtful', one.name, 'Its point is none that the search space gives.')


def _points(entry: Entry, record: TrialRecord) -> Iterator[Point]:
  """The points that a trial may have.

  Launches that share a study have an order of their own. A part of a race may have fewer trials.
  """
  most = entry.rules.num_trials
  orders = [seeds.derive(0, 'points', record.study)]
  if (root := _root(record)) is not None:
    orders.append(seeds.derive(seeds.derive(root, 'study', record.study), 'points'))
  for num_trials in range(1 if entry.manifest.is_partial else most, most + 1):
    for order in orders:
      points = entry.rules.points(order, num_trials)
      if 0 < record.trial <= len(points):
        yield points[record.trial - 1]


def _are_same(one: Point | None, other: Point) -> bool:
  return (
    one is not None
    and one.keys() == other.keys()
    and all(_equal(one[name], other[name]) for name in other)
  )


def _equal(one: Any, other: Any) -> bool:
  numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
  if numbers and not (isinstance(one, bool) or isinstance(other, bool)):
    return math.isclose(one, other, rel_tol=SAME)
  return bool(one == other)


@as_check('hosts')
def alike(entry: Entry, found: Found) -> Iterator[Finding]:
  suite = entry.rules.scoring.suite
  machines: dict[str, list[str]] = {}
  for one, record in entry.recorded:
    machines.setdefault(record.environment.get('machine_hash', ''), []).append(one.name)
    num_devices = record.environment.get('devices', {}).get('num_devices')
    if suite.axis == 'seconds' and num_devices not in (None, suite.num_accelerators):
      text = f'It ran on {num_devices} devices; the suite has {suite.hardware}.'
      yield found('doubtful', one.name, text)
  if len(machines) > 1:
    severity: Severity = 'doubtful' if suite.axis == 'seconds' else 'note'
    parts = (f'{machine or "unknown"} ({len(names)})' for machine, names in machines.items())
    text = f'The trials ran on {len(machines)} kinds of machines, by their hashes'
    yield found(severity, entry.manifest.submission, f'{text}: {", ".join(parts)}.')
  yield from _not_stated(entry, found, 'where they ran')
