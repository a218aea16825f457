"""Checks a submission before anybody pays for it: reads it, and runs it on every workload at small
sizes, as a trial that is resumed once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import (
  KINDS,
  Finding,
  Severity,
  Subject,
)
from algorithmic_efficiency.benchmark.definition import Budget
from algorithmic_efficiency.benchmark.suites import Ruleset
from algorithmic_efficiency.experiments.check import source as check_source
from algorithmic_efficiency.launch import local, output, request
from algorithmic_efficiency.launch.trial_folder import scratch
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial import failure, messages, submission
from algorithmic_efficiency.trial.checkpoint import Checkpoints, Loaded
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Message
from algorithmic_efficiency.trial.recorder import CANNOT_BE_SAVED
from algorithmic_efficiency.trial.run_options import RunOptions

SUBJECTS: tuple[Subject, ...] = get_args(Subject)
# The hint is none at which the arithmetic of a published entry fails, as it does at 200 or 1,000.
BUDGET = Budget(step_hint=1_010, max_steps=60, eval_period_steps=10)
LONG_BUDGET = replace(BUDGET, max_steps=600, eval_period_steps=100)
_SLOW_KINDS = frozenset({'no_change', 'loss_rises'})  # decided by a trial of LONG_BUDGET
HEARTBEAT_TIMEOUT_SEC = 180.0  # longer than the free time of initialization, which has its own rule
_NUM_POINTS = 5  # of a search space, where all are tried
_SEED = 0
_STATES = ('params', 'model_state', 'optimizer_state')
# What made the finding, where no line of the submission's is known.
_MADE_IN = dict.fromkeys(
  ('init_changes_model', 'init_too_long', 'init_work', 'not_saved', 'not_restored'),
  'init_optimizer_state',
)


@dataclass(frozen=True, kw_only=True)
class Check:
  """What is to be checked.

  Attributes:
    submission: a name, a folder, a module file, or an optimizer that is called.
    frameworks, ruleset: None takes those that the submission is made for.
    workloads: None takes every base workload that can run.
    thorough: whether variants, all points and two devices are tried too.
  """

  submission: str
  frameworks: tuple[str, ...] | None = None
  ruleset: Ruleset | None = None
  workloads: tuple[str, ...] | None = None
  thorough: bool = False
  platform: Literal['auto', 'cpu', 'gpu', 'tpu'] = 'auto'
  heartbeat_timeout_sec: float = HEARTBEAT_TIMEOUT_SEC


@dataclass(frozen=True, kw_only=True)
class CheckRow:
  """What was found in one place: in the sources, or on a workload.

  Attributes:
    title: the workload, with what is special about the trial.
    checked: the subjects that were looked at.
  """

  title: str
  framework: str
  checked: frozenset[Subject]
  findings: tuple[Finding, ...] = ()

  def worst(self, subject: Subject) -> Severity | None:
    """The worst that was found on a subject."""
    kinds = [KINDS[finding.kind] for finding in self.findings]
    found = {kind.severity for kind in kinds if kind.subject == subject}
    return 'error' if 'error' in found else 'warning' if found else None


@dataclass(frozen=True, kw_only=True)
class CheckReport:
  """The result of a check."""

  submission: str
  ruleset: Ruleset
  rows: tuple[CheckRow, ...]

  @property
  def findings(self) -> dict[Finding, list[str]]:
    """What was found, each thing once, with the places in which it was found: errors first."""
    found: dict[tuple[str, str, int], tuple[Finding, list[str]]] = {}
    for row in self.rows:
      for finding in row.findings:
        key = (finding.kind, finding.file, finding.line)
        found.setdefault(key, (finding, []))[1].append(f'{row.title} ({row.framework})')
    in_order = sorted(found.values(), key=lambda item: KINDS[item[0].kind].severity)
    return {finding: list(dict.fromkeys(where)) for finding, where in in_order}

  @property
  def num_errors(self) -> int:
    return sum(KINDS[finding.kind].severity == 'error' for finding in self.findings)


@dataclass(frozen=True)
class _Version:
  """The submission for one framework."""

  framework: str
  name: str
  file: Path
  functions: Mapping[str, tuple[str, int]]

  def finding(self, kind: str, text: str, file: str = '', line: int = 0) -> Finding:
    """Makes a finding; without a file, its place is the function that such findings come from."""
    if not file:
      made_in = _MADE_IN.get(kind, 'update_params')
      file, line = self.functions.get(made_in, (str(self.file), 1))
    return Finding(kind=kind, text=text, file=file, line=line)


def run(check: Check, on_row: Callable[[CheckRow], None] = lambda row: None) -> CheckReport:
  """Reads and runs a submission.

  Args:
    on_row: is told what was found, place by place.

  Raises:
    UserError: there is no such submission or workload.
  """
  for name in check.workloads or ():
    registry.workload(name)  # a misspelt name is told before an optimizer is tried
  ruleset = check.ruleset or _ruleset(check.submission)
  versions = _versions(check, ruleset)
  frameworks = [one.framework for one in versions]
  trials = [  # mistakes come first
    (one, list(_trials(check, ruleset, one, frameworks))) for one in versions
  ]
  rows: list[CheckRow] = []

  def add(row: CheckRow) -> None:
    rows.append(row)
    on_row(row)

  for one in versions:
    findings = tuple(check_source.findings(one.file))
    checked = frozenset[Subject](KINDS[finding.kind].subject for finding in findings)
    add(
      CheckRow(
        title='sources', framework=one.framework, checked=checked | {'rules'}, findings=findings
      )
    )
  is_python = all(finding.kind != 'syntax' for row in rows for finding in row.findings)
  for one, configs in trials if is_python else ():
    for title, config in configs:
      with scratch() as folder:
        add(_tried(title, replace(config, folder=str(folder / 'trial')), one))
  return CheckReport(submission=versions[0].name, ruleset=ruleset, rows=tuple(rows))


# What is run.


def _ruleset(name: str) -> Ruleset:
  """The ruleset that a submission is made for: external tuning, if it has a search space."""
  if by_name.is_call(name) or ('external', name) in registry.submissions():
    return 'external'
  path = os.path.expanduser(name)
  folder = path if os.path.isdir(path) else os.path.dirname(path)
  space = os.path.join(folder, 'tuning_search_space.json')
  return 'external' if os.path.isfile(space) else 'self'  # a name that is no path has none


def _versions(check: Check, ruleset: Ruleset) -> list[_Version]:
  """Locates the submission for each framework that it is to be checked with."""
  if check.frameworks:
    found = {one: submission.locate(check.submission, ruleset, one) for one in check.frameworks}
  else:
    found = submission.frameworks_of(check.submission, ruleset, request.installed())
  return [
    _Version(framework, name, file, check_source.functions(file))
    for framework, (name, file) in found.items()
  ]


def _trials(
  check: Check, ruleset: Ruleset, one: _Version, frameworks: Sequence[str]
) -> Iterator[tuple[str, TrialConfig]]:
  """The trials and what they are called.

  A named workload is left out if it cannot run with this framework, but can with another that the
  submission is checked with.
  """
  if check.workloads:
    names = [name for name in check.workloads if _takes(name, one.framework, frameworks)]
  else:
    names = [
      definition.name
      for definition in registry.workloads().values()
      if definition.suites
      and registry.is_runnable(definition, one.framework)
      and (check.thorough or not definition.is_variant)
    ]
  for name in names:
    is_variant = registry.workload(name).is_variant
    num_trials = _NUM_POINTS if check.thorough and ruleset == 'external' and not is_variant else 1
    for config in _configs(check, ruleset, one, name, num_trials=num_trials):
      yield (f'{name}, point {config.trial}' if config.trial > 1 else name), config
    if check.thorough and not is_variant:
      for config in _configs(check, ruleset, one, name, num_devices=2):
        yield f'{name}, 2 devices', config


def _takes(name: str, framework: str, frameworks: Sequence[str]) -> bool:
  definition = registry.workload(name)
  runs_with = [other for other in frameworks if registry.is_runnable(definition, other)]
  return not runs_with or framework in runs_with


def _configs(
  check: Check,
  ruleset: Ruleset,
  one: _Version,
  workload: str,
  *,
  num_trials: int = 1,
  num_devices: int = 1,
) -> list[TrialConfig]:
  asked = request.Request(
    workload=workload,
    framework=one.framework,
    submission=check.submission,
    ruleset=ruleset,
    trials=num_trials,
    options=RunOptions(
      smoke=True,
      stop_at='never',
      stop_on_divergence=False,
      heartbeat_timeout_sec=check.heartbeat_timeout_sec,
    ),
    devices=Devices(
      platform=check.platform,
      num_devices=num_devices,
      num_threads=1,  # results are equal to the last bit at equal numbers of threads alone
      world_size=backends.num_processes(
        one.framework,
        platform=check.platform,
        num_devices=num_devices,
        num_processes=None,
      ),
    ),
  )
  configs = request.trials(asked, _SEED)
  return [replace(config, budget=BUDGET, watched=True) for config in configs]


# One trial.


def _tried(title: str, config: TrialConfig, one: _Version) -> CheckRow:
  outcome, found = _watched(config, one)
  if outcome.status != 'finished':
    found = _with_failure(outcome, found, config, one)
    checked = frozenset[Subject]({'rules', 'runs'})
  else:
    found += _rising_losses(config, one)
    if any(finding.kind in _SLOW_KINDS for finding in found):
      found = [finding for finding in found if finding.kind not in _SLOW_KINDS]
      found += _slow_findings(config, one)
    found += [one.finding(kind, text) for kind, text in _when_resumed(config)]
    was_saved = all(finding.kind != 'not_saved' for finding in found)
    checked = frozenset(SUBJECTS if was_saved else [one for one in SUBJECTS if one != 'resumed'])
  return CheckRow(title=title, framework=config.framework, checked=checked, findings=tuple(found))


def _watched(config: TrialConfig, one: _Version) -> tuple[local.Outcome, list[Finding]]:
  """Runs a trial; returns its outcome and what its processes found, each thing once."""
  found: dict[tuple[str, str, int], Finding] = {}
  has_ended = False

  def take(message: Message) -> None:
    nonlocal has_ended
    if not isinstance(message, messages.Finding) or (message.ends and has_ended):
      return  # when a process has ended, the others fail for want of it
    has_ended |= message.ends
    finding = one.finding(message.rule, message.text, message.file, message.line)
    found.setdefault((message.rule, message.file, message.line), finding)

  outcome = local.run_trial(config, take, mistakes_are_outcomes=True)
  return outcome, list(found.values())


def _with_failure(
  outcome: local.Outcome, found: list[Finding], config: TrialConfig, one: _Version
) -> list[Finding]:
  """Adds how a trial failed, unless an error among the findings tells it."""
  if any(KINDS[finding.kind].severity == 'error' for finding in found):
    return found
  kind = 'harness' if outcome.status == 'invalid' else 'ended'
  return [*found, one.finding(kind, outcome.reason, *_last_own(config, one.file))]


def _slow_findings(config: TrialConfig, one: _Version) -> list[Finding]:
  """Runs the trial anew with LONG_BUDGET and returns what it shows of the slow kinds.

  An optimizer may gather gradients over many steps, or warm up.
  """
  longer = replace(
    config,
    folder=str(config.path.with_name('longer')),
    budget=LONG_BUDGET,
    options=replace(config.options, save_checkpoints=False),
  )
  outcome, found = _watched(longer, one)
  if outcome.status != 'finished':
    return _with_failure(outcome, found, longer, one)
  found += _rising_losses(longer, one)
  return [finding for finding in found if finding.kind in _SLOW_KINDS]


def _last_own(config: TrialConfig, file: Path) -> tuple[str, int]:
  """The submission's own line at which a signal has ended a trial; ('', 0) if there is none."""
  for rank in range(config.devices.world_size):
    slot = failure.last_own(output.last_stack(config.path, rank), file)
    if slot is not None:
      return slot
  return '', 0


