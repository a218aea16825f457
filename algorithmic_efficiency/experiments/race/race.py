"""A race: several submissions on the workloads of a suite, and all the trials that this means."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import Ruleset, Suite
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.launch.request import Request
from algorithmic_efficiency.launchers.launcher import Launcher
from algorithmic_efficiency.launchers.local import LocalLauncher
from algorithmic_efficiency.launchers.slurm import SlurmLauncher
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import submission
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions


@dataclass(frozen=True, kw_only=True)
class RaceSubmission:
  """A submission in a race, and the name that it is scored under.

  `submission` is a name, a folder, a module file or the call of an optimizer. `name` is None for
  its own name. Another name lets one submission race twice.
  """

  submission: str
  name: str | None = None

  @classmethod
  def parse(cls, text: str) -> RaceSubmission:
    """Reads `SUBMISSION` or `NAME=SUBMISSION`; within a call the sign means something else."""
    name, given, submission = text.partition('=')
    if not given or '(' in name:
      return cls(submission=text)
    if not (name and submission):
      raise errors.UserError(
        f'A submission is given as SUBMISSION or NAME=SUBMISSION; {errors.shown(text)} lacks one.'
      )
    return cls(submission=submission, name=name)


@dataclass(frozen=True, kw_only=True)
class Race:
  """The flags of `algoeff bench`, as a record.

  Attributes:
    frameworks: each submission races in each of them.
    workloads: None takes the members of the suite that can run and whose targets are calibrated.
    studies, trials: None takes the numbers of the suite.
    experiment_dir: the folder of the runs; None takes one for the suite and the ruleset.
    seed: the root seed of all trials; None takes that of the runs that are there, or draws one.
    devices: those of one trial.
    workers: how many trials run at a time; None takes as many as there are groups of GPUs, or one.
      On a cluster, it is how many jobs run at a time, and None lets the cluster decide.
    slurm: the jobs of SLURM that run the trials; None runs them on this machine.
    tuning_search_space: None takes each submission's own.
    overwrite: whether trials that are there are replaced; otherwise they are continued.
    is_scored: False for a race that nobody scores, whose steps need no timing.
    plain_steps: whether a step counts as one, whatever it costs, and none is timed.

  Raises:
    UserError: more trials than the ruleset has, steps that would be timed on several nodes, or
      plain steps where seconds are raced.
  """

  suite: str
  entries: tuple[RaceSubmission, ...]
  frameworks: tuple[str, ...]
  ruleset: Ruleset = 'external'
  workloads: tuple[str, ...] | None = None
  studies: int | None = None
  trials: int | None = None
  tuning_search_space: str | None = None
  seed: int | None = None
  experiment_dir: str | None = None
  overwrite: bool = False
  is_scored: bool = True
  plain_steps: bool = False
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  workers: int | None = None
  slurm: SlurmOptions | None = None
  flags: Mapping[str, Any] = field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.ruleset == 'self' and (self.trials or 1) > 1:
      raise errors.UserError(
        f'Under self tuning a study has one trial; --trials is {self.trials}. Leave it out, or '
        'race with --ruleset external.'
      )
    if self.plain_steps and registry.suite(self.suite).axis != 'cost_adjusted_steps':
      raise errors.UserError(
        f'The suite {self.suite} is raced in seconds; --plain_steps is for suites raced in steps.'
      )
    if self.slurm is not None and self.slurm.num_nodes > 1 and self.is_weighed:
      raise errors.UserError(
        f'The suite {self.suite} is raced in steps, which are timed on one node; leave out '
        '--slurm_nodes.'
      )

  @property
  def folder(self) -> Path:
    if self.experiment_dir is not None:
      return Path(self.experiment_dir).expanduser()
    parts = (Path(self.suite).stem, self.ruleset, *['smoke'] * self.options.smoke)
    return Path('races', '_'.join(parts))

  @property
  def launcher(self) -> Launcher:
    """Where the trials run."""
    if self.slurm is None:
      return LocalLauncher(asked=self.devices, num_workers=self.workers)
    return SlurmLauncher(options=self.slurm, asked=self.devices, num_workers=self.workers)

  @property
  def is_weighed(self) -> bool:
    """Whether it matters what a step costs: not where no time is scored, or seconds are."""
    in_steps = registry.suite(self.suite).axis == 'cost_adjusted_steps'
    is_scored = self.is_scored and not self.options.smoke and self.options.stop_at != 'never'
    return in_steps and is_scored and not self.plain_steps


def expand(race: Race) -> list[TrialConfig]:
  """Every trial of a race, interleaved: whatever drifts on the host meets all submissions alike.

  The order is by study, trial, workload, framework and, innermost, submission. Seeds are paired:
  none depends on the submission. Nothing is written.

  Raises:
    UserError: something in the race is wrong or missing, or its folder holds runs that do not
      belong to it.
  """
  found = state.records(race.folder)
  root_seed = _root_seed(race, found)
  configs = [
    config
    for workload, framework, entry in with_submissions(race, cells(race))
    for config in request.trials(_request(race, entry, workload, framework), root_seed)
  ]
  _check_names(race, configs)
  _check_baselines(race, configs)
  _check_folder(race, configs, found)
  return sorted(
    configs, key=lambda config: (config.study, config.trial)
  )  # which keeps equals in order


def cells(race: Race) -> list[tuple[str, str]]:
  """The workloads of a race, each with each framework.

  Raises:
    UserError: a name is unknown, or no workload of the suite can run.
  """
  if not race.entries or not race.frameworks or race.workloads == ():
    raise errors.UserError('A race needs a submission, a framework and a workload at least.')
  frameworks = tuple(dict.fromkeys(race.frameworks))
  for framework in frameworks:
    request.check_installed(framework)
  if race.workloads is not None:
    workloads = {registry.workload(name).name: None for name in race.workloads}
    return [(name, framework) for name in workloads for framework in frameworks]
  members = registry.members(race.suite)
  able = [
    (name, framework)
    for name, definition in members.items()
    for framework in frameworks
    if registry.is_runnable(definition, framework)
  ]
  if not able:
    listed = ', '.join(members) or 'it has none'
    raise errors.UserError(f'No workload of the suite {race.suite} can run yet ({listed}).')
  if race.options.smoke or race.options.allow_provisional:
    return able
  calibrated = [cell for cell in able if not members[cell[0]].target.provisional]
  if not calibrated:
    listed = ', '.join(dict.fromkeys(name for name, _ in able))
    raise errors.UserError(
      f'All targets of the suite {race.suite} are provisional ({listed}): they have not been '
      'calibrated. Add --allow_provisional to race towards them all the same.'
    )
  return calibrated


def with_submissions(
  race: Race, cells: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str, RaceSubmission]]:
  """Pairs workload and framework with each submission that is written for the framework.

  Raises:
    UserError: a submission is not found, or is written for none of the race's frameworks.
  """
  written_for = {
    one: submission.frameworks_of(one.submission, race.ruleset, race.frameworks)
    for one in sorted(race.entries, key=lambda one: by_name.is_call(one.submission))
  }  # a misspelt name is told before an optimizer is tried
  for workload, framework in cells:
    for one in race.entries:
      if framework in written_for[one]:
        yield workload, framework, one


def with_baselines(
  race: Race, groups: Mapping[tuple[int, str, str], list[TrialConfig]]
) -> dict[tuple[int, str, str], list[TrialConfig]]:
  """Adds the suite's baseline, by whose steps costs are measured, where it does not race.

  Args:
    groups: the trials of each study, workload and framework.

  Returns:
    The groups. One stays as it is where no baseline is written for the ruleset and framework.
  """
  found = {}
  for key, configs in groups.items():
    missing = _missing_baseline(race, configs)
    if missing is None:
      found[key] = configs
      continue
    asked = _request(
      replace(race, tuning_search_space=None), RaceSubmission(submission=missing), *key[1:]
    )
    trials = request.trials(asked, configs[0].root_seed)
    found[key] = [*configs, next(one for one in trials if one.study == key[0])]
  return found


def _missing_baseline(race: Race, configs: Sequence[TrialConfig]) -> str | None:
  """The baseline that could race beside these; None if one does, or there is none."""
  suite = registry.suite(race.suite)
  if suite.baseline_among({config.submission for config in configs}) is not None:
    return None
  known = registry.submissions()
  for name in suite.baselines:
    folder = known.get((race.ruleset, name))
    if folder is not None and configs[0].framework in folder.frameworks:
      return name
  return None


def _request(race: Race, entry: RaceSubmission, workload: str, framework: str) -> Request:
  numbers = registry.suite(race.suite).rules_of(race.ruleset)
  return Request(
    workload=workload,
    framework=framework,
    submission=entry.submission,
    suite=race.suite,
    ruleset=race.ruleset,
    tuning_search_space=race.tuning_search_space,
    trials=numbers.num_trials if race.trials is None else race.trials,
    studies=numbers.num_studies if race.studies is None else race.studies,
    seed=race.seed,
    experiment_dir=str(race.folder),
    experiment=entry.name,
    resume=not race.overwrite,
    overwrite=race.overwrite,
    options=race.options,
    devices=race.launcher.devices(race.devices, framework),
    is_elsewhere=race.slurm is not None,
    flags=race.flags,
  )


def _root_seed(race: Race, found: Mapping[Path, TrialRecord]) -> int:
  begun = [record.seeds['seed'] for record in found.values() if 'seed' in record.seeds]
  choices = (race.seed, *begun, secrets.randbits(31))
  return next(seed for seed in choices if seed is not None)


def _check_names(race: Race, configs: list[TrialConfig]) -> None:
  names = list(dict.fromkeys(config.submission for config in configs))
  for name in names:
    request.check_scored_name(name, 'Give it one with NAME=SUBMISSION.')
  if len(names) < len(race.entries):
    raise errors.UserError(
      f'{len(race.entries)} submissions race under {len(names)} name(s), {", ".join(names)}; tell '
      'them apart with NAME=SUBMISSION.'
    )


def _check_baselines(race: Race, configs: list[TrialConfig]) -> None:
  """Makes sure that the baselines that a suite file names are submissions."""
  suite = registry.suite(race.suite)
  known = {name for _, name in registry.submissions()} | {config.submission for config in configs}
  for name in suite.baselines:
    if suite.file and name not in known and name not in Suite.baselines:
      raise errors.UserError(f'{suite.file}: {errors.unknown("baseline", name, known)}')


def _check_folder(
  race: Race, configs: list[TrialConfig], found: Mapping[Path, TrialRecord]
) -> None:
  """Makes sure that all runs in the folder of a race are of this race, or could be."""
  planned = {config.path: config for config in configs}
  staying = {
    path: record for path, record in found.items() if not (race.overwrite and path in planned)
  }
  state.check_belongs(staying, configs[0])
  source_hash = functools.cache(submission.source_hash)
  for path, record in staying.items():
    if path not in planned:
      continue
    request.check_resumable(planned[path], record)
    if record.submission_hash not in ('', source_hash(Path(planned[path].submission_path))):
      raise errors.UserError(
        f'A race scores one version of each submission; the files of {record.submission} have been '
        f'changed since {path} was run. Choose another --experiment_dir, or replace the runs with '
        '--overwrite.'
      )
