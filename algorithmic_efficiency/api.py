"""The command line from Python, for notebooks.

Each function takes the flags of its command by name. What it returns has a view in a notebook, and
`frame()` or a method of its own, which gives it as a pandas frame. For example::

    from algorithmic_efficiency import api

    [trial] = api.run('quick_vision', framework='jax', submission='nadamw', ruleset='self')
    trial.rows().plot(x='global_step', y='validation/accuracy')
"""

from __future__ import annotations

import dataclasses
import html
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from algorithmic_efficiency import backends, cli, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.option_fields import declared
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial.run_options import RunOptions, with_options

if TYPE_CHECKING:
  import pandas as pd

  from algorithmic_efficiency.benchmark.suites import Ruleset
  from algorithmic_efficiency.experiments.check.run import CheckReport
  from algorithmic_efficiency.experiments.race.estimate import Estimate
  from scoring import Leaderboard
  from scoring.report.figures import Chart
  from scoring.report.plots import Kind
  from scoring.statistics.verdicts import Verdict
  from scoring.training_curves import Split

_Record = TypeVar('_Record')


class _View:
  """A result that a notebook shows as text above a table."""

  def frame(self) -> pd.DataFrame:
    raise NotImplementedError

  def _repr_html_(self) -> str:
    text = html.escape(str(self))
    return f'<pre>{text}</pre>{self.frame().to_html(float_format="{:.4g}".format)}'


class _Said(_View):
  """A result that is said in lines."""

  lines: tuple[str, ...]

  def __str__(self) -> str:
    return '\n'.join(self.lines).strip('\n')

  __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Comparison(_Said):
  """Which of two submissions is better, or that the runs do not decide; `str` says it in words."""

  verdict: Verdict
  lines: tuple[str, ...]

  def frame(self) -> pd.DataFrame:
    """The verdict in one row, with the columns of `scoring.statistics.verdicts.Verdict`."""
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(self.verdict)])


@dataclass(frozen=True, repr=False)
class Plan(_Said):
  """What a race takes; `str` says it in words."""

  estimate: Estimate
  lines: tuple[str, ...]

  def frame(self) -> pd.DataFrame:
    """A row for each submission on each workload: number of trials, and seconds of a trial."""
    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(one) for one in self.estimate.trials])


@dataclass(frozen=True, repr=False)
class Check(_Said):
  """What a check of a submission has found; `str` says it in words."""

  report: CheckReport
  lines: tuple[str, ...]

  def frame(self) -> pd.DataFrame:
    """A row for each workload: 'pass', 'warning' or 'error' by subject; None: not looked at."""
    import pandas as pd

    from algorithmic_efficiency.experiments.check.run import SUBJECTS

    return pd.DataFrame(
      [
        {
          'checked': row.title,
          'framework': row.framework,
          **{one: (row.worst(one) or 'pass') if one in row.checked else None for one in SUBJECTS},
        }
        for row in self.report.rows
      ]
    )


class Trials(list['Trial'], _View):
  """Trials in order."""

  def frame(self) -> pd.DataFrame:
    """A row for each trial: what it is, how it ended, steps, and seconds of a step."""
    import pandas as pd

    names = (
      *('submission', 'workload', 'framework', 'study', 'trial', 'status', 'stop_reason'),
      *('global_step', 'step_time_sec'),
    )
    records = [trial.record for trial in self]
    return pd.DataFrame(
      [[getattr(record, name) for name in names] for record in records], columns=list(names)
    )

  def __str__(self) -> str:
    return f'{len(self)} trials' if len(self) != 1 else '1 trial'

  def __repr__(self) -> str:
    return self.frame().to_string()


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
    record = trial_record.read_trial(Path(self.folder))
    if record is None:
      raise errors.UserError(f'{self.folder} holds no trial.json.')
    return record

  def rows(self, kind: str = 'evals') -> pd.DataFrame:
    """One row an evaluation ('evals'), or one for each time the submission logged ('metrics')."""
    import pandas as pd

    if kind not in ('evals', 'metrics'):
      raise errors.unknown('kind of rows', str(kind), ('evals', 'metrics'))
    return pd.DataFrame(getattr(measurements.read(Path(self.folder)), kind))


def run(
  workload: str,
  *,
  submission: str | None = None,
  framework: str | None = None,
  quiet: bool = True,
  **options: Any,
) -> Trials:
  """Runs a submission on a workload, each trial in a process of its own, and gives the trials.

  Args:
    submission: a name, a folder, a module file or the call of an optimizer. None takes
      `optimizer`, with `hparam`, a mapping, and the other flags of an optimizer.
    framework: required with a submission that is no optimizer.
    options: flags of `algoeff run`, such as trials, studies, smoke or num_threads, and the fields
      of `launch.request.Request`.

  Raises:
    UserError: a mistake of the caller.
  """
  from algorithmic_efficiency.cli import run as verb
  from algorithmic_efficiency.launch import request, session

  registry.pin_own_packages()
  if not isinstance(workload, str):
    raise errors.UserError(f'workload must be a name; it is {errors.shown(workload)}.')
  registry.workload(workload)
  if submission is None or 'optimizer' in options:
    own = ('optimizer', 'hparam', *verb.OPTIMIZER_OPTIONS)
    given = {name: options.pop(name) for name in own if name in options}
    submission = verb.submission_of(
      cli.arguments('run', {'workload': workload, 'submission': submission, **given})
    )
  framework = framework or verb.framework_of(submission)
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
  return Trials(Trial(outcome.folder) for outcome in outcomes)


