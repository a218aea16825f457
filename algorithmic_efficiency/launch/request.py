"""What a user asks to be run, and the trials that it means.

All that can be said about a mistake without importing a framework is said here, before anything is
started or written.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from algorithmic_efficiency import backends, errors, seeds
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Ruleset, Suite
from algorithmic_efficiency.data import records
from algorithmic_efficiency.launch.trial_folder import TrialFolder, recover
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.option_fields import check_folder, check_number
from algorithmic_efficiency.results import race_files, trackers, trial_record
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import submission
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.run_options import RunOptions, are_same, data_dir

_PACKAGES: Mapping[str, tuple[str, ...]] = {'jax': ('jax', 'flax'), 'pytorch': ('torch',)}
_EXTRAS: Mapping[str, str] = {'jax': 'jax', 'pytorch': 'torch'}
_MAX_TRIALS = 100_000  # of one request
_MAX_THREADS = 1_024  # of a process
# More processes than these starve each other: each imports a framework and holds its own model.
_MAX_PROCESSES_PER_CPU = 4
_MIN_PROCESSES = 8
_MAX_NAME_BYTES = 200
_SCORED_NAME = re.compile(r'(?!.*_(jax|pytorch)$)[A-Za-z0-9][\w.+-]*')


@dataclass(frozen=True, kw_only=True)
class Request:
  """One submission on one workload: the flags of `algoeff run`, as a record.

  Attributes:
    submission: a name found in `submissions/`, a folder, a module file, or an optimizer that is
      called (see `optimizer_entry`).
    suite: None takes the first that the definition lists.
    tuning_search_space: None takes the submission's own.
    point: the one point that is run, whatever the search space; None takes those of the space.
    trials, hparam_start_index, hparam_end_index: how many points there are, and the slice of them
      (from 0, end exclusive) that is run.
    study, studies: the number of one study, or how many from 1 on.
    seed: None draws one, which is written down.
    drawn_seed: what is drawn; processes that cannot ask each other must agree on it beforehand.
    experiment: the folder's name, and the submission's name in scores; None takes the submission's.
    nested: whether `study_<k>` stands between the experiment and the workload.
    is_elsewhere: whether other hosts run the trials, with other devices than this one.
  """

  workload: str
  framework: str
  submission: str
  suite: str | None = None
  ruleset: Ruleset = 'external'
  tuning_search_space: str | None = None
  point: Mapping[str, Any] | None = None
  trials: int = 1
  hparam_start_index: int | None = None
  hparam_end_index: int | None = None
  study: int | None = None
  studies: int = 1
  seed: int | None = None
  drawn_seed: int | None = None
  experiment_dir: str = 'runs'
  experiment: str | None = None
  nested: bool = True
  is_elsewhere: bool = False
  resume: bool = False
  overwrite: bool = False
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Subject:
  """What a request is about, once its names have been found."""

  definition: WorkloadDefinition
  suite: Suite
  name: str
  file: Path
  folders: Mapping[int, Path]  # of the workload's trials, by study


def configs(request: Request) -> list[TrialConfig]:
  """Every trial of a request, in the order in which they run.

  Raises:
    UserError: something in the request is wrong or missing.
  """
  if request.nested and request.experiment is not None:
    check_scored_name(request.experiment, 'Give another --experiment.')
  subject = _subject(request)
  if request.devices.rank == 0:
    for folder in subject.folders.values():
      recover(folder)
  result = _trials(request, subject, _seeds(request, subject.folders))
  _check_folders(request, result)
  check_data(result)
  return result


def check_data(configs: Iterable[TrialConfig]) -> None:
  """Makes sure that the prepared data sets that trials read are complete.

  Raises:
    UserError: one is missing or incomplete.
  """
  roots = {
    config.data_dir / registry.workload(config.workload).dataset
    for config in configs
    if not (config.options.smoke or registry.workload(config.workload).bundled)
  }
  for root in sorted(roots):
    records.check_sizes(root, records.read_manifest(root))


def check_scored_name(name: str, remedy: str) -> None:
  """
  Raises:
    UserError: scoring would not find, or would misread, the runs of a submission of this name.
  """
  if not _SCORED_NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES:
    raise errors.UserError(
      f'A submission is scored by a name of at most {_MAX_NAME_BYTES} letters, digits and . + - _ '
      f'that does not end like a framework; {errors.shown(name)} is none. {remedy}'
    )
  if name.casefold() in race_files.OWN_NAMES:  # some file systems know no case
    raise errors.UserError(
      f'A race keeps results of its own under the name {name}, which no submission can have. '
      f'{remedy}'
    )


def trials(request: Request, root_seed: int) -> list[TrialConfig]:
  """Every trial of a request under one root seed, whatever lies in their folders by now.

  Raises:
    UserError: something in the request is wrong or missing.
  """
  subject = _subject(request)
  return _trials(request, subject, dict.fromkeys(subject.folders, root_seed))


def _subject(request: Request) -> _Subject:
  definition = registry.workload(request.workload)
  _check_framework(definition, request.framework)
  suite = _suite(definition, request)
  name, file = submission.locate(request.submission, request.ruleset, request.framework)
  _check_numbers(request)
  _check_splits(request, suite)
  runs = Path(request.experiment_dir).expanduser()
  name = request.experiment or by_name.former_name(file, runs) or name
  root = runs / name
  folders = {
    study: (root / f'study_{study}' if request.nested else root)
    / f'{definition.name}_{request.framework}'
    for study in _studies(request)
  }
  return _Subject(definition=definition, suite=suite, name=name, file=file, folders=folders)


def _trials(
  request: Request, subject: _Subject, root_seeds: Mapping[int, int]
) -> list[TrialConfig]:
  roots, task_folders = registry.roots()
  options = _resolved(request, subject)
  result = []
  for study, seed in root_seeds.items():
    study_seed = seeds.derive(seed, 'study', study)
    for trial, point in _points(request, subject.file, study, study_seed):
      folder = subject.folders[study] / f'trial_{trial}'
      result.append(
        TrialConfig(
          workload=subject.definition.name,
          framework=request.framework,
          submission=subject.name,
          submission_path=str(subject.file),
          suite=subject.suite.name,
          ruleset=request.ruleset,
          study=study,
          trial=trial,
          hyperparameters=point,
          seed=seeds.derive(study_seed, 'trial', trial),
          study_seed=study_seed,
          root_seed=seed,
          folder=str(folder.resolve()),
          options=options,
          devices=replace(
            request.devices, compilation_cache=_cache(request, subject.suite, folder)
          ),
          resume=request.resume,
          overwrite=request.overwrite,
          roots=tuple(roots),
          task_folders=tuple(task_folders),
          suite_file=subject.suite.file,
          flags=request.flags,
        )
      )
  return result


def _resolved(request: Request, subject: _Subject) -> RunOptions:
  """The options of a request, with the suite's values where the request leaves them open."""
  options, suite = request.options, subject.suite
  divergence, timeout = options.stop_on_divergence, options.heartbeat_timeout_sec
  if timeout is None:
    definition = registry.workload(subject.definition.name, suite.name)
    budget = budget_of(definition, suite, request.ruleset, options.smoke)
    timeout = max(suite.heartbeat_timeout_sec, budget.max_sec or 0.0)
  return replace(
    options,
    stop_on_divergence=suite.stop_on_divergence if divergence is None else divergence,
    heartbeat_timeout_sec=timeout,
    data_dir=str(data_dir(options.data_dir)),
  )


