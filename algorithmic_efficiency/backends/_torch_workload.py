"""A definition and its torch module, presented as AlgoPerf's `Workload`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel

from algorithmic_efficiency import seeds, spec, trust
from algorithmic_efficiency.backends import _torch_frozen, frozen, roles
from algorithmic_efficiency.backends.base import (
  Batch,
  DefinedWorkload,
  TaskCode,
  build,
  eval_step,
  generator,
)
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.metrics.metric import check_rows
from algorithmic_efficiency.spec import ParameterType

_WRAPPER_PREFIXES = ('module.', '_orig_mod.')

# Torch 2.13 gave the option another name.
_SENDS_BUFFERS = (
  'forward_sync_buffers'
  if 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters
  else 'broadcast_buffers'
)

_NORM_TYPES = (
  (('bn',), ParameterType.BATCH_NORM_SCALE, ParameterType.BATCH_NORM_BIAS),
  (('norm', 'ln'), ParameterType.LAYER_NORM_SCALE, ParameterType.LAYER_NORM_BIAS),
)
# The first mark that is found counts.
_ATTENTION_MARKS = (
  (('in_proj', 'qkv'), ParameterType.ATTENTION_QKV),
  (('kv_proj',), ParameterType.ATTENTION_KV),
  (('k_proj', 'key'), ParameterType.ATTENTION_K),
  (('q_proj', 'query'), ParameterType.ATTENTION_Q),
  (('v_proj', 'value'), ParameterType.ATTENTION_V),
)


class TorchWorkload(DefinedWorkload):
  """A workload whose parameters are an `nn.Module`; its model state is always None.

  Args:
    device: where the module lives.
    world_size: with more than one, the module is wrapped in DistributedDataParallel.
    compiles: whether its forward pass is compiled.
    dtype: the model's compute type; None takes the model's own choice.
  """

  framework = 'pytorch'

  def __init__(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
    device: torch.device,
    world_size: int = 1,
    compiles: bool = False,
    dtype: torch.dtype | None = None,
  ):
    super().__init__(definition, task, budget, eval_batch_size=eval_batch_size)
    self._dropout_rate = definition.dropout_rate
    self._device = device
    self._num_ranks = world_size
    self._compiles = compiles
    self._dtype = dtype
    self._own_model: nn.Module | None = None

  def init_model_fn(
    self,
    rng: spec.RandomState,
    dropout_rate: float | None = None,
    aux_dropout_rate: float | None = None,
  ) -> spec.ModelInitState:
    """Returns a fresh `(module, None)`.

    Weights are drawn on the host, so that a seed means the same weights on every device. Dropout
    rates given here are those of later calls of `model_fn` that give none. Only AlgoPerf's older
    call style has `aux_dropout_rate`; most models have one rate and ignore it. Shapes and types are
    known by the names of the module itself; with several processes, those of the module that is
    returned begin with 'module.'.

    Frozen parameters are buffers of the module, so its state has all names.
    """
    if dropout_rate is not None:
      self._dropout_rate = dropout_rate
    if aux_dropout_rate is not None:
      self._aux_dropout_rate = aux_dropout_rate
    torch.manual_seed(int(rng[0]))
    model = _build(self._definition, self._task, self._dtype).to(self._device)
    if self._has_frozen:
      self._freeze(model, lambda name: self._initial(rng, name))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    self._param_shapes = {name: spec.ShapeTuple(shape) for name, shape in shapes.items()}
    self._param_types = param_types(shapes)
    found = described(model, self.is_output_params)
    self._param_roles = {parameter.name: parameter.role for parameter in found}
    self._matrix_views = {parameter.name: parameter.matrix_view for parameter in found}
    if self._compiles:
      model.compile()  # in place, which leaves the names of the parameters as they are
    return self._parallel(model), None

  def _freeze(self, model: nn.Module, value: Callable[[str], torch.Tensor]) -> None:
    _torch_frozen.freeze(model, _torch_frozen.names(self._definition, model), value)

  def _initial(self, rng: spec.RandomState, name: str) -> torch.Tensor:
    return _drawn(self._definition, self._task, rng, name, self._dtype)

  def _parallel(self, model: nn.Module) -> nn.Module:
    if self._num_ranks == 1:
      return model
    device_ids = [self._device.index] if self._device.type == 'cuda' else None
    # Batch statistics are those of the global batch on every rank: there is nothing to send.
    return DistributedDataParallel(model, device_ids=device_ids, **{_SENDS_BUFFERS: False})

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
  ) -> tuple[spec.Tensor, spec.ModelAuxiliaryState]:
    """Runs the forward pass, without gradients in evaluation, and leaves the module in `mode`.

    By default, batch norm normalizes by the statistics of the batch in training, even if it does
    not update its running averages, as AlgoPerf's PyTorch models do. Dropout draws from PyTorch's
    global random state and not from `rng`, also as in AlgoPerf.
    """
    train = mode == spec.ForwardPassMode.TRAIN
    if update_batch_norm and not train:
      raise ValueError('Batch norm statistics cannot be updated during evaluation.')
    if use_running_average_bn is None:
      use_running_average_bn = not train
    if dropout_rate is None:
      dropout_rate = self._dropout_rate
    # To look first is five times cheaper than to set the mode of every module in each step.
    if any(module.training is not train for module in params.modules()):
      params.train(train)
    with contextlib.ExitStack() as contexts:
      if not train:
        contexts.enter_context(torch.no_grad())
      if update_batch_norm != train or use_running_average_bn == train:
        contexts.enter_context(_batch_norm(params, update_batch_norm, use_running_average_bn))
      logits = self._task.model.forward(
        params,
        augmented_and_preprocessed_input_batch,
        train=train,
        use_running_average=use_running_average_bn,
        dropout_rate=dropout_rate if train else 0.0,
        **self._aux_dropout(train=train),
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

  def task_losses(
    self,
    label_batch: spec.Tensor,
    logits_batch: spec.Tensor,
    mask_batch: spec.Tensor | None,
    task_batch: spec.Tensor,
  ) -> Mapping[str, spec.Tensor]:
    """See the base class; the sums are those of all ranks.

    A gradient is global, too, once it is averaged over the ranks. All ranks must ask for the same
    gradients in the same order.
    """
    tasks = torch.arange(self.num_tasks, device=task_batch.device)
    is_task = task_batch[..., None] == tasks
    losses = self.loss_fn(label_batch, logits_batch, mask_batch)['per_example']
    counts = torch.ones_like(losses) if mask_batch is None else mask_batch.to(losses.dtype)

    def by_task(values: torch.Tensor) -> torch.Tensor:
      sums = values.reshape(*task_batch.shape, -1).sum(-1)
      return layers.sum_over_ranks(torch.where(is_task, sums[..., None], 0).flatten(0, -2).sum(0))

    return {
      'summed': by_task(losses),
      'n_valid_examples': by_task(layers.spread_weights(counts.detach(), losses)),
    }

  def output_activation_fn(
    self, logits_batch: spec.Tensor, framework: str | None = None
  ) -> spec.Tensor:
    """The logits as predictions: probabilities where the loss is a cross entropy."""
    if isinstance(logits_batch, layers.Outputs):
      logits_batch = logits_batch.logits
    loss_type = self.loss_type
    if loss_type in (spec.LossType.SOFTMAX_CROSS_ENTROPY, spec.LossType.CTC_LOSS):
      return torch.softmax(logits_batch, dim=-1)
    if loss_type == spec.LossType.SIGMOID_CROSS_ENTROPY:
      return torch.sigmoid(logits_batch)
    return logits_batch

  def is_output_params(self, param_key: spec.ParameterKey) -> bool:
    """See the base class; the key may carry the prefixes of wrappers around the module."""
    while param_key.startswith(_WRAPPER_PREFIXES):
      param_key = param_key.partition('.')[2]
    return super().is_output_params(param_key)

  @torch.no_grad()
  def _eval_copy(self, params: nn.Module) -> nn.Module:
    """A module of the harness's own with the values of a submission's: what that one has besides,
    such as hooks or other code, has no part in evaluations.

    Raises:
      IntegrityError: it is not the workload's model any more.
    """
    if self._own_model is None:
      with torch.random.fork_rng(devices=[]):
        self._own_model = _build(self._definition, self._task, self._dtype).to(self._device)
      if self._has_frozen:
        self._freeze(self._own_model, dict(_state(params)).__getitem__)
      if self._compiles:
        self._own_model.compile()
    found = dict(_state(params))
    for name, own in _state(self._own_model):
      value = found.get(name)
      if value is None or value.shape != own.shape:
        raise trust.IntegrityError(
          f'The model may not be changed; of the one that is to be evaluated, {name} is '
          + ('missing.' if value is None else f'{tuple(value.shape)}, not {tuple(own.shape)}.'),
          'harness',
        )
      own.copy_(value)
    return self._own_model

  def _hash_frozen(self, params: nn.Module, model_state: Any) -> bytes:
    found = dict(_state(params))
    return _torch_frozen.hash_of(
      (name, found[name]) for name in self._frozen_names if name in found
    )

  @functools.cached_property
  def _frozen_names(self) -> list[str]:
    """All names of the frozen parameters."""
    model = _without_memory(self._definition, self._task, self._dtype)
    return [name for group in _torch_frozen.names(self._definition, model) for name in group]

  @torch.no_grad()
  def _eval_batch(
    self, model: nn.Module, batch: Batch, rng: Any
  ) -> tuple[Mapping[str, Any], dict[str, torch.Tensor]]:
    """Sums of every metric over this process's rows of one batch, and outputs [rows, ...]."""
    logits, _ = self.model_fn(
      model, batch, None, spec.ForwardPassMode.EVAL, rng, update_batch_norm=False
    )
    return eval_step(self._task, self._definition, batch, logits)

  @torch.no_grad()
  def _generate_batch(
    self, model: nn.Module, batch: Batch, *, is_last: bool
  ) -> dict[str, torch.Tensor]:
    """What the module generates for this process's rows of one batch: outputs [rows, ...]."""
    model.eval()
    outputs = generator(self._task)(self._definition, model, batch, is_last=is_last)
    check_rows(outputs, len(batch['weights']))
    return dict(outputs)