def bench(
  suite: str,
  *,
  submissions: Sequence[str],
  frameworks: Sequence[str] | None = None,
  retry_failed: bool = False,
  quiet: bool = True,
  **options: Any,
) -> Trials:
  """Runs a race as `algoeff bench` does, without scoring it, and gives all its trials.

  Args:
    suite: a name, or a TOML file.
    submissions: names, folders or module files; 'NAME=SUBMISSION' is scored as NAME.
    frameworks: None takes those that are installed.
    retry_failed: True runs trials again that failed by their own fault, or are invalid.
    options: further flags of `algoeff bench`, such as ruleset, studies or num_threads, and the
      fields of `experiments.race.race.Race`.

  Raises:
    UserError: a mistake of the caller; nothing was started.
  """
  from algorithmic_efficiency.experiments.race import race
  from algorithmic_efficiency.experiments.race import run as race_run
  from algorithmic_efficiency.launch import request

  registry.pin_own_packages()
  frameworks = request.installed() if frameworks is None else frameworks
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
  return Trials(Trial(config.path) for config in result.configs)


def plan(suite: str, *, submissions: Sequence[str], **options: Any) -> Plan:
  """Estimates what a race takes, as `algoeff plan` does.

  Args:
    options: further flags of `algoeff plan`, such as ruleset, from_budget or price_per_hour.

  Raises:
    UserError: a mistake of the caller, or the race may take more than `max_hours`.
  """
  from algorithmic_efficiency.cli import plan as verb

  registry.pin_own_packages()
  args = cli.arguments('plan', {'suite': suite, 'submissions': submissions, **options})
  race, estimate = verb.estimated(args)
  undecided = verb.undecidable(race, estimate)
  return Plan(estimate, (*verb.lines(estimate), *([undecided] if undecided else [])))


def check(submission: str, **options: Any) -> Check:
  """Checks a submission before it is run, as `algoeff check` does.

  Args:
    options: flags of `algoeff check`, such as workloads or thorough.

  Raises:
    UserError: there is no such submission or workload.
  """
  from algorithmic_efficiency.cli import check as verb

  registry.pin_own_packages()
  report = verb.checked(
    cli.arguments('check', {'submission': submission, **options}), lambda row: None
  )
  return Check(report, tuple(verb.lines(report)))


def score(runs: str | Path, **options: Any) -> Leaderboard:
  """Scores a folder of runs as `algoeff score` does; a notebook shows the board.

  Args:
    options: flags of `algoeff score`, such as suite, against or resamples. Tables and report are
      written if `output_dir` is given.

  Raises:
    UserError: a mistake of the caller, or there is nothing to score.
  """
  from algorithmic_efficiency.cli import score as verb

  registry.pin_own_packages()
  args = cli.arguments('score', {'runs': runs, **options})
  return verb.written(args)[0] if args.output_dir else verb.load_and_score(args)[1]


def compare(a: str, b: str, runs: str | Path, **options: Any) -> Comparison:
  """Says which of two submissions is better, as `algoeff compare` does.

  Args:
    options: flags of `algoeff compare`, such as suite or workloads.

  Raises:
    UserError: a mistake of the caller, or there is nothing to compare.
  """
  from algorithmic_efficiency.cli import compare as verb
  from scoring.console import comparison_lines

  registry.pin_own_packages()
  args = cli.arguments('compare', {'a': a, 'b': b, 'runs': runs, **options})
  result, verdict = verb.compared(args)
  return Comparison(verdict, tuple(comparison_lines(result, verdict)))


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
  from algorithmic_efficiency.cli import plot as verb

  registry.pin_own_packages()
  named = {'split': split, 'x': x, 'suite': suite, 'ruleset': ruleset, 'output': output}
  return verb.drawn(cli.arguments('plot', {'kind': kind, 'runs': runs, **named, **options}))


def _record(kind: Callable[..., _Record], fields: Mapping[str, Any]) -> _Record:
  """Makes a record, with its options and devices, from values given side by side.

  Raises:
    UserError: a name is unknown, or a value has another type than its field.
  """
  hints = typing.get_type_hints(kind)
  options = [one for record in (RunOptions, Devices) for one in declared(record)]
  flags = {one.field: one for one in options}
  fields_of = {other: one.field for one in options for other in (one.flag, *one.also)}
  values = {}
  for said, value in fields.items():
    name = said if said in hints else fields_of.get(said, said)
    if name not in hints and name not in flags:
      raise errors.unknown('option', name, [*hints, *flags])
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    if name in hints:
      values[name] = _fitting(name, plain, hints[name])
    else:
      if flags[name].is_repeated and isinstance(plain, str):
        plain = [plain]
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


def trials(folder: str | Path) -> Trials:
  """Every trial below a folder, in order: trial_10 comes after trial_9.

  Raises:
    UserError: there is no such folder.
  """
  if not isinstance(folder, (str, os.PathLike)) or not Path(folder).is_dir():
    raise errors.UserError(f'Trials are read from a folder; {folder} is none.')
  from scoring.layout import natural

  paths = [path.parent for path in Path(folder).rglob(trial_record.TRIAL_FILE)]
  shown = [path for path in paths if not path.name.startswith('.')]
  return Trials(Trial(path) for path in sorted(shown, key=lambda path: natural(str(path))))
