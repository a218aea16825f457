"""A definition and its module, presented as AlgoPerf's `Workload`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends.base import Batch, DefinedWorkload, TaskCode
from algorithmic_efficiency.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.spec import ParameterType

_WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile
# The first mark that is found counts.
_ATTENTION_MARKS = (
  (('in_proj', 'qkv'), ParameterType.ATTENTION_QKV),
  (('kv_proj',), ParameterType.ATTENTION_KV),
  (('k_proj', 'key'), ParameterType.ATTENTION_K),
  (('q_proj', 'query'), ParameterType.ATTENTION_Q),
  (('v_proj', 'value'), ParameterType.ATTENTION_V),
)


class TorchWorkload(DefinedWorkload):
  """A workload whose parameters are an `nn.Module`; the model state is always None.

  Args:
    device: where the module lives.
    num_ranks: processes of the trial; with several, the module is wrapped to average gradients.
    compiles: whether the module is compiled.
    dtype: the model's compute type; None takes the model's own choice.
  """

  framework = 'pytorch'

  def __init__(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    device: torch.device,
    num_ranks: int = 1,
    compiles: bool = False,
    eval_batch_size: int | None = None,
    dtype: torch.dtype | None = None,
  ):
    super().__init__(definition, task, budget, eval_batch_size=eval_batch_size)
    self._device = device
    self._num_ranks = num_ranks
    self._compiles = compiles
    self._dtype = dtype
    self._dropout_rate = definition.dropout_rate

  def init_model_fn(
    self,
    rng: spec.RandomState,
    dropout_rate: float | None = None,
    aux_dropout_rate: float | None = None,
  ) -> spec.ModelInitState:
    """Returns a fresh module, compiled and wrapped as the trial's devices need it, and None.

    A dropout rate given here is the default of later calls of `model_fn`. `aux_dropout_rate` is
    accepted for AlgoPerf's older call style; the models have one rate.
    """
    if dropout_rate is not None:
      self._dropout_rate = dropout_rate
    torch.manual_seed(int(rng[0]))
    model = _build(self._definition, self._task, self._dtype).to(self._device)
    if self._compiles:
      model = torch.compile(model)
    if self._num_ranks > 1:
      from torch.nn.parallel import DistributedDataParallel

      ids = [self._device.index] if self._device.type == 'cuda' else None
      model = DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
    named = dict(model.named_parameters())
    self._param_shapes = {name: spec.ShapeTuple(p.shape) for name, p in named.items()}
    self._param_types = param_types(named)
    return model, None

  def model_fn(
    self,
    params: spec.ParameterContainer,
    augmented_and_preprocessed_input_batch: Mapping[str, spec.Tensor],
    model_state: spec.ModelAuxiliaryState,
    mode: spec.ForwardPassMode,
    rng: spec.RandomState,
    update_batch_norm: bool,
    use_running_average_bn: bool | None = None,
    dropout_rate: float | None = None,
  ) -> tuple[spec.Tensor, None]:
    """The forward pass, without gradients in EVAL mode.

    In TRAIN mode batch norm normalises by the statistics of the batch; `update_batch_norm` says
    whether its running averages move.
    """
    train = mode == spec.ForwardPassMode.TRAIN
    if update_batch_norm and not train:
      raise ValueError('Batch norm statistics cannot be updated during evaluation.')
    if use_running_average_bn is None:
      use_running_average_bn = not train
    if dropout_rate is None:
      dropout_rate = self._dropout_rate
    if params.training != train:
      params.train(train)
    gradients = contextlib.nullcontext() if train else torch.no_grad()
    frozen = contextlib.nullcontext() if update_batch_norm or not train else frozen_norms(params)
    with gradients, frozen:
      logits = self._task.model.forward(
        params,
        augmented_and_preprocessed_input_batch,
        train=train,
        use_running_average=use_running_average_bn,
        dropout_rate=dropout_rate if train else 0.0,
      )
    return logits, None

  def loss_fn(
    self,
    label_batch: spec.Tensor,
    logits_batch: spec.Tensor,
    mask_batch: spec.Tensor | None = None,
    label_smoothing: float = 0.0,
  ) -> Mapping[str, spec.Tensor]:
    return self._task.model.loss(
      self._definition, label_batch, logits_batch, mask=mask_batch, label_smoothing=label_smoothing
    )

  def output_activation_fn(
    self, logits_batch: spec.Tensor, framework: str | None = None
  ) -> spec.Tensor:
    """The logits as predictions: probabilities where the loss is a cross entropy."""
    if self.loss_type in (spec.LossType.SOFTMAX_CROSS_ENTROPY, spec.LossType.CTC_LOSS):
      return torch.softmax(logits_batch, dim=-1)
    if self.loss_type == spec.LossType.SIGMOID_CROSS_ENTROPY:
      return torch.sigmoid(logits_batch)
    return logits_batch

  def is_output_params(self, param_key: spec.ParameterKey) -> bool:
    return super().is_output_params(plain_name(param_key))

  def eval_sums(self, params: nn.Module, batch: Batch) -> dict[str, tuple[Any, Any]]:
    """Sum and weight of every metric over the rows of one batch that this rank has."""
    logits, _ = self.model_fn(
      unwrap(params), batch, None, spec.ForwardPassMode.EVAL, None, update_batch_norm=False
    )
    with torch.no_grad():
      sums = dict(self._task.model.eval_sums(self._definition, batch, logits))
    weights = batch['weights']  # [batch], or [batch, ...] where parts of an example count apart
    sums['num_examples'] = (
      ((weights.flatten(1) != 0).any(1).sum(), 1)
      if weights.dim() > 1
      else (
        (weights != 0).sum(),
        1,
      )
    )
    return sums


@contextlib.contextmanager
def frozen_norms(model: nn.Module) -> Iterator[None]:
  """Batch norm normalises by the batch in the block, and leaves its running averages untouched."""
  norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
  before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
  for norm in norms:
    norm.momentum = 0.0
    norm.num_batches_tracked = None
  try:
    yield
  finally:
    for norm, momentum, count in before:
      norm.momentum = momentum
      norm.num_batches_tracked = count


def unwrap(model: nn.Module) -> nn.Module:
  """The plain module inside DistributedDataParallel and torch.compile, in either order."""
  while True:
    inner = getattr(model, '_orig_mod', None)
    if inner is None and type(model).__name__ == 'DistributedDataParallel':
      inner = model.module
    if not isinstance(inner, nn.Module):
      return model
    model = inner


def plain_name(name: str) -> str:
  """A parameter's name without what wrappers put before it."""
  while name.startswith(_WRAPPERS):
    name = name.partition('.')[2]
  return name