def _cache(request: Request, suite: Suite, folder: Path) -> str:
  """Gives the folder of a trial's persistent compilation cache.

  Where seconds are raced, each trial has its own, so that none finds its work done. Where steps are
  raced, all trials share one.
  """
  if suite.axis == 'seconds' and not request.options.smoke:
    return str(folder.resolve() / '.compilation_cache')
  shared = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return shared or str(Path(home).expanduser() / 'algoeff' / 'jax')


def installed() -> tuple[str, ...]:
  """The frameworks that are installed.

  Raises:
    UserError: there is none.
  """
  found = tuple(name for name in _PACKAGES if not _missing(name))
  if not found:
    raise errors.UserError(
      "No framework is installed: pip install 'algorithmic-efficiency[jax]', or [torch]."
    )
  return found


def _missing(framework: str) -> list[str]:
  return [name for name in _PACKAGES[framework] if importlib.util.find_spec(name) is None]


def check_installed(framework: str) -> None:
  """
  Raises:
    UserError: the framework is not installed.
  """
  if framework not in _PACKAGES:
    raise errors.unknown('framework', framework, _PACKAGES)
  for package in _missing(framework):
    raise errors.UserError(
      f'The framework {framework} needs {package}, which is not installed: '
      f"pip install 'algorithmic-efficiency[{_EXTRAS[framework]}]'."
    )