def _rising_losses(config: TrialConfig, one: _Version) -> list[Finding]:
  """Returns a finding for each training loss that is higher at the end, or no number any more."""
  evals = measurements.read(config.path).evals
  first, last = evals[0], evals[-1]
  losses = [name for name in first if name.startswith('train/') and name.endswith('loss')]
  return [
    one.finding('loss_rises', f'{name} went from {first[name]:.4g} to {last[name]:.4g}.')
    for name in losses
    if not last[name] <= first[name]
  ]


def _when_resumed(config: TrialConfig) -> Iterator[tuple[str, str]]:
  """Resumes a copy of a finished trial at its last checkpoint but one; yields kind and text."""
  final = Checkpoints(config.path).load()
  if final is None:
    yield 'not_saved', _why_not_saved(config)
    return
  again = config.path.with_name('resumed')
  shutil.copytree(config.path, again)
  (again / f'checkpoint_{final.step}').unlink()
  before = Checkpoints(again).load()
  if before is None:
    return  # it said that it was complete before there was anything to resume
  yield from _resumed(replace(config, folder=str(again), resume=True, watched=False), before, final)


def _why_not_saved(config: TrialConfig) -> str:
  record = trial_record.read_trial(config.path)
  assert record is not None
  notes = [note for note in record.notes if note.startswith(CANNOT_BE_SAVED)]
  return notes[-1].removeprefix(CANNOT_BE_SAVED).strip()


