"""The settings of an optimizer, in a JSON file beside its submission module."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.training.options import StepOptions

FILE = 'optimizer.json'
SCHEDULES = ('constant', 'linear', 'warmup_cosine', 'wsd')
_MAX_LABEL = 120  # letters, before the hash of a longer one
_DEFAULT_WARMUP = 0.05  # for every schedule but 'constant'


@dataclass(frozen=True, kw_only=True)
class _Limits:
  """The range of an option: from 0 to `below`, exclusive; also None if it is optional."""

  below: float = float('inf')
  optional: bool = False


_LIMITS: Mapping[str, _Limits] = {
  'warmup': _Limits(below=1.0),
  'grad_clip': _Limits(optional=True),
  'label_smoothing': _Limits(below=1.0),
  'dropout_rate': _Limits(below=1.0, optional=True),
  'micro_batches': _Limits(),
}
OPTIONS = ('schedule', *_LIMITS)
"""The options of a run besides the hyperparameters of the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Settings:
  """The content of `optimizer.json`.

  Attributes:
    optimizer: import name of a class or function.
    hyperparameters: its arguments as JSON values, by name.
    options: a value for each of `OPTIONS`. `schedule` is the shape of the learning rate over the
      step hint; `warmup` is the fraction of the hint in which the rate rises from 0. The others are
      fields of `StepOptions`.
  """

  optimizer: str
  hyperparameters: Mapping[str, Any]
  options: Mapping[str, Any]

  @classmethod
  def of(
    cls, optimizer: str, hyperparameters: Mapping[str, Any], options: Mapping[str, Any]
  ) -> Settings:
    """Returns settings with defaults for missing options.

    Raises:
      UserError: an option does not exist, or its value is invalid.
    """
    for name, value in options.items():
      _check(name, value)
    schedule = options.get('schedule', 'constant')
    step = StepOptions(**{name: value for name, value in options.items() if name in _STEP})
    return cls(
      optimizer=optimizer,
      hyperparameters=dict(hyperparameters),
      options={
        'schedule': schedule,
        'warmup': options.get('warmup', 0.0 if schedule == 'constant' else _DEFAULT_WARMUP),
        **{name: getattr(step, name) for name in _STEP},
      },
    )

  @classmethod
  def read(cls, file: Path) -> Settings:
    """Reads a file that `to_json` wrote.

    Raises:
      UserError: the file cannot be read or is not valid.
    """
    try:
      content = json.loads(file.read_text(encoding='utf-8'))
      return cls.of(content['optimizer'], content['hyperparameters'], content['options'])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
      raise errors.UserError(
        'The settings of an optimizer must be JSON with optimizer, hyperparameters and options; '
        f'{file} cannot be read as that ({type(error).__name__}: {error}).'
      ) from None

  def to_json(self) -> str:
    content = {
      'optimizer': self.optimizer,
      'hyperparameters': self.hyperparameters,
      'options': self.options,
    }
    return json.dumps(content, indent=2) + '\n'

  def at(self, point: Any) -> Settings:
    """Returns the settings with the values of a hyperparameter point, which may include options.

    Args:
      point: a named tuple; None, as under self tuning, changes nothing.

    Raises:
      UserError: the value of an option is invalid.
    """
    values = {} if point is None else point._asdict()
    options = {name: value for name, value in values.items() if name in OPTIONS}
    others = {name: value for name, value in values.items() if name not in OPTIONS}
    return Settings.of(
      self.optimizer, {**self.hyperparameters, **others}, {**self.options, **options}
    )

  @property
  def label(self) -> str:
    """The optimizer and all that it was given, as a name of a submission.

    For example `torch.optim.AdamW-lr_0.001-schedule_wsd`. A long name ends in a hash.
    """
    usual = Settings.of(self.optimizer, {}, {'schedule': self.options['schedule']}).options
    usual = {**usual, 'schedule': SCHEDULES[0]}
    given = {name: value for name, value in self.options.items() if value != usual[name]}
    parts = [
      f'{name}_{json.dumps(value)}'
      for name, value in [*sorted(self.hyperparameters.items()), *given.items()]
    ]
    text = '-'.join([self.optimizer, *parts])
    plain = re.sub(r'[^\w.+-]+', '_', re.sub(r'["\[\]{}]', '', text), flags=re.ASCII)
    if len(plain) <= _MAX_LABEL:
      return plain
    return f'{plain[:_MAX_LABEL]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'

  @property
  def step(self) -> StepOptions:
    """The options for the gradient of a step."""
    return StepOptions(**{name: self.options[name] for name in _STEP})

  @property
  def is_scheduled(self) -> bool:
    """True if the learning rate changes over time."""
    return self.options['schedule'] != 'constant' or self.options['warmup'] > 0


_STEP = tuple(StepOptions.__dataclass_fields__)


def _check(name: str, value: Any) -> None:
  if name not in OPTIONS:
    raise errors.unknown('option', name, OPTIONS)
  if name == 'schedule':
    if value not in SCHEDULES:
      raise errors.unknown('schedule', str(value), SCHEDULES)
    return
  limits = _LIMITS[name]
  if value is None and limits.optional:
    return
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not is_number or not 0 <= value < limits.below:
    limit = '' if limits.below == float('inf') else f' and below {limits.below:g}'
    raise errors.UserError(f'{name} must be a number of at least 0{limit}; it is {value!r}.')
