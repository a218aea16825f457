"""The decoder: what it sees, how it begins, what its parameters are, in both frameworks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends import module as backend_module
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import chunks
from algorithmic_efficiency.training.options import StepOptions

FRAMEWORKS = {'jax': 'jax', 'pytorch': 'torch'}
BASE = registry.workload('quick_lm')
NAMES = ['quick_lm', *(f'quick_lm_{end}' for end in ('post_ln', 'no_qk_norm', 'untied', 'relu2'))]
BATCH, LENGTH = 4, 16
WORDS = np.array([1, 2], np.uint32)

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


def task_code(framework: str) -> TaskCode:
  pytest.importorskip(FRAMEWORKS[framework])
  return TaskCode.of(BASE, framework)


def batch_of(definition: WorkloadDefinition, seed: int) -> dict[str, np.ndarray]:
  batch = registry.module_of(BASE, 'data').fake_batch(definition, BATCH, seed)
  return {name: batch[name] for name in ('inputs', 'targets')}


class Model:
  """A model with kernels larger than at the beginning, so that all its parts are felt."""

  def __init__(self, definition: WorkloadDefinition, framework: str):
    self.code = task_code(framework).model
    self.definition = definition
    self.losses: Callable[[Any], np.ndarray] = getattr(self, f'_{framework}')()

  def _jax(self) -> Callable[[Any], np.ndarray]:
    import jax
    from flax import linen as nn

    model = self.code.build(self.definition)
    options = {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}

    def init(key: Any) -> Any:
      return nn.init(self.code.forward, model)(key, batch_of(self.definition, 0), **options)

    variables = jax.jit(init)(jax.random.key(0))
    variables = jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, variables)

    @jax.jit
    def losses(batch: Any) -> Any:
      logits = nn.apply(self.code.forward, model)(variables, batch, **options)
      return self.code.loss(self.definition, batch['targets'], logits)['per_example']

    return lambda batch: np.asarray(losses(batch))

  def _pytorch(self) -> Callable[[Any], np.ndarray]:
    import torch

    torch.manual_seed(0)
    model = self.code.build(self.definition)
    with torch.no_grad():
      for parameter in model.parameters():
        parameter.mul_(8 if parameter.dim() > 1 else 1)

    @torch.no_grad()
    def losses(batch: Any) -> Any:
      batch = {name: torch.tensor(array) for name, array in batch.items()}
      logits = self.code.forward(
        model, batch, train=False, use_running_average=True, dropout_rate=0.0
      )
      return self.code.loss(self.definition, batch['targets'], logits)['per_example'].numpy()

    return losses


@pytest.fixture(
  scope='module',
  params=[
    # Parity tests hold that a variant is the same function in JAX, where it compiles for long.
    pytest.param((name, one), marks=[pytest.mark.long] * (one == 'jax' and name != NAMES[0]))
    for name in NAMES
    for one in FRAMEWORKS
  ],
  ids=str,
)
def model(request):
  name, framework = request.param
  return Model(registry.workload(name).for_smoke(), framework)


def changed(batch: dict[str, np.ndarray], where: Any) -> dict[str, np.ndarray]:
  """The batch with another token at `where` among the inputs."""
  inputs = batch['inputs'].copy()
  inputs[where] = (inputs[where] + 1) % 32
  return {**batch, 'inputs': inputs}


def test_a_loss_depends_on_what_came_before_and_on_nothing_else(model):
  """Neither on what follows in the sequence, nor on the other sequences of the batch."""
  batch = batch_of(model.definition, 1)
  before = model.losses(batch)
  for position in (0, 7, LENGTH - 1):
    after = model.losses(changed(batch, (2, position)))
    others = [row for row in range(BATCH) if row != 2]
    np.testing.assert_array_equal(after[others], before[others])
    np.testing.assert_array_equal(after[2, :position], before[2, :position])
    assert (after[2, position:] != before[2, position:]).all()


@pytest.mark.slow
def test_attention_stays_within_a_document_where_segments_say_so(model):
  batch = batch_of(model.definition, 2)
  segments = np.zeros((BATCH, LENGTH), np.int32)
  segments[:, 5:] = 1
  masked = {**batch, 'segments': segments}
  before = model.losses(masked)
  after = model.losses(changed(masked, (0, 3)))
  np.testing.assert_array_equal(after[0, 5:], before[0, 5:])
  assert (after[0, 3:5] != before[0, 3:5]).all()
  # Rotary positions are relative: a document alone is one at the beginning of a window.
  alone = {name: array[:, 5:] for name, array in batch.items()}
  np.testing.assert_allclose(before[:, 5:], model.losses(alone), rtol=1e-3, atol=1e-4)


# Parameters.


@pytest.mark.parametrize('num_heads', [5, 64])
def test_the_width_divides_into_heads_of_an_even_size(num_heads):
  with pytest.raises(ValueError, match=f'64 does not divide into {num_heads} heads'):
    replace(BASE.model, num_heads=num_heads)


@pytest.mark.parametrize(
  ('name', 'least', 'most'),
  [('quick_lm', 1e5, 1e6), ('books_lm', 1e7, 2e7), ('finewebedu_lm', 252_815_372, 252_815_372)],
)
@each_framework
def test_sizes(framework, name, least, most):
  definition = registry.workload(name)
  found = backend_module(framework).parameters(definition, task_code(framework))
  assert least <= sum(math.prod(one.shape) for one in found) <= most


TYPES = {
  'jax': {
    'embed/embedding': 'EMBEDDING',
    'blocks_0/RMSNorm_0/scale': 'LAYER_NORM_SCALE',
    'blocks_0/CausalAttn_0/query/kernel': 'ATTENTION_Q',
    'blocks_0/CausalAttn_0/key/kernel': 'ATTENTION_K',
    'blocks_0/CausalAttn_0/value/kernel': 'ATTENTION_V',
    'blocks_0/CausalAttn_0/attn_scale': 'WEIGHT',
    'blocks_0/CausalAttn_0/attn_out_proj/kernel': 'ATTENTION_OUT',
    'blocks_0/RMSNorm_1/scale': 'LAYER_NORM_SCALE',
    'blocks_0/Mlp_0/Dense_0/kernel': 'WEIGHT',
    'blocks_0/Mlp_0/Dense_1/kernel': 'WEIGHT',
    'out_ln/scale': 'LAYER_NORM_SCALE',
    'output_proj/kernel': 'WEIGHT',
  },
  'pytorch': {
    'embed_tokens.weight': 'EMBEDDING',
    'layers.0.attn.attn_scale': 'WEIGHT',
    'layers.0.attn.w_qkv.weight': 'ATTENTION_QKV',
    'layers.0.attn.w_out.weight': 'ATTENTION_OUT',
    'layers.0.attn_norm.weight': 'LAYER_NORM_SCALE',
    'layers.0.mlp.fc1.weight': 'WEIGHT',
    'layers.0.mlp.fc2.weight': 'WEIGHT',
    'layers.0.mlp_norm.weight': 'LAYER_NORM_SCALE',
    'out_norm.weight': 'LAYER_NORM_SCALE',
    'lm_head.weight': 'WEIGHT',
  },
}
# What the variants lack, by framework.
WITHOUT = {
  'quick_lm': {'jax': {'output_proj/kernel'}, 'pytorch': {'lm_head.weight'}},
  'quick_lm_untied': {'jax': set(), 'pytorch': set()},
  'quick_lm_post_ln': {
    'jax': {'output_proj/kernel', 'out_ln/scale'},
    'pytorch': {'lm_head.weight', 'out_norm.weight'},
  },
  'quick_lm_no_qk_norm': {
    'jax': {'output_proj/kernel', 'blocks_0/CausalAttn_0/attn_scale'},
    'pytorch': {'lm_head.weight', 'layers.0.attn.attn_scale'},
  },
}


@pytest.mark.parametrize('name', WITHOUT)
@each_framework
def test_types_of_parameters(framework, name):
  definition = registry.workload(name).for_smoke()
  definition = replace(definition, model=replace(definition.model, num_layers=1))
  found = backend_module(framework).parameters(definition, task_code(framework))
  expected = TYPES[framework]
  expected = {key: kind for key, kind in expected.items() if key not in WITHOUT[name][framework]}
  assert {one.name: one.type.name for one in found} == expected


def test_a_tied_embedding_is_known_by_both_names_in_pytorch():
  model = task_code('pytorch').model.build(BASE.for_smoke())
  assert model.lm_head.weight is model.embed_tokens.weight
  assert {'embed_tokens.weight', 'lm_head.weight'} <= set(model.state_dict())  # as in AlgoPerf


@each_framework
def test_how_kernels_and_scales_begin(framework):
  definition = replace(BASE.for_smoke(), model=replace(BASE.model, dim=128, num_layers=2))
  code = task_code(framework)
  if framework == 'jax':
    import jax
    from flax import linen as nn

    model = code.model.build(definition)
    options = {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}
    init = nn.init(code.model.forward, model)
    variables = jax.jit(lambda key: init(key, batch_of(definition, 0), **options))(
      jax.random.key(0)
    )
    arrays = {
      jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(variables['params'])
    }
  else:
    import torch

    torch.manual_seed(0)
    named = code.model.build(definition).named_parameters()
    arrays = {name: parameter.detach().numpy() for name, parameter in named}
  residual = ('attn_out_proj/kernel', 'Dense_1/kernel', 'w_out.weight', 'fc2.weight')
  for name, array in arrays.items():
    if name.endswith('attn_scale'):
      assert array == pytest.approx(math.log2(LENGTH**2 - LENGTH))
    elif array.ndim == 1:
      assert (array == 1).all(), name
    else:
      stddev = 0.02 / 2 if name.endswith(residual) else 0.02
      assert array.std() == pytest.approx(stddev, rel=0.05), name
      assert abs(array.mean()) < 0.1 * stddev, name


@pytest.mark.slow
@each_framework
def test_in_bfloat16_logits_are_narrow_and_losses_wide(framework):
  code = task_code(framework)
  definition = BASE.for_smoke()
  batch = batch_of(definition, 3)
  options = {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}
  if framework == 'jax':
    import jax
    from flax import linen as nn

    model = code.model.build(definition, dtype=jax.numpy.bfloat16)
    run = nn.init_with_output(code.model.forward, model)
    logits, _ = jax.jit(lambda key: run(key, batch, **options))(jax.random.key(0))
  else:
    import torch

    batch = {name: torch.tensor(array) for name, array in batch.items()}
    logits = code.model.forward(
      code.model.build(definition, dtype=torch.bfloat16), batch, **options
    )
  loss = code.model.loss(definition, batch['targets'], logits)
  kinds = [logits.dtype, loss['per_example'].dtype]
  assert [str(kind).removeprefix('torch.') for kind in kinds] == ['bfloat16', 'float32']


def start(framework: str) -> tuple[Any, Any]:
  """The backend, and the workload as a submission has it."""
  backend = backends.start(framework, Devices(platform='cpu', num_devices=1))
  return backend, backend.workload(BASE.for_smoke(), task_code(framework), BASE.suites['quick'])


def step_in_jax(options: StepOptions) -> list[Any]:
  """The mean loss of a batch and its gradients, as the steps of the baselines compute them."""
  import jax

  from algorithmic_efficiency.training import jax as training

  backend, workload = start('jax')
  params, _ = workload.init_model_fn(backend.key(WORDS))
  batch = backend.place(batch_of(BASE.for_smoke(), 1))

  @jax.jit
  def step(params: Any, batch: Any) -> Any:
    key = backend.key(WORDS)
    gradients, loss, _ = training.mean_gradients(
      workload, params, batch=batch, rng=key, model_state=None, options=options
    )
    return loss, gradients

  return jax.tree.leaves(step(params, batch))


def step_in_torch(options: StepOptions) -> list[Any]:
  """See `step_in_jax`."""
  from algorithmic_efficiency.training import torch as training

  backend, workload = start('pytorch')
  key = backend.key(WORDS)
  model, _ = workload.init_model_fn(key)
  batch = backend.place(batch_of(BASE.for_smoke(), 1))
  loss = training.fill_gradients(workload, model, batch, key, options, None)
  return [loss, *(parameter.grad for parameter in model.parameters())]


STEPS = {'jax': step_in_jax, 'pytorch': step_in_torch}


@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.slow), 'pytorch'])
def test_a_step_in_chunks_and_in_micro_batches_is_that_of_the_whole(monkeypatch, framework):
  pytest.importorskip(FRAMEWORKS[framework])
  step = STEPS[framework]
  expected = step(StepOptions())
  loss_module = importlib.import_module(
    f'algorithmic_efficiency.layers._{FRAMEWORKS[framework]}_loss'
  )
  in_chunks = mock.Mock(wraps=loss_module._losses_and_gradients)
  monkeypatch.setattr(loss_module, '_losses_and_gradients', in_chunks)
  monkeypatch.setattr(chunks, '_WORK_BYTES', 2_048)
  for num_parts in (1, 2):
    in_chunks.reset_mock()
    found = step(StepOptions(micro_batches=num_parts))
    assert in_chunks.called
    for ours, theirs in zip(found, expected, strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# Second derivatives.


def hessian_products_in_jax(definition: WorkloadDefinition, code: Any) -> dict[str, Any]:
  """Products of the loss's Hessian with one direction, in several ways, and its derivative."""
  import jax
  from flax import linen as nn
  from jax.flatten_util import ravel_pytree

  from algorithmic_efficiency.layers import jax as layers

  options = {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}
  batch = batch_of(definition, 4)
  with jax.enable_x64(True), layers.plain_kernels():
    model = code.build(definition, dtype=jax.numpy.float64)
    init = nn.init(code.forward, model)
    variables = jax.jit(lambda key: init(key, batch, **options))(jax.random.key(0))
    weights, tree_of = ravel_pytree(jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, variables))
    direction = jax.numpy.asarray(direction_of(len(weights)))

    def loss(weights: Any) -> Any:
      logits = nn.apply(code.forward, model)(tree_of(weights), batch, **options)
      return code.loss(definition, batch['targets'], logits)['summed']

    @jax.jit
    def products(weights: Any) -> Any:
      return {
        'gradient': jax.grad(loss)(weights),
        'forward over reverse': jax.jvp(jax.grad(loss), (weights,), (direction,))[1],
        'reverse over reverse': jax.grad(lambda x: jax.grad(loss)(x) @ direction)(weights),
        'forward': jax.jvp(loss, (weights,), (direction,))[1],
      }

    def gradient(step: float) -> jax.Array:
      return products(weights + step * direction)['gradient']

    found = products(weights)
    found['along'] = found.pop('gradient') @ direction
    return found | {'differences': differences(gradient)}


