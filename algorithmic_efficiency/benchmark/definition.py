"""The definition of a workload as data: frozen records, standard library only.

A variant is a value: `variant(base, name=..., model=replace(base.model, ...))`. The `definition.py`
of a task holds every figure of its budgets, targets and sizes; no other file repeats one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from algorithmic_efficiency.spec import LossType

Split = Literal['eval_train', 'validation', 'test']
_NAME = re.compile(r'[\w-]+', re.ASCII)
Role = Literal['base', 'held_out', 'extra']

NUM_EVALS_PER_BUDGET = 40  # on the step axis, evaluations are spread evenly over the budget
SMOKE_BATCH_SIZE = 8
# The names by which renamed fields enter the hash of a definition: results are matched to workloads
# by that hash, so it outlives the names.
_HASHED_AS = {'target': 'goal', 'bundled': 'embedded'}
# Fields that describe a definition and change no result.
_NOT_HASHED = ('summary', 'target_source', 'smoke', 'probes', 'independent_examples')
# Fields that were added later: they enter the hash of definitions that use them.
_HASHED_IF_USED = ('frozen_params', 'task_names', 'generation', 'aux_dropout_rates')
# Metadata of a field of a model or data record that was added later, likewise: it enters the hash
# where it differs from its default.
ADDED_LATER = {'is_hashed': 'if changed'}

# The least and the largest value that a metric can have; values outside are mistakes of a file.
METRIC_RANGES: Mapping[str, tuple[float, float]] = {
  'accuracy': (0.0, 1.0),
  'bits_per_byte': (0.0, math.inf),
  'bleu': (0.0, 100.0),
  'bleu_raw': (0.0, 100.0),
  'chrf': (0.0, 100.0),
  'ctc_loss': (0.0, math.inf),
  'exact_match': (0.0, 1.0),
  'loss': (0.0, math.inf),
  'loss_of_modality': (0.0, math.inf),
  'mean_average_precision': (0.0, 1.0),
  'ppl': (1.0, math.inf),
  'ssim': (-1.0, 1.0),
  'wer': (0.0, math.inf),
}
_ROUNDING = 1e-6  # by how much a sum in float32 may leave the range


@dataclass(frozen=True, kw_only=True)
class Target:
  """The metric value that training has to reach.

  A value equal to the target reaches it. The trial loop and scoring use the same comparison. A
  value that is not finite, or that the metric cannot have, reaches no target.

  Attributes:
    metric: name of the metric, as in `WorkloadDefinition.metrics`.
    direction: 'max' if higher is better, 'min' if lower is better.
    validation: target on the validation split, in the metric's unit.
    test: target on the test split; None counts as reached.
    provisional: True until the target is calibrated; provisional targets are never scored.
  """

  metric: str
  direction: Literal['max', 'min']
  validation: float
  test: float | None = None
  provisional: bool = False

  def reached(self, split: Literal['validation', 'test'], value: float | None) -> bool:
    """Returns True if `value` on `split` is at least as good as the target, or if there is none."""
    target_value = self.validation if split == 'validation' else self.test
    if target_value is None:
      return True
    return value is not None and bool(self._reach(value, target_value))

  def reached_on_validation(self, values: Any) -> Any:
    """The same rule for an array of validation values: bool, of their shape."""
    return self._reach(values, self.validation)

  def is_possible(self, values: Any) -> Any:
    """Whether the metric can have these values: bool, of their shape; NaN and infinities cannot."""
    low, high = METRIC_RANGES.get(self.metric, (-math.inf, math.inf))
    return (
      (values >= low - _ROUNDING)
      & (values <= high + _ROUNDING * max(1.0, high))
      & (abs(values) < math.inf)
    )

  def _reach(self, values: Any, target_value: float) -> Any:
    better = values >= target_value if self.direction == 'max' else values <= target_value
    return better & self.is_possible(values)


@dataclass(frozen=True, kw_only=True)
class Budget:
  """The limits of a trial of a workload in one suite.

  Attributes:
    step_hint: number of steps that schedules span; not enforced.
    max_sec: submission time in seconds; required on the axis of seconds.
    eval_period_sec: seconds between evaluations; required on the axis of seconds.
    max_steps: number of steps; required on the axis of cost-adjusted steps.
    eval_period_steps: steps between evaluations; by default a fortieth of `max_steps`.
    role: 'base' if the workload is scored, 'held_out' if it is a held-out workload, 'extra' if it
      runs under the suite's rules without a score.

  Raises:
    ValueError: a limit is not positive.
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