@contextlib.contextmanager
def _batch_norm(model: nn.Module, update: bool, use_running: bool) -> Iterator[None]:
  """Sets how batch norm normalizes and updates within the block, in any mode of the module.

  Our layers have an attribute for it. Layers of torch temporarily have no running averages, because
  a momentum of 0 would still count the batch and spread values that are not finite.
  """
  before: list[tuple[nn.Module, dict[str, bool]]] = []
  for module in model.modules():
    if isinstance(module, _BatchNorm):
      values = {'training': not use_running}
      if hasattr(module, 'update_running_stats'):
        values['update_running_stats'] = update
      elif not use_running and not update:
        values['track_running_stats'] = False
      before.append((module, {name: getattr(module, name) for name in values}))
      _set(module, values)
  try:
    yield
  finally:
    for module, values in before:
      _set(module, values)


def _set(module: nn.Module, values: Mapping[str, bool]) -> None:
  for name, value in values.items():
    setattr(module, name, value)


def unwrap(model: nn.Module) -> nn.Module:
  """The module itself, without the wrappers of parallel training and of torch.compile."""
  while True:
    if isinstance(model, (DistributedDataParallel, DataParallel)):
      model = model.module
    elif '_orig_mod' in model._modules:
      model = model.get_submodule('_orig_mod')
    else:
      return model


