"""What the runner asks of a framework, and the half of a `Workload` that needs none.

A backend is started once per process on the devices it is given, and never looks at flags or
environment variables by itself. Batches come to it as numpy and leave it on the devices.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeVar

from algorithmic_efficiency import errors, spec, trust
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.metrics.metric import MetricError, check_rows
from algorithmic_efficiency.option_fields import check, option

if TYPE_CHECKING:
  import numpy as np

Batch = dict[str, Any]  # numpy arrays, or tuples of them; placed: the framework's arrays


@dataclass(frozen=True, kw_only=True)
class Devices:
  """The devices of one trial, decided before the framework is imported.

  Attributes:
    platform: 'auto' takes the accelerator if there is one.
    num_devices: devices of the whole trial; None takes all there are. On a CPU, JAX simulates them
      in one process, PyTorch runs one process (rank) for each.
    num_threads: host threads that this process may use for computation; None leaves the
      framework's own choice.
    rank, world_size: this process among the processes of the trial.
    address: host:port at which the processes meet; unused with one.
    store: host:port of a PyTorch store that a launcher keeps for all its trials; without one, rank
      0 keeps it at the address.
    local_rank: rank among the processes on this host.
    compile: 'auto' compiles where it pays (JAX always; PyTorch on CUDA only).
    compilation_cache: folder of the persistent compilation cache; None leaves JAX's own setting.

  Raises:
    UserError: the value of an option is wrong.
  """

  platform: Literal['auto', 'cpu', 'gpu', 'tpu'] = option(
    'auto', group='devices', help='run on this kind of device'
  )
  num_devices: int | None = option(
    None,
    group='devices',
    metavar='N',
    help='devices of one trial',
    unset='all (JAX), all GPUs or one (PyTorch)',
  )
  num_threads: int | None = option(
    None, group='devices', metavar='N', help='host threads of one process', unset='all of its cores'
  )
  rank: int = 0
  world_size: int = 1
  address: str = ''
  store: str = ''
  local_rank: int = 0
  compile: Literal['auto', 'on', 'off'] = option(
    'auto', group='devices', help='compile the model; auto: always in JAX, on GPUs in PyTorch'
  )
  compilation_cache: str | None = None

  def __post_init__(self) -> None:
    check(self)

  @property
  def num_local_devices(self) -> int | None:
    """Devices of this process, over which those of the trial divide evenly; None takes all."""
    return None if self.num_devices is None else self.num_devices // self.world_size


@dataclass(frozen=True, kw_only=True)
class TaskCode:
  """The modules of a task for one framework; `metrics` is None for a task without that file."""

  data: ModuleType
  model: ModuleType
  metrics: ModuleType | None = None

  @classmethod
  def of(cls, definition: WorkloadDefinition, framework: str) -> TaskCode:
    """Imports the code of a definition.

    Raises:
      UserError: no file has it, or it cannot be used as it is.
    """
    return cls(
      data=registry.module_of(definition, 'data'),
      model=registry.module_of(definition, framework),
      metrics=registry.metrics_of(definition),
    )


@dataclass(frozen=True, kw_only=True)
class Generating:
  """What an evaluation generates.

  Attributes:
    num_batches: the first so many batches; None for all.
    is_last: whether no evaluation of the trial follows, so that a costlier search may be used.
  """

  num_batches: int | None = None
  is_last: bool = False

  def covers(self, batch: int) -> bool:
    """Returns True if outputs are generated for batch number `batch`, from 0."""
    return self.num_batches is None or batch < self.num_batches


Model = TypeVar('Model')
OnOutputs = Callable[[Batch, 'Mapping[str, np.ndarray]'], None]
"""Called for each batch, in order: with the batch as it came, and a row of outputs for each row."""


def build(definition: WorkloadDefinition, task: TaskCode, dtype: Any, kind: type[Model]) -> Model:
  """The model of the task.

  Args:
    dtype: type of the computation; None leaves that of the task.
    kind: the class of all models of the framework.

  Raises:
    UserError: it is no such model.
  """
  options = {} if dtype is None else {'dtype': dtype}
  model = task.model.build(definition, **options)
  if not isinstance(model, kind):
    raise errors.UserError(
      f'{definition.name} (task {definition.task}): build must return a {kind.__module__}.'
      f'{kind.__name__}; it returned {errors.shown(model)}.'
    )
  return model


def eval_step(
  task: TaskCode, definition: WorkloadDefinition, batch: Batch, logits: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Sums of every metric over the rows of a batch, and outputs [rows, ...], as the task gives them.

  Raises:
    MetricError: they are no two dicts, or an output has no row for each example.
  """
  found = task.model.eval_step(definition, batch, logits)
  parts = found if isinstance(found, tuple) else (found,)
  if len(parts) != 2 or not all(isinstance(part, Mapping) for part in parts):
    kinds = ', '.join(type(part).__name__ for part in parts)
    raise MetricError(f'eval_step must return two dicts, sums and outputs; it returned {kinds}.')
  sums, outputs = parts
  check_rows(outputs, len(batch['weights']))
  return dict(sums), dict(outputs)