def _check_counts(kind: str, counts: Mapping[str, Any]) -> None:
  """
  Raises:
    ValueError: one is no positive whole number.
  """
  for name, count in counts.items():
    if not isinstance(count, int) or count < 1:
      raise ValueError(f'{kind} must be a positive whole number; {name} is {count!r}.')


def _check_names(kind: str, names: Any) -> None:
  """
  Raises:
    ValueError: they are no tuple of names, each once.
  """
  if not isinstance(names, tuple) or not all(isinstance(name, str) and name for name in names):
    raise ValueError(f'{kind} must be a tuple of names; it is {names!r}.')
  if len(set(names)) < len(names):
    raise ValueError(f'{kind} must name each once; it is {names!r}.')


@dataclass(frozen=True, kw_only=True)
class Splits:
  """Number of examples of each split; `eval_train` is the evaluated subset of `train`.

  Raises:
    ValueError: a number is not positive, or the subset is larger than the split.
  """

  train: int
  eval_train: int
  validation: int
  test: int | None

  def __post_init__(self) -> None:
    found = dataclasses.asdict(self)
    if self.test is None:
      del found['test']
    _check_counts('The examples of a split', found)
    if self.eval_train > self.train:
      raise ValueError(
        f'eval_train is a part of train, of {self.train} examples; it has {self.eval_train}.'
      )

  def num_examples(self, split: Split) -> int | None:
    """Returns the number of examples of `split`; None if there is no test split."""
    return {'eval_train': self.eval_train, 'validation': self.validation, 'test': self.test}[split]


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
  """Global batch sizes, in examples.

  Raises:
    ValueError: one is not positive.
  """

  train: int
  eval: int

  def __post_init__(self) -> None:
    _check_counts('A batch size', dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class Smoke:
  """The sizes of `--smoke`: the same code on generated data, in seconds on a CPU."""

  model: Any
  splits: Splits = field(
    default_factory=lambda: Splits(train=64, eval_train=16, validation=20, test=12)
  )
  data: Any = None  # None: the data record of the definition itself


@dataclass(frozen=True, kw_only=True)
class Generation:
  """Metrics that need generated outputs, such as translations, and when they are computed.

  The first evaluation of a trial, its last one, and one that reaches the target always generate.

  Attributes:
    metrics: names among the metrics of the definition.
    every: number of full evaluations from one that generates to the next; None for none between
      the first and the last.
    splits: splits for which outputs are generated.
    max_examples: largest number of examples of a split, from its start; None for all.

  Raises:
    ValueError: a number is not positive, no metric or split is named, or there is no such split.
  """

  metrics: tuple[str, ...]
  every: int | None = 1
  splits: tuple[Split, ...] = ('validation', 'test')
  max_examples: int | None = None

  def __post_init__(self) -> None:
    for field_name in ('metrics', 'splits'):
      _check_names(f'{field_name} of Generation', getattr(self, field_name))
    for split in self.splits:
      if split not in get_args(Split):
        raise ValueError(
          f'A split of Generation must be one of {", ".join(get_args(Split))}; one is {split!r}.'
        )
    if not self.metrics or not self.splits:
      raise ValueError('Generation must name at least one metric and one split.')
    for name in ('every', 'max_examples'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name} must be at least 1; it is {value}.')


@dataclass(frozen=True, kw_only=True)
class Probe:
  """A split that is no target; `algoeff evaluate` runs it on saved parameters.

  Attributes:
    num_examples: examples of the split.
    metrics: names of its metrics.
    summary: one line for `algoeff list`.

  Raises:
    ValueError: there are no examples or no metrics.
  """

  num_examples: int
  metrics: tuple[str, ...]
  summary: str = ''

  def __post_init__(self) -> None:
    _check_counts('The examples of a probe', {'num_examples': self.num_examples})
    _check_names('metrics of a probe', self.metrics)
    if not self.metrics:
      raise ValueError('A probe must have a metric at least.')


@dataclass(frozen=True, kw_only=True)
class WorkloadDefinition:
  """One workload or variant.

  Attributes:
    name: unique name of the workload.
    task: name of its folder under `workloads/`.
    base: name of its base workload; a base workload's own name by default.
    summary: one line for `algoeff list`.
    dataset: folder that `algoeff data prepare` fills.
    bundled: True if the data needs no preparation.
    tfds: TensorFlow Datasets builder of the same data, if there is one; or several, by the name
      under which `prepare` asks for them.
    model: frozen record of the task, with the sizes of the model. The record of a model of which a
      token uses a part has `num_parameters(data)`, whose result has `total` and `active`.
    data: frozen record of the task, with the settings of its data.
    loss_type: loss of the workload.
    metrics: names of the metrics of an evaluation.
    target: metric value that training has to reach.
    suites: budget in each suite, by the suite's name.
    splits: number of examples of each split.
    batch_sizes: global batch sizes, in examples.
    smoke: sizes of `--smoke`; None if the workload has no code yet.
    output_params: keys for which `is_output_params` is true, by framework ('jax', 'pytorch').
    dropout_rate: rate that `model_fn` uses unless the submission gives one.
    aux_dropout_rates: second dropout rate of a model that has one, by the suite's name; 0 in the
      other suites.
    accelerator_dtype: compute type on GPUs and TPUs. CPUs compute in float32, and so do GPUs that
      have no bfloat16.
    train_mean: mean that inputs are normalized by: a number, or one for each channel.
    train_stddev: standard deviation that inputs are normalized by, likewise.
    target_source: origin of the target, with the command that reproduces it.
    independent_examples: False if the training loss of an example depends on other examples of its
      batch, as with batch norm or a loss that balances load. Such a batch cannot be split.
    frozen_params: parameters that are not trained, by framework; a name, or that of a module.
    task_names: names of the values of `task` in a batch, for a workload of several tasks.
    generation: metrics that need generated outputs; None if no metric does.
    probes: splits that are no target, by name.

  Raises:
    ValueError: a named metric is not among the metrics, or a generated target is not generated in
      each evaluation. A probe has the name of a split, or names are no tuple.
  """

  name: str
  task: str
  base: str = ''
  summary: str
  dataset: str
  bundled: bool = False
  tfds: str | Mapping[str, str] | None = None
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
  aux_dropout_rates: Mapping[str, float] = field(default_factory=dict)
  accelerator_dtype: Literal['float32', 'bfloat16'] = 'float32'
  train_mean: float | tuple[float, ...] | None = None
  train_stddev: float | tuple[float, ...] | None = None
  target_source: str = ''
  independent_examples: bool = True
  frozen_params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
  task_names: tuple[str, ...] = ()
  generation: Generation | None = None
  probes: Mapping[str, Probe] = field(default_factory=dict)

  def __post_init__(self) -> None:
    if not self.base:
      object.__setattr__(self, 'base', self.name)
    self._check_names()
    if self.target.metric not in self.metrics:
      raise ValueError(
        f'{self.name}: the metric of the target must be one of {", ".join(self.metrics)}; it is '
        f'{self.target.metric!r}.'
      )
    if self.generation is not None:
      self._check_generation(self.generation)
    for name in self.probes:
      if name in ('train', *get_args(Split)):
        raise ValueError(f'{self.name}: a probe must not have the name of a split; one is {name}.')
      if not _NAME.fullmatch(name):
        raise ValueError(
          f'{self.name}: the name of a probe must be of letters, digits, _ and -; one is {name!r}.'
        )

  def _check_names(self) -> None:
    if not _NAME.fullmatch(self.name):
      raise ValueError(
        f'The name of a workload must be of letters, digits, _ and -; one is {self.name!r}.'
      )
    for name in ('metrics', 'task_names'):
      _check_names(f'{self.name}: {name}', getattr(self, name))
    if 'num_examples' in self.metrics:
      raise ValueError(f'{self.name}: num_examples is in every row; no metric may have that name.')
    for name in ('frozen_params', 'output_params'):
      by_framework = getattr(self, name)
      if not isinstance(by_framework, Mapping) or not by_framework.keys() <= {'jax', 'pytorch'}:
        raise ValueError(
          f"{self.name}: {name} must be names by framework, 'jax' and 'pytorch'; it is "
          f'{by_framework!r}.'
        )
      for framework, names in by_framework.items():
        _check_names(f'{self.name}: {name} of {framework}', names)

  def _check_generation(self, generation: Generation) -> None:
    for name in generation.metrics:
      if name not in self.metrics:
        raise ValueError(
          f'{self.name}: a generated metric must be one of {", ".join(self.metrics)}; one is '
          f'{name!r}.'
        )
    splits = {'validation'} if self.target.test is None else {'validation', 'test'}
    if self.target.metric in generation.metrics and not (
      generation.every == 1 and splits <= set(generation.splits)
    ):
      raise ValueError(
        f'{self.name}: a target on {self.target.metric} needs every=1 and its splits in '
        'Generation, so that each evaluation generates.'
      )

  @property
  def is_variant(self) -> bool:
    return self.base != self.name

  def for_smoke(self) -> WorkloadDefinition:
    """Returns the workload at the sizes of its smoke record, with batches of 8.

    Raises:
      ValueError: the workload has no smoke record.
    """
    if self.smoke is None:
      raise ValueError(f'{self.name} has no smoke record: it cannot run with --smoke yet.')
    return dataclasses.replace(
      self,
      model=self.smoke.model,
      data=self.data if self.smoke.data is None else self.smoke.data,
      splits=self.smoke.splits,
      batch_sizes=BatchSizes(train=SMOKE_BATCH_SIZE, eval=SMOKE_BATCH_SIZE),
    )

  @property
  def aux_dropout_rate(self) -> float:
    """The second dropout rate within a suite; 0 of a definition that has several suites."""
    rates = [self.aux_dropout_rates.get(suite, 0.0) for suite in self.suites]
    return rates[0] if len(rates) == 1 else 0.0

  def content_hash(self) -> str:
    """Returns a hash of all fields that affect results, as 16 hexadecimal digits.

    Summary, origin of the target, smoke sizes and probes are left out. Results carry the hash of
    the definition within their suite, `registry.workload(name, suite)`, without other budgets.
    """
    fields = dataclasses.asdict(self)
    for name in _NOT_HASHED:
      del fields[name]
    for name in _HASHED_IF_USED:
      if not fields[name]:
        del fields[name]
    for name, hashed_as in _HASHED_AS.items():
      fields[hashed_as] = fields.pop(name)
    for name in ('model', 'data'):
      for unchanged in _added_and_unchanged(getattr(self, name)):
        del fields[name][unchanged]
    text = json.dumps(fields, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _added_and_unchanged(record: Any) -> list[str]:
  """Returns the fields of a record that were added later and have their default."""
  known = dataclasses.fields(record) if dataclasses.is_dataclass(record) else ()
  return [
    one.name
    for one in known
    if one.metadata == ADDED_LATER and getattr(record, one.name) == one.default
  ]


def variant(
  base: WorkloadDefinition, *, name: str, held_out_in: tuple[str, ...] = (), **changes: Any
) -> WorkloadDefinition:
  """Returns a definition that differs from `base` in `changes`.

  The variant inherits the budgets of its base. It is a held-out workload in the suites of
  `held_out_in`, and is not scored in the others. Pass `suites=` to give it budgets of its own.
  """
  if 'suites' not in changes:
    changes['suites'] = {
      suite: dataclasses.replace(budget, role='held_out' if suite in held_out_in else 'extra')
      for suite, budget in base.suites.items()
    }
  return dataclasses.replace(base, name=name, base=base.name, **changes)


def variant_target(
  base: WorkloadDefinition, name: str, values: tuple[float, float | None] | None
) -> dict[str, Any]:
  """Returns the changes of a variant's target: its own, or that of `base` until it has one.

  Args:
    name: that of the variant, whose source is named like that of `base`.
    values: on validation and test; None for a variant whose target is not set, or not accepted.
  """
  if values is None:
    return {
      'target': dataclasses.replace(base.target, provisional=True),
      'target_source': f'that of {base.name}, not calibrated for this variant',
    }
  validation, test = values
  return {
    'target': dataclasses.replace(base.target, validation=validation, test=test),
    'target_source': base.target_source.replace(base.name, name),
  }
