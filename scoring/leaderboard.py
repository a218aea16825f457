"""One call from evaluations to a leaderboard: `score`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import Integral, Ruleset
from scoring import axis as axes
from scoring import hosts, profiles, published
from scoring.choice import raced_axis, raced_workloads
from scoring.notes import Note
from scoring.result import Result
from scoring.rules import ScoringRules, resolve
from scoring.runs import Runs
from scoring.time_to_target import cells, medians, outcomes

if TYPE_CHECKING:
  import pandas as pd

  from scoring.statistics import Statistics

# What a set must be free of under --strict.
_BROKEN = (
  *('no_data', 'damaged', 'missing_column', 'truncated', 'bad_steps', 'bad_times', 'invalid_trial'),
  *('other_suite', 'altered_suite', 'altered_workload', 'smoke', 'stray_trial'),
  *('absent_workload', 'missing_workload', 'missing_study', 'study_count', 'trial_count'),
  *('lost_log', 'dangling_link', 'baseline'),
)


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Result):
  """A scored set of runs with its statistics; None where they were not asked for."""

  statistics: Statistics | None

  def score_table(self) -> pd.DataFrame:
    """Submission, score and, where computed, its interval with its coverage; best first."""
    import pandas as pd

    order = self.ranking
    table = pd.DataFrame(
      {'score': self.scores[order]},
      index=pd.Index([self.submissions[s] for s in order], name='submission'),
    )
    if self.statistics is not None:
      intervals = self.statistics.intervals
      table['low'], table['high'] = intervals.scores[order].T
      table['coverage'] = intervals.score_coverages[order]
    return table

  def __repr__(self) -> str:
    return self.score_table().to_string()

  def _repr_html_(self) -> str:
    """The table of scores, in a notebook."""
    return self.score_table().to_html(float_format='{:.4f}'.format)


def score(
  frame: pd.DataFrame,
  suite: str,
  *,
  ruleset: Ruleset = 'external',
  include: Sequence[str] = (),
  exclude: Sequence[str] = (),
  workloads: Sequence[str] = (),
  reference: str | None = None,
  against: str | None = None,
  strict: bool = False,
  axis: axes.Axis | None = None,
  integral: Integral | None = None,
  allow_provisional: bool = False,
  mix_hosts: bool = False,
  statistics: bool = True,
  num_resamples: int = 1000,
  seed: int = 0,
) -> Leaderboard:
  """Scores the evaluations that `load` gives by the rules of a suite.

  Args:
    include, exclude: names of submissions.
    workloads: score these members alone; empty takes those that the race has chosen, else all.
    axis: None takes that of the race, else that of the suite.
    reference: the submission whose times are the unit of the ratios.
    against: a published set to stand beside.
    strict: refuse a set that breaks the rules.
    mix_hosts: let seconds of several hosts stand side by side.
    statistics: compute intervals, verdicts and the rest, too.
    num_resamples, seed: of the intervals.

  Raises:
    UserError: unknown names, nothing to score, seconds of several hosts without `mix_hosts`, or a
      broken rule under `strict`.
  """
  found = frame.attrs.get('runs')
  runs = found if isinstance(found, Runs) else None
  raced = raced_workloads(runs, registry.suite(suite), allow_provisional=allow_provisional)
  rules = resolve(
    suite,
    ruleset=ruleset,
    workloads=workloads or raced,
    axis=axis or raced_axis(runs, registry.suite(suite)),
    integral=integral,
    allow_provisional=allow_provisional,
  )
  notes = list(rules.notes)
  table = outcomes(frame, rules)
  table = _selected(table, include, exclude, notes)
  if table.empty:  # published results alone are no answer
    raise errors.UserError(_nothing_found(frame, rules))
  guests: tuple[str, ...] = ()
  costs = runs.costs if runs is not None else ()
  if against is not None:
    joined = published.join(table, against, rules)
    table, guests, costs = joined.table, joined.guests, (*costs, *joined.costs)
  changes, host_notes = hosts.look(table, rules, runs, mix=mix_hosts)
  rules = replace(rules, changes=(*rules.changes, *changes))
  notes += host_notes
  table, axis_notes = axes.add_times(table, rules.axis, rules.suite.baselines, costs)
  notes += axis_notes
  if against is not None:
    published.check_units(table, against)
  result = _scored(table, rules, guests, reference, runs)
  notes += _look_at_table(result, frame)
  if runs is not None:
    kept = {trial.path: trial for trial in runs.trials}
    notes += [note for note in runs.notes if _concerns(note, kept, result)]
  result = replace(result, notes=tuple(sorted(set(notes))))
  if strict:
    _refuse_broken(result)
  found_statistics = None
  if statistics:
    from scoring.statistics import summarise

    found_statistics = summarise(result, num_resamples=num_resamples, seed=seed)
  return Leaderboard(**vars(result), statistics=found_statistics)


def _scored(
  table: pd.DataFrame,
  rules: ScoringRules,
  guests: tuple[str, ...],
  reference: str | None,
  runs: Runs | None,
) -> Result:
  submissions = sorted(set(table.submission))
  if reference is not None and reference not in submissions:
    raise errors.unknown('submission among the runs to refer to', reference, submissions)
  workloads = tuple(rules.members)
  gathered = cells(table, submissions, workloads)
  which = profiles.columns(workloads, rules.base_of, len(rules.base))
  times = medians(gathered.study_times)
  position = None if reference is None else submissions.index(reference)
  left = profiles.surviving(times, which, rules.suite.max_ratio)
  found = profiles.ratios(left, position)
  return Result(
    rules=rules,
    submissions=tuple(submissions),
    workloads=workloads,
    published=guests,
    outcomes=table,
    cells=gathered,
    columns=which,
    times=times,
    ratios=found,
    scores=profiles.scores(
      times,
      which,
      max_ratio=rules.suite.max_ratio,
      integral=rules.integral,
      reference=position,
    ),
    reference=reference,
    notes=(),
    runs=runs,
  )


def _selected(
  table: pd.DataFrame, include: Sequence[str], exclude: Sequence[str], notes: list[Note]
) -> pd.DataFrame:
  present = sorted(set(table.submission))
  for name in (*include, *exclude):
    if name not in present:
      raise errors.unknown('submission among the runs', name, present)
  kept = [name for name in present if (not include or name in include) and name not in exclude]
  notes += [Note('excluded', name) for name in present if name not in kept]
  if present and not kept:
    raise errors.UserError('--include and --exclude leave no submission to score.')
  return table[table.submission.isin(kept)].reset_index(drop=True)


def _nothing_found(frame: pd.DataFrame, rules: ScoringRules) -> str:
  found = ', '.join(sorted(set(map(str, frame['workload'].unique())))) or 'none'
  return (
    f'The runs hold no workload that the suite {rules.suite.name} scores '
    f'({", ".join(rules.members)}); found: {found}.'
  )


def _concerns(note: Note, kept: dict[str, Any], result: Result) -> bool:
  """Whether a note from reading is about a trial of this score, or about no trial."""
  if note.kind == 'no_hparams' and result.rules.ruleset == 'self':
    return False  # as it should be
  trial = kept.get(note.where)
  if trial is None:
    return True
  return trial.submission in result.submissions and trial.workload in result.workloads


def _look_at_table(result: Result, frame: pd.DataFrame) -> list[Note]:
  rules, notes = result.rules, []
  for row in result.outcomes.itertuples():
    if row.status == 'other_suite':
      notes.append(Note('other_suite', row.path, f'{row.suite}, {row.ruleset} tuning'))
    elif row.status in ('altered_suite', 'altered_workload'):
      notes.append(Note(row.status, row.path))
  counts = frame.groupby('workload', observed=True).ngroups and frame['workload'].value_counts()
  for name in counts.index if len(frame) else ():
    if name not in rules.members and counts[name]:
      notes.append(Note('not_in_suite', str(name), f'{counts[name]} evaluations'))
  return notes + _look_at_counts(result)


def _look_at_counts(result: Result) -> list[Note]:
  notes, wanted = [], result.rules.tuning
  gathered = result.cells
  table = result.outcomes
  lost = table[table.status == 'missing_study']
  missing = set(zip(lost.submission, lost.workload, lost.study, strict=True))
  for w, workload in enumerate(result.workloads):
    if not gathered.num_studies[:, w].any():
      notes.append(Note('absent_workload', workload))
      continue
    for s, submission in enumerate(result.submissions):
      num_studies = int(gathered.num_studies[s, w])
      if not num_studies:
        notes.append(Note('missing_workload', f'{submission}, {workload}'))
        continue
      where = f'{submission}, {workload}'
      if num_studies != wanted.num_studies:
        names = ', '.join(gathered.studies[submission, workload])
        detail = f'{num_studies} of {wanted.num_studies} studies: {names}'
        notes.append(Note('study_count', where, detail))
      for study, count in zip(
        gathered.studies[submission, workload], gathered.num_trials[s, w], strict=False
      ):
        is_missing = (submission, workload, study) in missing
        if count != wanted.num_trials and not is_missing:
          detail = f'{count} of {wanted.num_trials} trials'
          notes.append(Note('trial_count', f'{where}, {study}', detail))
  return notes


def _refuse_broken(result: Result) -> None:
  broken = [note for note in result.notes if note.kind in _BROKEN]
  if broken:
    lines = '\n'.join(f'  {note.kind}: {note.where} {note.detail}'.rstrip() for note in broken)
    raise errors.UserError(
      f'The runs break the rules of {result.rules.suite.name} in {len(broken)} places, which '
      f'--strict refuses:\n{lines}'
    )