def hessian_products_in_torch(definition: WorkloadDefinition, code: Any) -> dict[str, Any]:
  """See `hessian_products_in_jax`."""
  import torch
  from torch.nn.utils import parameters_to_vector, vector_to_parameters

  from algorithmic_efficiency.layers import torch as layers

  torch.manual_seed(0)
  batch = {name: torch.tensor(array) for name, array in batch_of(definition, 4).items()}
  model = code.build(definition, dtype=torch.float64)
  parameters = list(model.parameters())
  with torch.no_grad():
    for parameter in parameters:
      parameter.mul_(8 if parameter.dim() > 1 else 1)
  weights = parameters_to_vector(parameters).detach()
  direction = torch.tensor(direction_of(len(weights)))

  def gradient(step: float, **options: Any) -> torch.Tensor:
    vector_to_parameters(weights + step * direction, parameters)
    logits = code.forward(model, batch, train=False, use_running_average=True, dropout_rate=0.0)
    loss = code.loss(definition, batch['targets'], logits)['summed']
    return parameters_to_vector(torch.autograd.grad(loss, parameters, **options))

  with layers.plain_kernels():
    found = {'differences': differences(gradient)}
    along = gradient(0.0, create_graph=True) @ direction
    product = torch.autograd.grad(along, parameters)
  return found | {'reverse over reverse': parameters_to_vector(product).detach()}


