"""What a workload is, as data: frozen records, standard library only.

A variant is a value: `variant(base, name=..., model=replace(base.model, ...))`. Every figure that a
budget, a target or a size has stands in a `definition.py` of a task and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from algorithmic_efficiency.spec import LossType

Split = Literal['eval_train', 'validation', 'test']
Role = Literal['base', 'held_out', 'extra']

NUM_EVALS_PER_BUDGET = 40  # on the step axis, evaluations are spread evenly over the budget
SMOKE_BATCH_SIZE = 8
# The names by which renamed fields enter the hash of a definition: results are matched to workloads
# by that hash, so it outlives the names.
_HASHED_AS = {'target': 'goal', 'bundled': 'embedded'}


@dataclass(frozen=True, kw_only=True)
class Target:
  """The metric value at which a run counts as trained.

  The comparison includes the target itself, in the runner as in scoring, so that a run that stops
  is a run that scores. A value that is not finite reaches nothing.
  """

  metric: str
  direction: Literal['max', 'min']
  validation: float
  test: float | None = None  # None: there is no test target, which counts as reached
  provisional: bool = False  # not calibrated yet; such a target is never scored

  def reached(self, split: Literal['validation', 'test'], value: float | None) -> bool:
    target_value = self.validation if split == 'validation' else self.test
    if target_value is None:
      return True
    if value is None or not math.isfinite(value):
      return False
    return value >= target_value if self.direction == 'max' else value <= target_value


@dataclass(frozen=True, kw_only=True)
class Budget:
  """What a trial of a workload may spend in one suite.

  A suite that races in seconds needs `max_sec` and `eval_period_sec`, one that races in steps needs
  `max_steps`; `step_hint` is what schedules are stretched over, and is not enforced. `role` says
  whether the workload is scored in that suite ('base'), is one of its held-out workloads
  ('held_out'), or merely runs under its rules ('extra').
  """

  step_hint: int
  max_sec: float | None = None
  eval_period_sec: float | None = None
  max_steps: int | None = None
  eval_period_steps: int | None = None
  role: Role = 'base'

  def __post_init__(self) -> None:
    for name in ('step_hint', 'max_sec', 'eval_period_sec', 'max_steps', 'eval_period_steps'):
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise ValueError(f'A budget must be positive: {name} is {value}.')
    if self.max_steps is not None and self.eval_period_steps is None:
      period = max(1, round(self.max_steps / NUM_EVALS_PER_BUDGET))
      object.__setattr__(self, 'eval_period_steps', period)


@dataclass(frozen=True, kw_only=True)
class Splits:
  """Number of examples of each split; `eval_train` is the part of train that is evaluated."""

  train: int
  eval_train: int
  validation: int
  test: int | None

  def num_examples(self, split: Split) -> int | None:
    return {'eval_train': self.eval_train, 'validation': self.validation, 'test': self.test}[split]


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
  """Global batch sizes, in examples."""

  train: int
  eval: int


@dataclass(frozen=True, kw_only=True)
class Smoke:
  """The sizes of `--smoke`: the same code on generated data, small enough for seconds on a CPU."""

  model: Any
  splits: Splits = field(
    default_factory=lambda: Splits(train=64, eval_train=16, validation=20, test=12)
  )
  data: Any = None  # None: the data record of the definition itself


@dataclass(frozen=True, kw_only=True)
class WorkloadDefinition:
  """One workload or variant.

  model and data are frozen records of the task's own. `output_params` names, for each framework
  ('jax', 'pytorch'), the parameter keys that `is_output_params` is true for. `dropout_rate` is
  what `model_fn` uses when the submission does not say. `accelerator_dtype` is what the model
  computes in on GPUs and TPUs; on a CPU it is float32. `dataset` is the folder that `prepare`
  fills, and `bundled` says that nothing needs to be prepared. `tfds` is the TensorFlow Datasets
  builder that holds the same data, if there is one.
  """

  name: str
  task: str
  base: str = ''  # the base workload's name; empty for a base workload itself
  summary: str
  dataset: str
  bundled: bool = False
  tfds: str | None = None
  model: Any
  data: Any
  loss_type: LossType
  metrics: tuple[str, ...]
  target: Target
  suites: Mapping[str, Budget]
  splits: Splits
  batch_sizes: BatchSizes
  smoke: Smoke | None
  output_params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
  dropout_rate: float = 0.0
  accelerator_dtype: Literal['float32', 'bfloat16'] = 'float32'
  train_mean: tuple[float, ...] | None = None
  train_stddev: tuple[float, ...] | None = None
  target_source: str = ''  # where the target's figures come from, and how to get them again

  def __post_init__(self) -> None:
    if not self.base:
      object.__setattr__(self, 'base', self.name)
    if self.target.metric not in self.metrics:
      raise ValueError(
        f'{self.name}: the target is on {self.target.metric!r}, which is not among the metrics '
        f'{", ".join(self.metrics)}.'
      )

  @property
  def is_variant(self) -> bool:
    return self.base != self.name

  def for_smoke(self) -> WorkloadDefinition:
    """The same workload at the sizes of its smoke record, batch 8."""
    if self.smoke is None:
      raise ValueError(f'{self.name} has no smoke record: it cannot run with --smoke yet.')
    return dataclasses.replace(
      self,
      model=self.smoke.model,
      data=self.data if self.smoke.data is None else self.smoke.data,
      splits=self.smoke.splits,
      batch_sizes=BatchSizes(train=SMOKE_BATCH_SIZE, eval=SMOKE_BATCH_SIZE),
    )

  def content_hash(self) -> str:
    """A hash of everything that gives a result its meaning: 16 hexadecimal digits.

    That of a result is the hash of the definition as its suite races it (`registry.workload` with
    the suite), so that the budgets of other suites do not enter.
    """
    fields = dataclasses.asdict(self)
    for name in ('summary', 'target_source', 'smoke'):
      del fields[name]
    for name, hashed_as in _HASHED_AS.items():
      fields[hashed_as] = fields.pop(name)
    text = json.dumps(fields, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def variant(
  base: WorkloadDefinition, *, name: str, held_out_in: tuple[str, ...] = (), **changes: Any
) -> WorkloadDefinition:
  """A definition that differs from `base` in `changes`.

  It inherits the budgets of its base, and is scored in no suite but, as a held-out workload, in
  those named by `held_out_in`; pass `suites=` to make it a workload of a suite in its own right.
  """
  if 'suites' not in changes:
    changes['suites'] = {
      suite: dataclasses.replace(budget, role='held_out' if suite in held_out_in else 'extra')
      for suite, budget in base.suites.items()
    }
  return dataclasses.replace(base, name=name, base=base.name, **changes)
