"""A definition and its flax model, presented as AlgoPerf's `Workload`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends import _jax_frozen, frozen, roles
from algorithmic_efficiency.backends.base import (
  Batch,
  DefinedWorkload,
  TaskCode,
  build,
  eval_step,
  generator,
)
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.metrics.metric import check_rows
from algorithmic_efficiency.spec import ParameterType

_NORM_TYPES = {
  ('batch', 'scale'): ParameterType.BATCH_NORM_SCALE,
  ('batch', 'bias'): ParameterType.BATCH_NORM_BIAS,
  ('layer', 'scale'): ParameterType.LAYER_NORM_SCALE,
  ('layer', 'bias'): ParameterType.LAYER_NORM_BIAS,
}
# The first mark that is found counts.
_ATTENTION_MARKS = (
  (('in_proj', 'qkv'), ParameterType.ATTENTION_QKV),
  (('kv_proj',), ParameterType.ATTENTION_KV),
  (('key', 'k_proj'), ParameterType.ATTENTION_K),
  (('query', 'q_proj'), ParameterType.ATTENTION_Q),
  (('value', 'v_proj'), ParameterType.ATTENTION_V),
  (('out', 'o_proj'), ParameterType.ATTENTION_OUT),
)


class JaxWorkload(DefinedWorkload):
  """A workload whose parameters are a nested dict of arrays.

  Args:
    running_average_bn: the rule of the suite; see `Suite`.
    sharding: that of fresh parameters; None leaves them uncommitted on the default
      device, so that what a submission makes next to them compiles to the same program.
    num_copies: fresh parameters and model state have a leading axis of this length; None for none.
    dtype: the model's compute type; None takes the model's own choice.
    eval_shardings: those of sums and of outputs in evaluation; None for one device.
  """

  framework = 'jax'

  def __init__(
    self,
    definition: WorkloadDefinition,
    task: TaskCode,
    budget: Budget,
    *,
    eval_batch_size: int | None = None,
    running_average_bn: bool = False,
    sharding: jax.sharding.Sharding | None = None,
    num_copies: int | None = None,
    dtype: Any = None,
    eval_shardings: tuple[jax.sharding.Sharding, jax.sharding.Sharding] | None = None,
  ):
    super().__init__(definition, task, budget, eval_batch_size=eval_batch_size)
    self._dropout_rate = definition.dropout_rate
    self._running_average_bn = running_average_bn
    self._model = _build(definition, task, dtype)
    self._num_copies = num_copies
    self._init = jax.jit(self._init_copies, out_shardings=sharding)
    self._eval_step = jax.jit(self._eval_batch, out_shardings=eval_shardings)
    self._generate = jax.jit(
      self._generate_batch,
      static_argnames='is_last',
      out_shardings=None if eval_shardings is None else eval_shardings[1],
    )

  def init_model_fn(
    self,
    rng: spec.RandomState,
    dropout_rate: float | None = None,
    aux_dropout_rate: float | None = None,
  ) -> spec.ModelInitState:
    """Returns fresh `(params, model_state)`; the state is None for a model without one.

    Frozen parameters are in the model state, under 'frozen'. Their values are those that they have
    in a model which trains them: flax draws each from the key and its place in the model alone.

    Both are as the steps of the submission get them, in the layout of its backend.

    Dropout rates given here are those of later calls of `model_fn` that give none. Only AlgoPerf's
    older call style has `aux_dropout_rate`; most models have one rate and ignore it.
    """
    if dropout_rate is not None:
      self._dropout_rate = dropout_rate
    if aux_dropout_rate is not None:
      self._aux_dropout_rate = aux_dropout_rate
    variables = dict(self._init(rng, _example_batch(self._definition, self._task)))
    params = variables.pop('params')
    if self._has_frozen:
      names = _frozen_names(self._definition, params)
      params, variables[_jax_frozen.STATE] = _jax_frozen.split(params, names)
    num_axes = 0 if self._num_copies is None else 1
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[num_axes:], x.dtype), params)
    self._param_shapes = jax.tree.map(lambda x: spec.ShapeTuple(x.shape), one)
    self._param_types = param_types(one)
    found = described(one, self._param_types, self.is_output_params)
    self._param_roles = jax.tree.map(lambda parameter: parameter.role, found)
    self._matrix_views = jax.tree.map(lambda parameter: parameter.matrix_view, found)
    return params, variables or None

  def _init_copies(self, rng: Any, batch: Batch) -> Any:
    variables = _init_variables(self._model, self._task, rng, batch)
    if self._num_copies is None:
      return variables
    shape = (self._num_copies,)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape)), variables)

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
    """Runs the forward pass; traceable.

    By default, batch norm normalizes by the statistics of the batch in training. Where it does not
    update its running averages, the suite may choose these, as AlgoPerf's JAX models do.
    """
    train = mode == spec.ForwardPassMode.TRAIN
    if update_batch_norm and not train:
      raise ValueError('Batch norm statistics cannot be updated during evaluation.')
    if use_running_average_bn is None:
      use_running_average_bn = not update_batch_norm and (not train or self._running_average_bn)
    if dropout_rate is None:
      dropout_rate = self._dropout_rate
    params, state = _jax_frozen.join(params, model_state)
    # A layer that normalizes by the batch always writes its running averages.
    mutable = [] if use_running_average_bn and not update_batch_norm else list(state)
    logits, updates = nn.apply(self._task.model.forward, self._model, mutable=mutable)(
      {'params': params, **state},
      augmented_and_preprocessed_input_batch,
      train=train,
      use_running_average=use_running_average_bn,
      dropout_rate=dropout_rate if train else 0.0,
      **self._aux_dropout(train=train),
      rngs={'dropout': rng} if train else {},
    )
    return logits, {**model_state, **updates} if state and update_batch_norm else model_state

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
    """See the base class; traceable. In the layout with a device axis, sums are per device."""
    is_task = task_batch[..., None] == jnp.arange(self.num_tasks)
    losses = self.loss_fn(label_batch, logits_batch, mask_batch)['per_example']
    counts = jnp.ones_like(losses) if mask_batch is None else mask_batch.astype(losses.dtype)

    def by_task(values: jax.Array) -> jax.Array:
      sums = values.reshape(*task_batch.shape, -1).sum(axis=-1)
      return jnp.where(is_task, sums[..., None], 0).reshape(-1, self.num_tasks).sum(axis=0)

    return {
      'summed': by_task(losses),
      'n_valid_examples': by_task(layers.spread_weights(counts, losses)),
    }

  def output_activation_fn(
    self, logits_batch: spec.Tensor, framework: str | None = None
  ) -> spec.Tensor:
    """The logits as predictions: probabilities where the loss is a cross entropy."""
    if isinstance(logits_batch, layers.Outputs):
      logits_batch = logits_batch.logits
    loss_type = self.loss_type
    if loss_type in (spec.LossType.SOFTMAX_CROSS_ENTROPY, spec.LossType.CTC_LOSS):
      return jax.nn.softmax(logits_batch, axis=-1)
    if loss_type == spec.LossType.SIGMOID_CROSS_ENTROPY:
      return jax.nn.sigmoid(logits_batch)
    return logits_batch

  def _hash_frozen(self, params: Any, model_state: Any) -> bytes:
    return _jax_frozen.hash_of(model_state)

  def _eval_batch(
    self, params: Any, model_state: Any, batch: Batch, rng: Any
  ) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """Sums of every metric over one global batch, and outputs [batch, ...]."""
    logits, _ = self.model_fn(
      params, batch, model_state, spec.ForwardPassMode.EVAL, rng, update_batch_norm=False
    )
    found, outputs = eval_step(self._task, self._definition, batch, logits)
    weights = batch['weights']  # [batch], or [batch, ...] where parts of an example count apart
    counts = (weights != 0).any(axis=tuple(range(1, weights.ndim)))
    return {**found, 'num_examples': (counts.sum(), jnp.ones(()))}, outputs

  def _generate_batch(
    self, params: Any, model_state: Any, batch: Batch, *, is_last: bool
  ) -> dict[str, jax.Array]:
    """What the model generates for one global batch, without dropout: outputs [batch, ...]."""
    generate = functools.partial(generator(self._task), self._definition)

    def bound(model: nn.Module) -> Mapping[str, jax.Array]:
      return generate(model, batch, is_last=is_last)

    params, state = _jax_frozen.join(params, model_state)
    outputs = nn.apply(bound, self._model)({'params': params, **state})
    check_rows(outputs, len(batch['weights']))
    return dict(outputs)


def parameters(definition: WorkloadDefinition, task: TaskCode) -> list[roles.Parameter]:
  """Every parameter of the model, by shape evaluation."""
  params = _shapes(definition, task, _build(definition, task, None))
  output_keys = definition.output_params.get('jax', ())
  found = jax.tree.leaves(described(params, param_types(params), output_keys.__contains__))
  names = _frozen_names(definition, params)
  return [dataclasses.replace(one, is_frozen=one.name in names) for one in found]


def frozen_param(
  definition: WorkloadDefinition, task: TaskCode, rng: Any, name: str, *, dtype: Any = None
) -> jax.Array:
  """The initial value of one frozen parameter; see `backends.jax.frozen_param`."""
  model = _build(definition, task, dtype)
  if name not in _frozen_names(definition, _shapes(definition, task, model)):
    raise frozen.not_frozen_error(definition, name)

  @jax.jit  # the compiler leaves out what belongs to other parameters
  def value(rng: Any, batch: Batch) -> jax.Array:
    return _jax_frozen.flat(_init_variables(model, task, rng, batch)['params'])[name]

  return value(rng, _example_batch(definition, task))


def _frozen_names(definition: WorkloadDefinition, params: Any) -> list[str]:
  return frozen.chosen(definition, 'jax', _jax_frozen.flat(params), '/')


def _shapes(definition: WorkloadDefinition, task: TaskCode, model: nn.Module) -> Any:
  """All parameters of the model, with shapes and types instead of arrays."""
  variables = jax.eval_shape(
    lambda rng, batch: _init_variables(model, task, rng, batch),
    jax.ShapeDtypeStruct((2,), np.uint32),
    _example_batch(definition, task),
  )
  return variables['params']


def described(params: Any, types: Any, is_output: Callable[[str], bool]) -> Any:
  """The same tree, with a `roles.Parameter` for every array."""

  def one(path: Any, array: Any, kind: ParameterType) -> roles.Parameter:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    return roles.describe(
      name,
      array.shape,
      kind,
      is_output=is_output(name) or is_output(name.rpartition('/')[0]),
      outputs_first=False,
    )

  return jax.tree_util.tree_map_with_path(one, params, types)


def param_types(params: Mapping[str, Any], module: str = '') -> dict[str, Any]:
  """The type of every parameter by its name and those of the modules around it, in the same tree.

  Raises:
    ValueError: a parameter of a norm or an attention layer has a name that says nothing.
  """
  types: dict[str, Any] = {}
  for name, value in params.items():
    path = f'{module}/{name.lower()}'
    types[name] = (
      param_types(value, path) if isinstance(value, Mapping) else _param_type(module, name.lower())
    )
  return types


def _param_type(module: str, name: str) -> ParameterType:
  """The first rule that holds, in AlgoPerf's order; both names are lower case."""
  for norm, marks in (('batch', ('batchnorm', 'bn')), ('layer', ('layernorm', 'rmsnorm', 'ln'))):
    if any(mark in module for mark in marks):
      if (norm, name) not in _NORM_TYPES:
        raise _unrecognized(module, name)
      return _NORM_TYPES[norm, name]
  if 'conv' in module:
    return ParameterType.BIAS if 'bias' in name else ParameterType.CONV_WEIGHT
  if 'embedding' in name or ('embedding' in module and name == 'kernel'):
    return ParameterType.EMBEDDING
  if 'attention' in module or 'attn' in module:
    return _attention_type(module, name)
  return ParameterType.BIAS if 'bias' in name else ParameterType.WEIGHT


def _attention_type(module: str, name: str) -> ParameterType:
  if 'bias' in name:
    return ParameterType.ATTENTION_BIAS
  if 'scale' in name:
    return ParameterType.WEIGHT
  layer = f'{module.rpartition("/")[2]}/{name}'
  for marks, kind in _ATTENTION_MARKS:
    if any(mark in layer for mark in marks):
      return kind
  raise _unrecognized(module, name)


def _unrecognized(module: str, name: str) -> ValueError:
  return ValueError(f'The name of the parameter {module[1:]}/{name} does not tell its type.')


def _build(definition: WorkloadDefinition, task: TaskCode, dtype: Any) -> nn.Module:
  return build(definition, task, dtype, nn.Module)


def _example_batch(definition: WorkloadDefinition, task: TaskCode) -> Batch:
  return task.data.fake_batch(definition, 1, 0)


def _init_variables(model: nn.Module, task: TaskCode, rng: Any, batch: Batch) -> Any:
  init = nn.init(task.model.forward, model)
  return init({'params': rng}, batch, train=False, use_running_average=True, dropout_rate=0.0)
