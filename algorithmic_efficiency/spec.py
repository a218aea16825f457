"""The public contract between a workload and a training algorithm.

Names, values and call styles are those of AlgoPerf, so that its submissions run here unchanged.
This module imports no framework. The backend decides what tensors, parameters and random keys are.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class LossType(enum.Enum):
  """The loss of a workload, with AlgoPerf's values."""

  SOFTMAX_CROSS_ENTROPY = 0
  SIGMOID_CROSS_ENTROPY = 1
  MEAN_SQUARED_ERROR = 2
  CTC_LOSS = 3
  MEAN_ABSOLUTE_ERROR = 4


class ForwardPassMode(enum.Enum):
  """Whether `model_fn` runs for training or for evaluation."""

  TRAIN = 0
  EVAL = 1


class ParameterType(enum.Enum):
  """The type of a parameter, with AlgoPerf's values."""

  WEIGHT = 0
  BIAS = 1
  CONV_WEIGHT = 2
  BATCH_NORM_SCALE = 3
  BATCH_NORM_BIAS = 4
  LAYER_NORM_SCALE = 5
  LAYER_NORM_BIAS = 6
  EMBEDDING = 7
  ATTENTION_Q = 8
  ATTENTION_K = 9
  ATTENTION_V = 10
  ATTENTION_OUT = 11
  ATTENTION_QKV = 12
  ATTENTION_KV = 13
  ATTENTION_BIAS = 14


class ParameterRole(enum.Enum):
  """The role of a parameter in its model, independent of framework, layout and name."""

  HIDDEN_MATRIX = 'hidden_matrix'
  CONVOLUTION = 'convolution'
  EMBEDDING = 'embedding'
  HEAD = 'head'  # the weights that make the output
  TIED = 'tied'  # embedding and head in one
  NORM = 'norm'  # scales and biases of normalization layers
  BIAS = 'bias'
  ROUTER = 'router'  # chooses between experts
  EXPERT = 'expert'
  VECTOR = 'vector'  # anything else that is no matrix, such as a learned temperature


@dataclass(frozen=True, kw_only=True)
class MatrixView:
  """How to view a parameter as matrices, for optimizers that work on matrices.

  A convolution is flattened to one matrix, and attention heads are merged. Fused projections and
  stacked experts are split into one matrix each. The output axis is last in JAX and first in
  PyTorch, so the matrices of a layer in one framework are the transposes of those in the other. A
  parameter that is no matrix has a view that is false, with `num_matrices` 0.

  Attributes:
    num_matrices: number of matrices in the parameter.
    rows: rows of each matrix.
    columns: columns of each matrix.
    by_columns: True if the matrices lie side by side along the columns of the parameter; False if
      they are stacked along its first axis.
  """

  num_matrices: int
  rows: int
  columns: int
  by_columns: bool = False

  def __bool__(self) -> bool:
    return self.num_matrices > 0

  def split(self, array: Tensor) -> Tensor:
    """Reshapes a parameter to [num_matrices, rows, columns]; in PyTorch it shares the memory."""
    if self.by_columns:
      return array.reshape(self.rows, self.num_matrices, self.columns).swapaxes(0, 1)
    return array.reshape(self.num_matrices, self.rows, self.columns)

  def join(self, matrices: Tensor, shape: Shape) -> Tensor:
    """Reshapes `matrices`, [num_matrices, rows, columns], back to the parameter's `shape`."""
    return (matrices.swapaxes(0, 1) if self.by_columns else matrices).reshape(shape)


class ShapeTuple:
  """A shape that tree maps treat as one leaf; `.shape_tuple` is the shape itself."""

  def __init__(self, shape_tuple: tuple[int, ...]):
    self.shape_tuple = tuple(shape_tuple)

  def __repr__(self) -> str:
    return f'ShapeTuple({self.shape_tuple})'

  def __eq__(self, other: object) -> bool:
    return isinstance(other, ShapeTuple) and self.shape_tuple == other.shape_tuple

  __hash__ = None  # type: ignore[assignment]  # as in AlgoPerf


class TrainingCompleteError(Exception):
  """Raised by a submission inside `update_params` to end its trial."""