def generator(task: TaskCode) -> Callable[..., Any]:
  """The `generate` of the task's model file.

  Raises:
    MetricError: there is none.
  """
  if not hasattr(task.model, 'generate'):
    raise MetricError(
      'The definition has generated metrics, so the model file must have '
      'generate(definition, model, batch, *, is_last); it has none.'
    )
  return task.model.generate


def joined(outputs: Mapping[str, Any], generated: Mapping[str, Any]) -> dict[str, Any]:
  """The outputs of `eval_step` and those of `generate` for the same rows.

  Raises:
    MetricError: both give one of the same name, so that a metric would read either.
  """
  both = sorted(outputs.keys() & generated.keys())
  if both:
    raise MetricError(
      f'eval_step and generate must give outputs of different names; both give {", ".join(both)}.'
    )
  return {**outputs, **generated}


class Ranks(Protocol):
  """The processes of a trial, as one of them sees them.

  Attributes:
    rank, world_size: this process among the processes of the trial.
  """

  rank: int
  world_size: int

  def sync_max(self, value: float) -> float:
    """The largest value over all processes; with one process the value itself."""
    ...

  def barrier(self) -> None:
    """Waits until every process has called this."""
    ...

  def gather(self, content: bytes) -> list[bytes]:
    """What every process has passed, in the order of their ranks; each process gets all of it."""
    ...


class Placement(Ranks, Protocol):
  """Puts data onto devices, and waits for them.

  Attributes:
    name: 'jax' or 'pytorch', as in flags and folder names.
    num_devices: devices of the whole trial; global batches are divisible by it.
  """

  name: str
  num_devices: int

  def key(self, key_data: np.ndarray) -> Any:
    """A random key as submissions of this framework expect it; `key_data` is uint32 [2]."""
    ...

  def place(self, batch: Batch) -> Batch:
    """Puts this process's rows of a global batch onto its devices, without waiting.

    Arrays keep their types, but in PyTorch int32 becomes int64.
    """
    ...

  def synchronize(self, outputs: Any = None) -> None:
    """Waits for the work in flight: for that of `outputs`, or, if None, for all of it."""
    ...

  def seed(self, value: int) -> None:
    """Sets the framework's own global random state, where it has one."""
    ...

  def stop(self) -> None:
    """Leaves the process group, if there is one."""
    ...


class Evaluation(Ranks, Protocol):
  """Makes workloads, and evaluates with them."""

  def workload(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
    running_average_bn: bool = False,
  ) -> DefinedWorkload:
    """The workload as a submission sees it, on this backend's devices.

    Args:
      running_average_bn: the rule of the suite; see `Suite`.
    """
    ...

  def eval_sums(
    self,
    workload: DefinedWorkload,
    params: Any,
    model_state: Any,
    batches: Iterable[Batch],
    key_data: np.ndarray,
    *,
    on_outputs: OnOutputs | None = None,
    generating: Generating | None = None,
  ) -> dict[str, Any]:
    """The sums that `eval_step` gives, over all batches and all processes, in float64.

    Args:
      batches: this process's rows. `weights` is 1 for an example that counts and 0 for padding.
      key_data: uint32 [2].
      on_outputs: is given the outputs of this process's rows, those of `generate` among them; None
        leaves outputs on the devices.
      generating: the batches for which `generate` is called; None for none.

    Returns:
      The sums of each metric as trees of floats and float64 arrays; `num_examples` is among them,
      with weight 1.

    Raises:
      MetricError: the first axis of an output is not that of the batch, or the task must generate
        and has no `generate`.
    """
    ...