def _check_framework(definition: WorkloadDefinition, framework: str) -> None:
  if framework not in _PACKAGES:
    raise errors.unknown('framework', framework, _PACKAGES)
  obstacle = registry.obstacle(definition, framework)
  if obstacle:
    raise errors.UserError(
      f'{definition.name} cannot run with {framework} yet. {obstacle} `algoeff list workloads` '
      'says which can.'
    )
  check_installed(framework)


def _suite(definition: WorkloadDefinition, request: Request) -> Suite:
  if request.suite is None and not definition.suites:
    raise errors.UserError(f'{definition.name} has no budget in any suite.')
  suite = registry.suite(request.suite or next(iter(definition.suites)))
  suite.rules_of(request.ruleset)
  target = registry.workload(definition.name, suite.name).target
  if target.provisional and not (request.options.allow_provisional or request.options.smoke):
    raise errors.UserError(
      f'The target of {definition.name} is provisional: it has not been calibrated, and its runs '
      'are never scored. Add --allow_provisional to race it all the same.'
    )
  return suite


def check_num_trials(trials: int, studies: int = 1) -> None:
  """
  Raises:
    UserError: the trials of a submission on a workload are more than a command runs.
  """
  if trials * studies > _MAX_TRIALS:
    raise errors.UserError(
      f'A command runs at most {_MAX_TRIALS:,} trials; --trials {trials} and --studies {studies} '
      'are more.'
    )


def _check_numbers(request: Request) -> None:
  for name in ('trials', 'studies', 'study'):
    value = getattr(request, name)
    if value is not None:
      check_number(name, value)
  for name in ('seed', 'hparam_start_index', 'hparam_end_index'):
    value = getattr(request, name)
    if value is not None:
      check_number(name, value, rule='not negative')
  _check_devices(request)
  check_folder('--experiment_dir', request.experiment_dir)
  if request.options.data_dir is not None:
    check_folder('--data_dir', request.options.data_dir, must_exist=True)
  for name in request.options.trackers:
    trackers.check(name)
  check_num_trials(request.trials, request.studies)
  if request.study is not None and request.studies > 1:
    raise errors.UserError('--study runs one study and --studies several; give one of them.')
  if request.resume and request.overwrite:
    raise errors.UserError('--resume and --overwrite exclude each other; give one of them.')


def _check_devices(request: Request) -> None:
  """Makes sure that this host can have as many processes and threads."""
  devices = request.devices
  check_number('num_processes', devices.world_size)
  if devices.num_threads is not None and devices.num_threads > _MAX_THREADS:
    raise errors.UserError(
      f'--num_threads must be at most {_MAX_THREADS:,}; it is {devices.num_threads:,}.'
    )
  if devices.address or request.is_elsewhere:
    return  # the processes of other hosts are among them
  flag = 'num_processes' if devices.num_devices is None else 'num_devices'
  num_gpus = len(backends.visible_gpus()) if devices.platform in ('auto', 'gpu') else 0
  num_cpus = num_usable_cpus()
  most, why = max(_MIN_PROCESSES, int(_MAX_PROCESSES_PER_CPU * num_cpus)), f'{num_cpus:g} CPUs'
  if num_gpus and backends.has_process_per_device(request.framework):
    most, why = num_gpus, f'{num_gpus} GPUs, one for each process'
  if devices.world_size > most:
    raise errors.UserError(
      f'--{flag} must be at most {most} on this host, which has {why}; it is '
      f'{devices.world_size:,}.'
    )


def _check_splits(request: Request, suite: Suite) -> None:
  """Makes sure that the targets that end a trial can be reached on what is evaluated."""
  options = request.options
  if 'test' in options.splits or options.stop_at != 'both':
    return
  if registry.workload(request.workload, suite.name).target.test is not None:
    raise errors.UserError(
      f'Without the test split the test target of {request.workload} is never reached, and no '
      'trial ends before its budget does; add --stop_at validation.'
    )