def direction_of(size: int) -> np.ndarray:
  direction = np.random.default_rng(5).normal(size=size)
  return direction / np.linalg.norm(direction)


def differences(gradient: Callable[[float], Any]) -> np.ndarray:
  """The derivative of the gradient, by central differences of fourth order."""
  near, far = (np.asarray(gradient(h)) - np.asarray(gradient(-h)) for h in (1e-3, 2e-3))
  return (8 * near - far) / 12e-3


IN_JAX = pytest.param('jax', marks=pytest.mark.slow)


@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_plain_kernels_give_hessian_vector_products(monkeypatch, framework):
  code = task_code(framework).model
  definition = BASE.for_smoke()
  definition = replace(definition, model=replace(definition.model, num_layers=1))
  monkeypatch.setattr(chunks, '_WORK_BYTES', 2_048)  # the loss would be cut
  name = f'hessian_products_in_{FRAMEWORKS[framework]}'
  found = {key: np.asarray(one) for key, one in globals()[name](definition, code).items()}
  expected = found.pop('differences')
  if 'along' in found:
    assert found.pop('forward') == pytest.approx(found.pop('along'), rel=1e-9)
  largest = abs(expected).max()
  assert largest > 1e-3
  for way, product in found.items():
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-6 * largest, err_msg=way)