# Loose aliases, because submissions name them in annotations.
Tensor = Any
Shape = tuple[int, ...]
ParameterKey = str
ParameterContainer = Any  # JAX: nested dict of arrays; PyTorch: nn.Module
ParameterShapeTree = Any  # same tree, leaves are ShapeTuple
ParameterTypeTree = Any  # same tree, leaves are ParameterType
ParameterRoleTree = Any  # same tree, leaves are ParameterRole
MatrixViewTree = Any  # same tree, leaves are MatrixView
RandomState = Any  # JAX: uint32[2] key; PyTorch: int32[2] numpy array
OptimizerState = Any
Hyperparameters = Any  # external tuning: named tuple; self tuning: None
Timing = int
Steps = int
ModelAuxiliaryState = Any
ModelInitState = tuple[ParameterContainer, ModelAuxiliaryState]
UpdateReturn = tuple[OptimizerState, ParameterContainer, ModelAuxiliaryState]


class Workload(abc.ABC):
  """The interface of a workload that a submission sees.

  A backend implements it once for all tasks; no task implements it. Methods that begin with an
  underscore are reserved for the harness and raise an error when a submission calls them.
  """

  metrics_logger: Any = None  # None, or an object with append_scalar_metrics(metrics, global_step)

  # Loss and targets.

  @property
  @abc.abstractmethod
  def target_metric_name(self) -> str: ...

  @property
  @abc.abstractmethod
  def validation_target_value(self) -> float: ...

  @property
  @abc.abstractmethod
  def test_target_value(self) -> float | None: ...

  @property
  @abc.abstractmethod
  def loss_type(self) -> LossType: ...

  @abc.abstractmethod
  def has_reached_validation_target(self, eval_result: Mapping[str, float]) -> bool: ...

  @abc.abstractmethod
  def has_reached_test_target(self, eval_result: Mapping[str, float]) -> bool: ...

  # Sizes and budget.

  @property
  @abc.abstractmethod
  def num_train_examples(self) -> int: ...

  @property
  @abc.abstractmethod
  def num_eval_train_examples(self) -> int: ...

  @property
  @abc.abstractmethod
  def num_validation_examples(self) -> int: ...

  @property
  @abc.abstractmethod
  def num_test_examples(self) -> int | None: ...

  @property
  @abc.abstractmethod
  def eval_batch_size(self) -> int: ...

  @property
  @abc.abstractmethod
  def train_mean(self) -> Any: ...

  @property
  @abc.abstractmethod
  def train_stddev(self) -> Any: ...

  @property
  @abc.abstractmethod
  def max_allowed_runtime_sec(self) -> float: ...

  @property
  @abc.abstractmethod
  def eval_period_time_sec(self) -> float: ...

  @property
  @abc.abstractmethod
  def step_hint(self) -> int: ...

  # The model.

  @property
  @abc.abstractmethod
  def independent_examples(self) -> bool:
    """Whether the loss of a batch is the sum of the losses of its parts."""

  @property
  @abc.abstractmethod
  def param_shapes(self) -> ParameterShapeTree: ...

  @property
  @abc.abstractmethod
  def model_params_types(self) -> ParameterTypeTree: ...

  @property
  @abc.abstractmethod
  def parameter_roles(self) -> ParameterRoleTree: ...

  @property
  @abc.abstractmethod
  def matrix_views(self) -> MatrixViewTree: ...

  @abc.abstractmethod
  def is_output_params(self, param_key: ParameterKey) -> bool: ...

  @abc.abstractmethod
  def init_model_fn(
    self, rng: RandomState, dropout_rate: float | None = None, aux_dropout_rate: float | None = None
  ) -> ModelInitState:
    """Returns newly initialized `(params, model_state)`.

    Args:
      rng: random key, uint32 [2] in JAX and int32 [2] in PyTorch.
      dropout_rate: dropout rate of the model; None is the workload's default.
      aux_dropout_rate: second dropout rate, as AlgoPerf 0.5 had it; in translation that of the
        weights of attention. None is 0, as in AlgoPerf 0.6 in JAX. Other models ignore it.
    """

  @abc.abstractmethod
  def model_fn(
    self,
    params: ParameterContainer,
    augmented_and_preprocessed_input_batch: Mapping[str, Tensor],
    model_state: ModelAuxiliaryState,
    mode: ForwardPassMode,
    rng: RandomState,
    update_batch_norm: bool,
    use_running_average_bn: bool | None = None,
    dropout_rate: float | None = None,
  ) -> tuple[Tensor, ModelAuxiliaryState]:
    """Runs a forward pass; returns `(logits, new_model_state)`.

    Pass the logits to `loss_fn`, which knows their form. `update_batch_norm` says whether running
    statistics of batch norm are updated; `use_running_average_bn` whether they are used.
    """

  @abc.abstractmethod
  def loss_fn(
    self,
    label_batch: Tensor,
    logits_batch: Tensor,
    mask_batch: Tensor | None = None,
    label_smoothing: float = 0.0,
  ) -> Mapping[str, Tensor]:
    """Returns `summed` (scalar), `n_valid_examples` (scalar) and `per_example` ([batch, ...]).

    The loss has no regularization term and is not reduced over processes. The mean loss is
    `summed / n_valid_examples`. `mask_batch` weights examples; padding has weight 0.

    A model with auxiliary losses has `parts` as well: what each adds to `summed`, and the number of
    valid examples, by name. `per_example` has no auxiliary loss in it.
    """

  @abc.abstractmethod
  def task_losses(
    self,
    label_batch: Tensor,
    logits_batch: Tensor,
    mask_batch: Tensor | None,
    task_batch: Tensor,
  ) -> Mapping[str, Tensor]:
    """Returns `summed` and `n_valid_examples` of each task, both [num_tasks], without auxiliaries.

    Their order is that of the definition's tasks. A task without examples has 0 and 0. Examples
    whose task is out of range belong to none.

    Args:
      task_batch: number of each example's task, int [batch]. Where packed rows hold several tasks,
        it is that of each part, in the shape of the losses, such as [batch, length].
    """

  @abc.abstractmethod
  def output_activation_fn(self, logits_batch: Tensor, framework: str | None = None) -> Tensor: ...

  def attach_metrics_logger(self, metrics_logger: Any) -> None:
    self.metrics_logger = metrics_logger