def parameters(
  definition: WorkloadDefinition, task: TaskCode
) -> list[tuple[str, tuple[int, ...], str]]:
  """Name, shape and type name of every parameter, built without memory."""
  with torch.device('meta'):
    model = _build(definition, task, None)
  named = dict(model.named_parameters())
  types = param_types(named)
  return [(name, tuple(value.shape), types[name].name) for name, value in named.items()]


def param_types(named: Mapping[str, Any]) -> dict[str, ParameterType]:
  """The type of every parameter by its name: the first rule that holds, in AlgoPerf's order.

  Raises:
    ValueError: a parameter of a norm or an attention layer has a name that says nothing.
  """
  return {name: _param_type(name.lower()) for name in named}


def _param_type(name: str) -> ParameterType:
  if 'bn' in name:
    return _norm_type(name, ParameterType.BATCH_NORM_SCALE, ParameterType.BATCH_NORM_BIAS)
  if 'norm' in name or 'ln' in name:
    return _norm_type(name, ParameterType.LAYER_NORM_SCALE, ParameterType.LAYER_NORM_BIAS)
  if 'conv' in name:
    return ParameterType.BIAS if 'bias' in name else ParameterType.CONV_WEIGHT
  if 'embed' in name and 'weight' in name:
    return ParameterType.EMBEDDING
  if 'attn' in name or 'attention' in name:
    return _attention_type(name)
  return ParameterType.BIAS if 'bias' in name else ParameterType.WEIGHT


def _norm_type(name: str, scale: ParameterType, bias: ParameterType) -> ParameterType:
  if 'weight' in name or 'scale' in name:
    return scale
  if 'bias' in name:
    return bias
  raise _unrecognised(name)


def _attention_type(name: str) -> ParameterType:
  if 'bias' in name:
    return ParameterType.ATTENTION_BIAS
  for marks, kind in _ATTENTION_MARKS:
    if any(mark in name for mark in marks):
      return kind
  if 'out' in name and 'weight' in name:
    return ParameterType.ATTENTION_OUT
  if 'scale' in name:
    return ParameterType.WEIGHT
  raise _unrecognised(name)


def _unrecognised(name: str) -> ValueError:
  return ValueError(f'The name of the parameter {name} does not tell its type.')


def _build(definition: WorkloadDefinition, task: TaskCode, dtype: torch.dtype | None) -> nn.Module:
  options = {} if dtype is None else {'dtype': dtype}
  return task.model.build(definition, **options)