def _seeds(request: Request, folders: Mapping[int, Path]) -> dict[int, int]:
  """The root seed of each study: as given, or that with which its trials on this workload began
  where it is resumed, or a new one."""
  begun: dict[int, int] = {}
  for study, folder in folders.items() if request.resume else ():
    seed = _seed_in(folder)
    if seed is None:
      continue
    if request.seed not in (None, seed):
      raise errors.UserError(
        f'A run resumes with the seed it began with; that of {folder} is {seed}, not '
        f'{request.seed}.'
      )
    begun[study] = seed
  choices = (request.seed, *begun.values(), request.drawn_seed, secrets.randbits(31))
  other = next(seed for seed in choices if seed is not None)
  return {study: begun.get(study, other) for study in folders}


def _seed_in(folder: Path) -> int | None:
  """The root seed that the trials in a folder began with."""
  for path in sorted(folder.glob(f'trial_*/{trial_record.TRIAL_FILE}')):
    record = trial_record.read_trial(path.parent)
    if record is not None and 'seed' in record.seeds:
      return record.seeds['seed']
  return None


def _studies(request: Request) -> range:
  if request.study is not None:
    return range(request.study, request.study + 1)
  return range(1, request.studies + 1)


def _points(
  request: Request, file: Path, study: int, study_seed: int
) -> list[tuple[int, Mapping[str, Any] | None]]:
  """The trials of a study: their numbers from 1 and their hyperparameter points."""
  if request.ruleset == 'self':
    if request.tuning_search_space is not None:
      raise errors.UserError(
        'The self-tuning ruleset takes no search space; drop --tuning_search_space, or use '
        '--ruleset external.'
      )
    points: list[Mapping[str, Any] | None] = [None] * request.trials
  elif request.point is not None:
    points = [request.point]
  else:
    space = search_space.load(_search_space(request, file))
    is_sliced = (request.hparam_start_index, request.hparam_end_index) != (None, None)
    if is_sliced and request.seed is None:
      # Launches that share a study must agree on the order, whatever seeds they draw.
      order = seeds.derive(0, 'points', study)
    else:
      order = seeds.derive(study_seed, 'points')
    points = list(search_space.points(space, request.trials, order))
  chosen = list(enumerate(points, 1))[request.hparam_start_index : request.hparam_end_index]
  if not chosen:
    raise errors.UserError(
      f'There are {len(points)} trials; --hparam_start_index {request.hparam_start_index} and '
      f'--hparam_end_index {request.hparam_end_index} leave none of them.'
    )
  return chosen


def _search_space(request: Request, file: Path) -> Path:
  if request.tuning_search_space is not None:
    return Path(request.tuning_search_space).expanduser()
  own = file.parent / 'tuning_search_space.json'
  if not own.is_file():
    raise errors.UserError(
      f'External tuning needs a search space: {file.parent} has no tuning_search_space.json; give '
      '--tuning_search_space, or use --ruleset self.'
    )
  return own


def _check_folders(request: Request, trials: list[TrialConfig]) -> None:
  """Makes sure that no earlier result is touched unless that was asked for."""
  if trials[0].devices.rank != 0:
    return  # the first process of the group has looked
  taken = [config.path for config in trials if config.path.is_dir() and any(config.path.iterdir())]
  if taken and request.overwrite:
    for folder in taken:
      with TrialFolder(folder):
        pass  # each is replaced when its turn comes, but none if one of them is in use
  elif taken and request.resume:
    for config in trials:
      record = trial_record.read_trial(config.path)
      if record is not None:
        check_resumable(config, record)
  elif taken:
    raise errors.UserError(
      f'The trial folder {taken[0]} exists already; continue it with --resume, replace it with '
      '--overwrite, or choose another --experiment.'
    )


def check_resumable(config: TrialConfig, record: TrialRecord) -> None:
  """Makes sure that a trial goes on by the rules, and at the point, with which it began.

  Raises:
    UserError: the config has others than the record.
  """
  planned = config.record()
  for name in ('suite', 'ruleset', 'smoke', 'hyperparameters', 'options', 'seeds'):
    begun, asked = getattr(record, name), getattr(planned, name)
    if name == 'options' and (not begun or are_same(begun, asked)):  # older records have none
      continue
    if begun != asked:
      raise errors.UserError(
        f'A trial resumes as it began; {config.path} began with {name} {begun} and would go on '
        f'with {asked}. Give the command that it began with, or start anew with --overwrite.'
      )
  by_name.check_resumable(Path(config.submission_path), config.path)