# The functions of a submission module, under AlgoPerf's names.

InitOptimizerFn = Callable[
  [Workload, ParameterContainer, ModelAuxiliaryState, Hyperparameters, RandomState], OptimizerState
]
UpdateParamsFn = Callable[..., UpdateReturn]
PrepareForEvalFn = Callable[..., UpdateReturn]
DataSelectionFn = Callable[
  [
    Workload,
    Iterator[dict[str, Tensor]],
    OptimizerState,
    ParameterContainer,
    ModelAuxiliaryState,
    Hyperparameters,
    int,
    RandomState,
  ],
  Any,
]


def get_batch_size(workload_name: str) -> int:
  """Returns the global training batch size, in examples.

  Raises:
    ValueError: the submission does not know the workload; the batch size is then chosen for it.
  """
  raise NotImplementedError


def init_optimizer_state(
  workload: Workload,
  model_params: ParameterContainer,
  model_state: ModelAuxiliaryState,
  hyperparameters: Hyperparameters,
  rng: RandomState,
) -> OptimizerState:
  """Returns the state that the first call of `update_params` gets; changes no parameter."""
  raise NotImplementedError


def update_params(
  workload: Workload,
  current_param_container: ParameterContainer,
  current_params_types: ParameterTypeTree,
  model_state: ModelAuxiliaryState,
  hyperparameters: Hyperparameters,
  batch: Mapping[str, Tensor],
  loss_type: LossType,
  optimizer_state: OptimizerState,
  eval_results: list[tuple[int, Any]],
  global_step: int,
  rng: RandomState,
  train_state: Mapping[str, Any] | None = None,
) -> UpdateReturn:
  """Makes one step; returns `(optimizer_state, params, model_state)`. Arguments come by keyword.

  Args:
    eval_results: past evaluations, as step and metrics by name.
    train_state: times and targets of the trial; given only to a submission that declares it.

  Raises:
    TrainingCompleteError: to end the trial with the parameters of the step before.
  """
  raise NotImplementedError


def prepare_for_eval(
  workload: Workload,
  current_param_container: ParameterContainer,
  current_params_types: ParameterTypeTree,
  model_state: ModelAuxiliaryState,
  hyperparameters: Hyperparameters,
  loss_type: LossType,
  optimizer_state: OptimizerState,
  eval_results: list[tuple[int, Any]],
  global_step: int,
  rng: RandomState,
) -> UpdateReturn:
  """Returns what is evaluated and what training goes on from; a submission may leave it out."""
  raise NotImplementedError


def data_selection(
  workload: Workload,
  input_queue: Iterator[Mapping[str, Tensor]],
  optimizer_state: OptimizerState,
  current_param_container: ParameterContainer,
  model_state: ModelAuxiliaryState,
  hyperparameters: Hyperparameters,
  global_step: int,
  rng: RandomState,
) -> Mapping[str, Tensor]:
  """Returns the batch of a step, most often `next(input_queue)`. Arguments come by position."""
  raise NotImplementedError