def _resumed(config: TrialConfig, before: Loaded, final: Loaded) -> Iterator[tuple[str, str]]:
  outcome = local.run_trial(config, mistakes_are_outcomes=True)
  if outcome.status != 'finished':
    yield 'not_restored', f'Resumed at step {before.step} it fails: {outcome.reason}'
    return
  after = Checkpoints(config.path).load()
  if after is None:
    yield 'not_saved', _why_not_saved(config)
    return
  for name in _STATES:
    path = difference(final.payload[name], after.payload[name])
    if path is not None:
      yield (
        'resume_differs',
        f'Resumed at step {before.step}, it differs at step {final.step}: in {name}{path}.',
      )
      return


def difference(one: Any, other: Any, path: str = '') -> str | None:
  """The path of the first thing in which the contents of two checkpoints differ by a bit."""
  if type(one) is not type(other):
    return path
  if isinstance(one, dict):
    if list(one) != list(other):
      return path
    pairs: Sequence[tuple[Any, Any, Any]] = [(key, one[key], other[key]) for key in one]
  elif isinstance(one, (list, tuple)):
    if len(one) != len(other):
      return path
    pairs = [(index, *pair) for index, pair in enumerate(zip(one, other, strict=True))]
  else:
    return None if _same(one, other) else path
  found = (difference(left, right, f'{path}/{key}') for key, left, right in pairs)
  return next((slot for slot in found if slot is not None), None)


def _same(one: Any, other: Any) -> bool:
  if isinstance(one, (np.ndarray, np.generic, float)):
    left, right = np.asarray(one), np.asarray(other)
    same_type = left.shape == right.shape and left.dtype == right.dtype
    return same_type and left.tobytes() == right.tobytes()
  return bool(one == other)