class StateCopies(Protocol):
  """Copies opaque state to plain values and back."""

  def evaluated(self, params: Any, model_state: Any) -> tuple[Any, Any]:
    """Parameters and model state as evaluation takes them: without the copies on each device."""
    ...

  def pack(self, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Copies named trees of any state to plain containers, scalars, strings and numpy arrays.

    Raises:
      TypeError: something in them cannot be kept; the message names its path.
    """
    ...

  def overlay(
    self, fresh: Mapping[str, Any], packed: Mapping[str, Any], *, fixed: Collection[str] = ()
  ) -> dict[str, Any]:
    """The named trees of `fresh` with the values of `packed`.

    Arrays and scalars are taken by value and placed as in `fresh`. Objects with `load_state_dict`
    are restored through it. Callables are kept. Tensors that shared memory do so again. Where state
    was saved, it may have trees where `fresh` has None, further items in dicts and lists, and None
    anywhere.

    Args:
      fixed: names of the trees whose structure must be the same.

    Raises:
      ValueError: any other path in one has no match in the other; the message names it.
    """
    ...


class Diagnostics(Protocol):
  """Looks at parameters, memory and devices."""

  def change_marker(self, params: Any) -> Any:
    """A value that compares unequal once a parameter has been changed in place."""
    ...

  def params_hash(self, params: Any) -> bytes:
    """A hash of the values of all parameters."""
    ...

  def all_finite(self, params: Any) -> bool:
    """Whether every parameter is finite."""
    ...

  def scalars(self, values: Mapping[str, Any]) -> dict[str, float]:
    """Fetches numbers that a submission logs, all at once.

    Raises:
      TypeError, ValueError: a value is no number.
    """
    ...

  def peak_memory_bytes(self) -> dict[str, int]:
    """High-water marks: 'host' always, 'device' (largest of the devices) where it is known."""
    ...

  def live_arrays(self) -> tuple[int, int]:
    """Number and bytes of the arrays that something in this process still holds."""
    ...

  def describe(self) -> dict[str, Any]:
    """Framework version, platform, device kind and number, threads: for the environment record."""
    ...


class Machine(Placement, Diagnostics, Protocol):
  """What a timed loop needs: devices to wait for, and parameters to check."""


class Backend(Evaluation, StateCopies, Machine, Protocol):
  """One framework, started on its devices."""

  def for_submission(self, uses: frozenset[str]) -> Backend:
    """This backend as a submission expects it that uses these names of the framework.

    Raises:
      UserError: it cannot run on these devices.
    """
    ...


class HarnessOnlyError(RuntimeError):
  """A submission called what only the harness may call."""


def _refuse(message: str) -> NoReturn:
  raise HarnessOnlyError(message)


class DefinedWorkload(spec.Workload):
  """A definition, its code and its budget, presented as AlgoPerf's `Workload`.

  Hashable by identity, because submissions pass it as a static argument. The subclasses in
  `backends/jax.py` and `backends/torch.py` add the model.

  Statistics that a model or a loss takes over a batch are those of the global batch in both
  frameworks. Only in JAX's layout with a device axis are they those of the part on each device, as
  in AlgoPerf. A loss that has such statistics has `independent_examples=False` in its definition,
  and no submission splits its batches.
  """

  def __init__(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
  ):
    self._definition = definition
    self._task = task
    self._budget = budget
    self._eval_batch_size = eval_batch_size or definition.batch_sizes.eval
    self._aux_dropout_rate = definition.aux_dropout_rate
    self._param_shapes: Any = None
    self._param_types: Any = None
    self._param_roles: Any = None
    self._matrix_views: Any = None
    self._initial_frozen: bytes | None = None
    self._eval_iters: dict[str, Any] = {}  # AlgoPerf's cache of evaluation data, empty here

  def copy_metadata(self, other: DefinedWorkload) -> None:
    """Takes over what `init_model_fn` of another object for the same definition found out."""
    self._param_shapes = other._param_shapes
    self._param_types = other._param_types
    self._param_roles = other._param_roles
    self._matrix_views = other._matrix_views

  @property
  def definition(self) -> WorkloadDefinition:
    return self._definition

  @property
  def independent_examples(self) -> bool:
    return self._definition.independent_examples

  @property
  def num_tasks(self) -> int:
    """Number of tasks among which the examples of a batch are divided.

    Raises:
      ValueError: the definition names none.
    """
    if not self._definition.task_names:
      raise ValueError(
        f'Losses by task need a definition with task_names; {self._definition.name} has none.'
      )
    return len(self._definition.task_names)

  def remember_frozen(self, params: Any, model_state: Any) -> None:
    """Takes the present values of the frozen parameters for their initial ones."""
    if self._has_frozen:
      self._initial_frozen = self._hash_frozen(params, model_state)

  def check_frozen(self, params: Any, model_state: Any) -> None:
    """Compares the frozen parameters with their initial values; free without any.

    Raises:
      IntegrityError: a bit of them has changed, or one is missing.
    """
    if self._has_frozen and self._hash_frozen(params, model_state) != self._initial_frozen:
      raise trust.IntegrityError(
        f'Frozen parameters must keep their initial values; those of {self._definition.name} have '
        'changed. Return the model state as model_fn returns it, and change no buffer.',
        'frozen_params',
      )

  def _aux_dropout(self, *, train: bool) -> dict[str, float]:
    """The second dropout rate as an argument of `forward`, for a model that has one."""
    if not self._takes_aux_dropout:
      return {}
    return {'aux_dropout_rate': self._aux_dropout_rate if train else 0.0}

  @functools.cached_property
  def _takes_aux_dropout(self) -> bool:
    return 'aux_dropout_rate' in inspect.signature(self._task.model.forward).parameters

  @property
  def _has_frozen(self) -> bool:
    return bool(self._definition.frozen_params.get(self.framework))

  def _hash_frozen(self, params: Any, model_state: Any) -> bytes:
    raise NotImplementedError

  @property
  def target_metric_name(self) -> str:
    return self._definition.target.metric

  @property
  def validation_target_value(self) -> float:
    return self._definition.target.validation

  @property
  def test_target_value(self) -> float | None:
    return self._definition.target.test

  @property
  def loss_type(self) -> spec.LossType:
    return self._definition.loss_type

  def has_reached_validation_target(self, eval_result: Mapping[str, float]) -> bool:
    value = eval_result.get(f'validation/{self.target_metric_name}')
    return self._definition.target.reached('validation', value)

  def has_reached_test_target(self, eval_result: Mapping[str, float]) -> bool:
    value = eval_result.get(f'test/{self.target_metric_name}')
    return self._definition.target.reached('test', value)

  @property
  def num_train_examples(self) -> int:
    return self._definition.splits.train

  @property
  def num_eval_train_examples(self) -> int:
    return self._definition.splits.eval_train

  @property
  def num_validation_examples(self) -> int:
    return self._definition.splits.validation

  @property
  def num_test_examples(self) -> int | None:
    return self._definition.splits.test

  @property
  def eval_batch_size(self) -> int:
    return self._eval_batch_size

  @property
  def train_mean(self) -> float | tuple[float, ...]:
    if self._definition.train_mean is None:
      raise NotImplementedError(f'{self._definition.name} has no training mean.')
    return self._definition.train_mean

  @property
  def train_stddev(self) -> float | tuple[float, ...]:
    if self._definition.train_stddev is None:
      raise NotImplementedError(f'{self._definition.name} has no training standard deviation.')
    return self._definition.train_stddev

  @property
  def max_allowed_runtime_sec(self) -> float:
    """Seconds of submission time. Where the budget is a number of steps, a step counts as one
    second: what entries make of this is the number of evaluations in a budget."""
    budget = self._budget
    return float(budget.max_steps or 0) if budget.max_sec is None else budget.max_sec

  @property
  def eval_period_time_sec(self) -> float:
    """Seconds between evaluations; as above, steps where they are spaced by steps."""
    budget = self._budget
    period = budget.eval_period_sec
    return float(budget.eval_period_steps or 0) if period is None else period

  @property
  def step_hint(self) -> int:
    return self._budget.step_hint

  @property
  def param_shapes(self) -> Any:
    return _known('param_shapes', self._param_shapes)

  @property
  def model_params_types(self) -> Any:
    return _known('model_params_types', self._param_types)

  @property
  def parameter_roles(self) -> Any:
    return _known('parameter_roles', self._param_roles)

  @property
  def matrix_views(self) -> Any:
    return _known('matrix_views', self._matrix_views)

  def is_output_params(self, param_key: str) -> bool:
    """Whether a parameter, by its key or that of its module, belongs to the output."""
    return param_key in self._definition.output_params.get(self.framework, ())

  framework: str  # set by the subclass

  refuse: Callable[[str], NoReturn] = staticmethod(_refuse)
  """What becomes of a call that only the harness may make; the runner has it remembered."""

  def _build_input_queue(self, *args: Any, **kwargs: Any) -> NoReturn:
    self.refuse(
      'Data come from the input queue that data_selection is given and from nowhere else; the '
      'submission called _build_input_queue.'
    )

  def _eval_model_on_split(self, *args: Any, **kwargs: Any) -> NoReturn:
    self.refuse('Only the harness evaluates; the submission called _eval_model_on_split.')

  def eval_model(self, *args: Any, **kwargs: Any) -> NoReturn:
    self.refuse('Only the harness evaluates; the submission called eval_model.')


def _known(name: str, value: Any) -> Any:
  if value is None:
    raise ValueError(f'{name} is known once init_model_fn has been called.')
  return value
