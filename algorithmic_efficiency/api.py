"""The command line from Python, for notebooks.

For example::

    from algorithmic_efficiency import api

    [trial] = api.run('quick_vision', framework='jax', submission='nadamw', ruleset='self')
    trial.rows().plot(x='global_step', y='validation/accuracy')
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.option_fields import declared
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial.run_options import RunOptions, with_options

if TYPE_CHECKING:
  import pandas as pd

  from algorithmic_efficiency.benchmark.suites import Ruleset
  from scoring.report.figures import Chart
  from scoring.report.plots import Kind
  from scoring.training_curves import Split

_Record = TypeVar('_Record')
_PLOT_OPTIONS = (
  *('workloads', 'include', 'exclude', 'reference', 'against'),
  *('axis', 'integral', 'allow_provisional', 'mix_hosts'),
)


@dataclass(frozen=True)
class Trial:
  """A trial folder: what became of the trial, and its rows."""

  folder: Path

  @property
  def record(self) -> trial_record.TrialRecord:
    """What became of the trial.

    Raises:
      UserError: the folder holds no trial.
    """
    record = trial_record.read_trial(self.folder)
    if record is None:
      raise errors.UserError(f'{self.folder} holds no trial.json.')
    return record

  def rows(self, kind: str = 'evals') -> pd.DataFrame:
    """One row an evaluation ('evals'), or one for each time the submission logged ('metrics')."""
    import pandas as pd

    if kind not in ('evals', 'metrics'):
      raise errors.unknown('kind of rows', kind, ('evals', 'metrics'))
    return pd.DataFrame(getattr(measurements.read(self.folder), kind))


def run(
  workload: str, *, framework: str, submission: str, quiet: bool = True, **options: Any
) -> list[Trial]:
  """Runs a submission on a workload, each trial in a process of its own, and gives the trials.

  Args:
    options: flags of `algoeff run`, such as trials, studies, smoke or num_threads, and the fields
      of `launch.request.Request`.

  Raises:
    UserError: a mistake of the caller.
  """
  from algorithmic_efficiency.launch import request, session

  registry.pin_own_packages()
  fields = {'workload': workload, 'framework': framework, 'submission': submission, **options}
  asked = _record(request.Request, fields)
  if 'devices' not in options:
    devices = asked.devices
    num_processes = backends.num_processes(
      framework,
      platform=devices.platform,
      num_devices=devices.num_devices,
      num_processes=None,
    )
    asked = dataclasses.replace(
      asked, devices=dataclasses.replace(devices, world_size=num_processes)
    )
  outcomes = session.run_trials(request.configs(asked), quiet=quiet)
  return [Trial(outcome.folder) for outcome in outcomes]


def bench(
  suite: str,
  *,
  submissions: Sequence[str],
  frameworks: Sequence[str],
  retry_failed: bool = False,
  quiet: bool = True,
  **options: Any,
) -> list[Trial]:
  """Runs a race as `algoeff bench` does, without scoring it, and gives all its trials.

  Args:
    suite: a name, or a TOML file.
    submissions: names, folders or module files; 'NAME=SUBMISSION' is scored as NAME.
    retry_failed: True runs trials again that failed by their own fault, or are invalid.
    options: further flags of `algoeff bench`, such as ruleset, studies or num_threads, and the
      fields of `experiments.race.race.Race`.

  Raises:
    UserError: a mistake of the caller; nothing was started.
  """
  from algorithmic_efficiency.experiments.race import race
  from algorithmic_efficiency.experiments.race import run as race_run

  registry.pin_own_packages()
  for name, value in (('submissions', submissions), ('frameworks', frameworks)):
    if isinstance(value, str):  # a list of letters, by its type
      raise errors.UserError(f'{name} must be a list of names; it is the text {value!r}.')
    if not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
      raise errors.UserError(f'{name} must be a list of names; it is {errors.shown(value)}.')
  fields = {
    'suite': suite,
    'entries': tuple(map(race.RaceSubmission.parse, submissions)),
    'frameworks': tuple(frameworks),
    **options,
  }
  asked = _record(race.Race, fields)
  result = race_run.run(asked, retry_failed=retry_failed, quiet=quiet)
  return [Trial(config.path) for config in result.configs]


def plot(
  kind: Kind,
  runs: str | Path,
  *,
  output: str | Path | None = None,
  split: Split = 'validation',
  x: str | None = None,
  suite: str | None = None,
  ruleset: Ruleset | None = None,
  **options: Any,
) -> Chart:
  """Draws a chart of runs as `algoeff plot` does; a notebook shows it.

  Args:
    kind: 'curves', 'profile' or 'times'.
    output: the file to write; its name says the format: .svg, .png, .pdf or .json.
    split: of curves: 'validation', 'train' or 'test'.
    x: what curves are drawn against: 'seconds', 'steps' or 'examples'; None takes the unit of the
      suite.
    suite, ruleset: None takes those of the runs.
    options: further flags of `algoeff plot`, such as workloads, include or reference.

  Raises:
    UserError: a mistake of the caller, or there is nothing to draw.
  """
  import scoring
  from scoring import outputs, report
  from scoring.choice import suite_and_ruleset
  from scoring.report import figures, plots

  registry.pin_own_packages()
  for name in options:
    if name not in _PLOT_OPTIONS:
      raise errors.unknown('option', name, [*_PLOT_OPTIONS, 'split', 'x', 'suite', 'ruleset'])
  report.require_installed()
  if output is not None:
    figures.require_format(Path(output))
    outputs.require_writable(Path(output).expanduser().parent, '--output')
  frame = scoring.load(runs)
  suite, ruleset = suite_and_ruleset(frame, suite, ruleset, against=options.get('against'))
  result = scoring.score(frame, suite, ruleset=ruleset, statistics=False, **options)
  chart = plots.draw(kind, frame, result, split=split, x=x)
  if output is not None:
    Path(output).expanduser().parent.mkdir(parents=True, exist_ok=True)
    chart.save(output)
  return chart


def _record(kind: Callable[..., _Record], fields: Mapping[str, Any]) -> _Record:
  """Makes a record, with its options and devices, from values given side by side.

  Raises:
    UserError: a name is unknown, or a value has another type than its field.
  """
  hints = typing.get_type_hints(kind)
  flags = {one.field: one for record in (RunOptions, Devices) for one in declared(record)}
  values = {}
  for name, value in fields.items():
    if name not in hints and name not in flags:
      raise errors.unknown('option', name, [*hints, *flags])
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    if name in hints:
      values[name] = _fitting(name, plain, hints[name])
    else:
      values[name] = tuple(plain) if flags[name].is_many and isinstance(plain, list) else plain
  own = {one.field for one in declared(Devices)} & values.keys()
  if own:
    given = {name: values.pop(name) for name in own}
    values['devices'] = dataclasses.replace(values.get('devices', Devices()), **given)
  return with_options(kind, values)


def _fitting(name: str, value: Any, hint: Any) -> Any:
  """A value as its field has it: a list may stand for a tuple.

  Raises:
    UserError: the value has another type.
  """
  try:
    return msgspec.convert(value, hint, from_attributes=True)
  except msgspec.ValidationError as error:
    found = str(error).replace('`', '')
    raise errors.UserError(f'{name} is {errors.shown(value)}: {found}.') from None


def trials(folder: str | Path) -> list[Trial]:
  """Every trial below a folder, in order: trial_10 comes after trial_9.

  Raises:
    UserError: there is no such folder.
  """
  if not Path(folder).is_dir():
    raise errors.UserError(f'Trials are read from a folder; {folder} is none.')
  from scoring.layout import natural

  paths = [path.parent for path in Path(folder).rglob(trial_record.TRIAL_FILE)]
  shown = [path for path in paths if not path.name.startswith('.')]
  return [Trial(path) for path in sorted(shown, key=lambda path: natural(str(path)))]