def _state(module: nn.Module, prefix: str = '') -> Iterator[tuple[str, torch.Tensor]]:
  """Parameters and lasting buffers by name, without the names of wrappers; calls no method."""
  for name, tensor in (*module._parameters.items(), *module._buffers.items()):
    if tensor is not None and name not in module._non_persistent_buffers_set:
      yield f'{prefix}{name}', tensor
  for name, child in module._modules.items():
    if child is not None:
      own = f'{name}.'
      yield from _state(child, prefix if own in _WRAPPER_PREFIXES else prefix + own)


def parameters(definition: WorkloadDefinition, task: TaskCode) -> list[roles.Parameter]:
  """Every parameter of the model, from a module without memory."""
  model = _without_memory(definition, task, None)
  found = described(model, definition.output_params.get('pytorch', ()).__contains__)
  names = {first for first, *_ in _torch_frozen.names(definition, model)}
  return [dataclasses.replace(one, is_frozen=one.name in names) for one in found]


def frozen_param(
  definition: WorkloadDefinition,
  task: TaskCode,
  rng: spec.RandomState,
  name: str,
  *,
  dtype: torch.dtype | None = None,
) -> torch.Tensor:
  """The initial value of one frozen parameter; see `backends.torch.frozen_param`."""
  groups = _torch_frozen.names(definition, _without_memory(definition, task, dtype))
  if name not in (first for first, *_ in groups):
    raise frozen.not_frozen_error(definition, name)
  return _drawn(definition, task, rng, name, dtype)


