"""The options of a run: how its trials are run, evaluated and ended.

A new option is a field here, and an `if` where it acts. Commands, `submission_runner`, the API, the
trial's config and its record take the option from the field.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from algorithmic_efficiency import errors
from algorithmic_efficiency import option_fields as options
from algorithmic_efficiency.benchmark.definition import Split
from algorithmic_efficiency.option_fields import option

Record = TypeVar('Record')
StopAt = Literal['both', 'validation', 'never']
KeepParams = Literal['none', 'last', 'best']

ALL_SPLITS: tuple[Split, ...] = get_args(Split)

_MAX_DATA_WORKERS = 256

_RUN, _END, _KEEP = 'what to run', 'evaluation and stopping', 'data and results'


@dataclass(frozen=True, kw_only=True)
class RunOptions:
  """How trials are run, evaluated and ended.

  Fields without help have no flag: `submission_runner --skip_evals` sets `evaluate`, `calibrate`
  sets `generate`, and `reproduce` sets `eval_steps`.

  Attributes:
    evaluate: False trains without evaluating.
    generate: False leaves out the metrics that need generated outputs.
    eval_steps: steps after which a trial is evaluated, instead of the periods of its suite. The
      last one ends the trial. Such a trial is never scored.

  Raises:
    UserError: the value of an option is wrong.
  """

  smoke: bool = option(
    False, group=_RUN, help='run tiny sizes on generated data; such runs are never scored'
  )
  allow_provisional: bool = option(
    False, group=_RUN, help='race towards targets that are not calibrated yet'
  )
  max_global_steps: int | None = option(
    None,
    group=_END,
    metavar='N',
    help='end a trial after N steps',
    unset='its budget ends it',
    also=('max_steps',),
  )
  stop_at: StopAt = option(
    'both', group=_END, help='end a trial at these targets', is_recorded=True
  )
  stop_on_divergence: bool | None = option(
    None,
    group=_END,
    help='end a trial whose training loss or evaluation is not finite',
    unset="the suite's rule",
    is_recorded=True,
  )
  heartbeat_timeout_sec: float | None = option(
    None,
    group=_END,
    metavar='SEC',
    help='end a trial that sends no message for SEC seconds',
    unset="the suite's, or the budget in seconds if longer",
    former=('hard_limit_sec',),
  )
  splits: tuple[Split, ...] = option(
    ALL_SPLITS, group=_END, metavar='A,B', help='evaluate these splits', is_recorded=True
  )
  full_eval_every: int = option(
    1,
    group=_END,
    metavar='N',
    help='run the full evaluation only every N-th time; in between, evaluate one validation batch '
    '(and run the full one if that batch reaches the target)',
    is_recorded=True,
  )
  evaluate: bool = True
  generate: bool = True
  eval_steps: tuple[int, ...] = ()
  data_dir: str | None = option(
    None,
    group=_KEEP,
    metavar='DIR',
    help='read prepared data sets from DIR',
    unset='$ALGOEFF_DATA_DIR, else ~/data',
    is_folder=True,
  )
  num_data_workers: int | None = option(
    None,
    group=_KEEP,
    metavar='N',
    rule='not negative',
    help='processes that make batches ahead',
    unset='0 for vectorized data, else one for each core but one, at most 12',
  )
  save_checkpoints: bool = option(
    True, group=_KEEP, help='save checkpoints, from which trials resume'
  )
  keep_params: KeepParams = option(
    'none',
    group=_KEEP,
    help='keep the parameters of the last evaluation, or of the best on validation, for '
    '`algoeff evaluate`',
  )
  trackers: tuple[str, ...] = option(
    (),
    group=_KEEP,
    flag='log',
    metavar='TRACKER',
    is_repeated=True,
    help='also log rows to tensorboard, wandb, mlflow or a module of yours (repeatable)',
  )

  def __post_init__(self) -> None:
    options.check(self)
    if 'validation' not in self.splits:
      raise errors.UserError('The targets are on validation; name it among --splits.')
    if (self.num_data_workers or 0) > _MAX_DATA_WORKERS:
      raise errors.UserError(
        f'--num_data_workers must be at most {_MAX_DATA_WORKERS}; it is '
        f'{errors.shown(self.num_data_workers)}.'
      )

  def recorded(self) -> dict[str, Any]:
    """The options that `trial.json` states, as JSON."""
    values = {one.field: getattr(self, one.field) for one in _recorded()}
    if self.eval_steps:
      values['eval_steps'] = self.eval_steps
    return {
      name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }


def data_dir(given: str | None) -> Path:
  """The folder of prepared data sets: as given, else ALGOEFF_DATA_DIR, else ~/data."""
  return Path(given or os.environ.get('ALGOEFF_DATA_DIR') or '~/data').expanduser().resolve()


def _recorded() -> list[options.Option]:
  return [one for one in options.declared(RunOptions) if one.is_recorded]


def are_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """True if two records state the same options; one that an older record lacks has its default."""
  defaults = RunOptions().recorded()
  return {**defaults, **one} == {**defaults, **other}


def with_options(record: Callable[..., Record], fields: Mapping[str, Any]) -> Record:
  """Makes a record from its own fields and those of its `options`, given side by side.

  Raises:
    UserError: the value of an option is wrong.
  """
  names = {field.name for field in dataclasses.fields(RunOptions)}
  own = {name: value for name, value in fields.items() if name not in names}
  chosen = {name: value for name, value in fields.items() if name in names}
  return record(**own, options=RunOptions(**chosen)) if chosen else record(**own)