@torch.no_grad()
def _drawn(
  definition: WorkloadDefinition,
  task: TaskCode,
  rng: spec.RandomState,
  name: str,
  dtype: torch.dtype | None,
) -> torch.Tensor:
  """A parameter of a model that is drawn from the seed and the name of this parameter."""
  with torch.random.fork_rng(devices=[]):
    torch.default_generator.manual_seed(seeds.derive(int(rng[0]), 'frozen', name))
    return _build(definition, task, dtype).get_parameter(name).detach()


def _without_memory(
  definition: WorkloadDefinition, task: TaskCode, dtype: torch.dtype | None
) -> nn.Module:
  with torch.device('meta'):
    return _build(definition, task, dtype)


def described(model: nn.Module, is_output: Callable[[str], bool]) -> list[roles.Parameter]:
  """Every parameter; one with several names is an output if any of them is."""
  names: dict[nn.Parameter, list[str]] = {}
  for name, parameter in model.named_parameters(remove_duplicate=False):
    names.setdefault(parameter, []).append(name)
  return [
    roles.describe(
      first,
      tuple(parameter.shape),
      _param_type(first),
      is_output=any(map(is_output, [first, *others])),
      outputs_first=True,
    )
    for parameter, (first, *others) in names.items()
  ]


def param_types(names: Iterable[str]) -> dict[str, ParameterType]:
  """The type of every parameter by its name; the first rule that holds, in AlgoPerf's order.

  Raises:
    ValueError: a parameter of a norm or an attention layer has a name that says nothing.
  """
  return {name: _param_type(name) for name in names}


def _param_type(name: str) -> ParameterType:
  for marks, scale, bias in _NORM_TYPES:
    if any(mark in name for mark in marks):
      if 'weight' in name or 'scale' in name:
        return scale
      if 'bias' in name:
        return bias
      raise _unrecognized(name)
  if 'conv' in name:
    return ParameterType.BIAS if 'bias' in name else ParameterType.CONV_WEIGHT
  if 'embed' in name and 'weight' in name:
    return ParameterType.EMBEDDING
  if 'attn' in name or 'attention' in name:
    return _attention_type(name)
  return ParameterType.BIAS if 'bias' in name else ParameterType.WEIGHT


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
  raise _unrecognized(name)


def _unrecognized(name: str) -> ValueError:
  return ValueError(f'The name of the parameter {name} does not tell its type.')


def _build(definition: WorkloadDefinition, task: TaskCode, dtype: torch.dtype | None) -> nn.Module:
  return build(definition, task, dtype, nn.Module)
