"""Mixtures of experts: both frameworks against a plain loop over tokens and experts."""

from __future__ import annotations

import functools
import importlib
import itertools
from dataclasses import replace
from typing import Any

import experts_twin as twin
import numpy as np
import pytest

from algorithmic_efficiency.layers import slots, twins
from algorithmic_efficiency.layers.configs import ExpertsConfig, FeedForwardConfig

FRAMEWORKS = ['jax', 'torch']
TOKENS, DIM, HIDDEN = 70, 8, 6
CLOSE = {'rtol': 1e-9, 'atol': 1e-12}

_EXPERT = FeedForwardConfig(hidden_dim=HIDDEN, activation='silu', gate='input', use_bias=False)
BASE = ExpertsConfig(num_experts=4, top_k=2, expert=_EXPERT)
CONFIGS = {
  'two of four': BASE,
  'one of four': replace(BASE, top_k=1),
  'all': replace(BASE, top_k=4),
  'without gate': replace(BASE, expert=replace(_EXPERT, gate='none', activation='relu2')),
  'gate of hidden units': replace(BASE, expert=replace(_EXPERT, gate='hidden')),
  'more experts than tokens': replace(BASE, num_experts=90),
  'capacity': replace(BASE, capacity_factor=0.7),
  'capacity, one of four': replace(BASE, top_k=1, capacity_factor=1.0),
}

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)
_IN_DEFAULT_RUN = ('two of four', 'one of four', 'capacity', 'without gate')
each_config = pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in _IN_DEFAULT_RUN else [pytest.mark.slow])
    for name in CONFIGS
  ],
)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def params_of(config: ExpertsConfig) -> dict[str, Any]:
  """Parameters of the flax layer; of the router such that experts tie for some tokens."""
  expert = config.expert
  router = draw(DIM, config.num_experts, seed=1)
  router[:, 1] = router[:, 0]
  gate_dim = DIM if expert.gate == 'input' else expert.hidden_dim
  kernels = {
    'first': draw(config.num_experts, DIM, expert.first_dim, seed=2),
    'gate': draw(config.num_experts, gate_dim, expert.hidden_dim, seed=3),
    'last': draw(config.num_experts, expert.hidden_dim, DIM, seed=4),
  }
  if expert.gate == 'none':
    del kernels['gate']
  return {'router': {'kernel': router}, 'experts': kernels}


X = draw(TOKENS, DIM, seed=5)
IS_TOKEN = np.arange(TOKENS) % 7 != 3
COTANGENT = draw(TOKENS, DIM, seed=6)


class Layer:
  """The layer of one framework with given parameters, in float64."""

  def __init__(self, framework: str, config: ExpertsConfig):
    pytest.importorskip(framework)
    self.config = config
    self.layers = importlib.import_module(f'algorithmic_efficiency.layers.{framework}')
    self._run = getattr(self, f'_in_{framework}')
    self._compiled: dict[bool, Any] = {}

  def __call__(self, x=X, is_token=IS_TOKEN, *, params=None, train=True) -> dict[str, Any]:
    """Output, routes, losses, statistics; gradients of the output times the cotangent, and of the
    auxiliary losses."""
    params = params_of(self.config) if params is None else params
    return self._run(params, x, is_token, train)

  def _in_jax(self, params, x, is_token, train):
    import jax

    layer = self.layers.Experts(self.config, np.float64)
    cotangent = np.resize(COTANGENT, x.shape)

    def run(params, x, is_token):
      out, routes = layer.apply({'params': params}, x, is_token, train=train)
      losses = self.layers.router_losses([routes, routes])
      found = {
        'out': out,
        'routes': routes._asdict(),
        'losses': losses,
        'statistics': self.layers.router_statistics([routes], 2),
      }
      return (out * cotangent).sum() + sum(losses.values()), found

    with jax.enable_x64(True):
      if train not in self._compiled:
        differentiate = jax.grad(run, argnums=(0, 1), has_aux=True)
        self._compiled[train] = jax.jit(differentiate)
      gradients, found = self._compiled[train](params, x, is_token)
    found['gradients'], found['of_x'] = gradients
    return jax.tree.map(np.asarray, found)

  def _in_torch(self, params, x, is_token, train):
    import torch
    from torch.utils import _pytree as tree

    layer = self.layers.Experts(self.config, dim=DIM, dtype=torch.float64)
    pairs = twins.experts('', '', self.config)
    state = {name: torch.tensor(array) for name, array in twins.to_torch(pairs, params, {}).items()}
    layer.load_state_dict(state)
    x = torch.tensor(x, requires_grad=True)
    out, routes = layer(x, torch.tensor(is_token), train=train)
    losses = self.layers.router_losses([routes, routes])
    total = (out * torch.tensor(np.resize(COTANGENT, x.shape))).sum() + sum(losses.values())
    total.backward()
    found = {
      'out': out,
      'routes': routes._asdict(),
      'losses': losses,
      'statistics': self.layers.router_statistics([routes], 2),
      'of_x': x.grad,
    }
    found = tree.tree_map(lambda x: x.detach().numpy(), found)
    of_params = {name: one.grad.numpy() for name, one in layer.named_parameters()}
    found['gradients'] = twins.to_jax(pairs, of_params)[0]
    return found


@functools.cache
def layer_of(framework: str, name: str) -> Layer:
  return Layer(framework, CONFIGS[name])


@functools.cache
def outcome(framework: str, name: str) -> dict[str, Any]:
  """That of a training step on the inputs and parameters above."""
  return layer_of(framework, name)()


# Against the plain loop.


@each_config
@each_framework
def test_the_output_is_that_of_a_plain_loop(framework, name):
  config, found = CONFIGS[name], outcome(framework, name)['out']
  expected = twin.experts(config, params_of(config), X, IS_TOKEN, train=True)
  np.testing.assert_allclose(found, expected, **CLOSE)
  assert not found[~IS_TOKEN].any() and found[IS_TOKEN].any()


@each_framework
def test_evaluation_drops_none(framework):
  config, found = CONFIGS['capacity'], layer_of(framework, 'capacity')(train=False)
  expected = twin.experts(config, params_of(config), X, IS_TOKEN, train=False)
  np.testing.assert_allclose(found['out'], expected, **CLOSE)
  assert found['routes']['is_kept'][IS_TOKEN].all()


@each_config
@each_framework
def test_routes_are_those_of_a_plain_loop(framework, name):
  """Ties, dropped assignments and padding included."""
  config, routes = CONFIGS[name], outcome(framework, name)['routes']
  logits = X @ params_of(config)['router']['kernel']
  found = twin.assignments(logits, IS_TOKEN, config)
  assert {one: routes['experts'][one[:2]] for one in found} == {one: one[2] for one in found}
  left = {one[:2] for one in twin.kept(found, config)}
  is_kept = {one[:2] for one in zip(*np.nonzero(routes['is_kept']), strict=True)}
  assert is_kept == left
  assert (len(left) < len(found)) == (config.capacity_factor is not None)
  np.testing.assert_allclose(routes['probabilities'], twin.probabilities(logits), **CLOSE)


@each_config
@each_framework
def test_losses_and_statistics_are_those_of_a_plain_loop(framework, name):
  config, found = CONFIGS[name], outcome(framework, name)
  logits = X @ params_of(config)['router']['kernel']
  losses = twin.losses(config, [logits, logits], IS_TOKEN)
  assert {key: float(one) for key, one in found['losses'].items()} == pytest.approx(losses)
  load = np.zeros((2, 1, config.num_experts))
  for one in twin.assignments(logits, IS_TOKEN, config):
    load[one[0] // (TOKENS // 2), 0, one[2]] += 1
  statistics = found['statistics']
  np.testing.assert_array_equal(statistics['load'], load)
  np.testing.assert_array_equal(statistics['num_tokens'], IS_TOKEN.reshape(2, -1).sum(1))
  probabilities = twin.probabilities(logits)
  entropy = -(probabilities * np.log(probabilities)).sum(-1) * IS_TOKEN
  np.testing.assert_allclose(statistics['entropy'][:, 0], entropy.reshape(2, -1).sum(1), **CLOSE)


@each_config
def test_both_frameworks_have_the_same_gradients(name):
  jax = pytest.importorskip('jax')
  outcomes = [outcome(framework, name) for framework in FRAMEWORKS]
  parts = [{key: one[key] for key in ('gradients', 'of_x')} for one in outcomes]
  for left, right in zip(*map(jax.tree.leaves, parts), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9 * np.abs(right).max())
    assert np.abs(right).max() > 0


@each_framework
def test_gradients_are_differences(framework):
  """Of the output and of the auxiliary losses, along one direction of all parameters."""
  layer = layer_of(framework, 'two of four')
  params, size = params_of(BASE), 1e-6
  along = {'router': {'kernel': draw(DIM, 4, seed=7)}}
  along['experts'] = {name: draw(*array.shape, seed=8) for name, array in params['experts'].items()}

  def moved(sign: int) -> float:
    there = {
      group: {name: array + sign * size * along[group][name] for name, array in arrays.items()}
      for group, arrays in params.items()
    }
    there['router']['kernel'][:, 1] = there['router']['kernel'][:, 0]  # stays a tie
    found = layer(params=there)
    return float((found['out'] * COTANGENT).sum() + sum(found['losses'].values()))

  along['router']['kernel'][:, 1] = along['router']['kernel'][:, 0]
  gradients = layer()['gradients']
  expected = sum(
    (gradients[group][name] * array).sum()
    for group, arrays in along.items()
    for name, array in arrays.items()
  )
  assert (moved(1) - moved(-1)) / (2 * size) == pytest.approx(expected, rel=1e-6)


# What holds for every router.


@each_framework
def test_the_order_of_the_experts_does_not_matter(framework):
  """Ties apart."""
  layer, params = layer_of(framework, 'two of four'), params_of(BASE)
  params['router']['kernel'][:, 1] = draw(DIM, seed=9)
  order = np.array([2, 0, 3, 1])
  permuted = {
    'router': {'kernel': params['router']['kernel'][:, order]},
    'experts': {name: array[order] for name, array in params['experts'].items()},
  }
  one, other = layer(params=params), layer(params=permuted)
  np.testing.assert_allclose(one['out'], other['out'], **CLOSE)
  for name, loss in one['losses'].items():
    assert other['losses'][name] == pytest.approx(float(loss), rel=1e-12)


@each_framework
def test_a_token_does_not_depend_on_others_where_none_is_dropped(framework):
  other = X.copy()
  other[10:] = draw(TOKENS - 10, DIM, seed=10)
  layer = layer_of(framework, 'two of four')
  one, changed = layer()['out'], layer(other)['out']
  np.testing.assert_allclose(one[:10], changed[:10], **CLOSE)
  assert not np.allclose(one[10:], changed[10:])
  dropping = layer_of(framework, 'capacity')
  assert not np.allclose(dropping()['out'][:10], dropping(other)['out'][:10])


@each_framework
def test_an_even_load_has_a_balance_of_one(framework):
  params = params_of(CONFIGS['one of four'])
  params['router']['kernel'] = 50 * np.eye(DIM, 4)
  x, is_token = np.zeros((TOKENS, DIM)), np.arange(TOKENS) < 40
  x[np.arange(TOKENS), np.arange(TOKENS) % 4] = 1
  losses = layer_of(framework, 'one of four')(x, is_token, params=params)['losses']
  assert losses['balance'] == pytest.approx(1)
  assert losses['router_z'] == pytest.approx(2500)


@each_framework
def test_padding_alone_gives_zeros(framework):
  found = layer_of(framework, 'capacity')(is_token=np.zeros(TOKENS, bool))
  assert not found['out'].any() and found['losses'] == {'balance': 0, 'router_z': 0}
  assert not found['of_x'].any()


def loop(x: np.ndarray, kernels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  bounds = np.cumsum([0, *sizes])
  return np.concatenate(
    [x[start:end] @ kernel for start, end, kernel in zip(bounds, bounds[1:], kernels, strict=False)]
  )


@each_framework
@pytest.mark.parametrize('alignment', [1, 8, 32])
def test_every_grouped_product_is_a_loop_over_groups(framework, alignment):
  """In float32, with its gradients; 1 stands for the framework's own product."""
  pytest.importorskip(framework)
  layers = importlib.import_module(f'algorithmic_efficiency.layers.{framework}')
  sizes = np.array([64, 0, 32, 96, 0])
  x = draw(192, DIM, seed=11).astype(np.float32)
  kernels = draw(5, DIM, 16, seed=12).astype(np.float32)
  cotangent = draw(192, 16, seed=13).astype(np.float32)
  expected = loop(x, kernels, sizes)
  of_x = loop(cotangent, kernels.transpose(0, 2, 1), sizes)
  bounds = np.cumsum([0, *sizes])
  of_kernels = [x[start:end].T @ cotangent[start:end] for start, end in itertools.pairwise(bounds)]
  if framework == 'jax':
    import jax

    found, pull = jax.vjp(
      lambda x, kernels: layers.grouped_matmul(x, kernels, sizes, alignment), x, kernels
    )
    gradients = pull(cotangent)
  else:
    import torch

    given = [torch.tensor(x), torch.tensor(kernels.transpose(0, 2, 1).copy())]
    given = [one.requires_grad_() for one in given]
    found = layers.grouped_matmul(*given, torch.tensor(sizes), alignment)
    found.backward(torch.tensor(cotangent))
    found, gradients = found.detach(), [given[0].grad, given[1].grad.transpose(1, 2)]
  for one, other in zip((found, *gradients), (expected, of_x, of_kernels), strict=True):
    np.testing.assert_allclose(np.asarray(one), other, rtol=1e-5, atol=1e-5)


@each_framework
def test_blocks_and_the_own_product_of_the_framework_give_the_same(framework):
  """Plain kernels are blocks; in PyTorch others are not, on a CPU."""
  layer = layer_of(framework, 'two of four')
  with layer.layers.plain_kernels():
    found = Layer(framework, BASE)()
  for name in ('out', 'of_x'):
    np.testing.assert_allclose(found[name], layer()[name], **CLOSE)


def test_the_own_products_are_used_where_they_are_faster():
  """On a CPU that is so in PyTorch alone: that of JAX multiplies each row with every kernel."""
  jax = pytest.importorskip('jax')
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import _jax_experts, _torch_experts

  if jax.default_backend() == 'cpu':
    assert _jax_experts._num_products_of_row() > 4
    assert not _jax_experts._has_ragged_dot('cpu')
  for dtype, widths, expected in (
    (torch.float32, (64, 64), True),
    (torch.float32, (64, 6), False),
    (torch.float16, (64, 64), False),
  ):
    found = _torch_experts._has_grouped_mm(torch.device('cpu'), dtype, widths)
    assert found == expected, (dtype, widths)


@pytest.mark.parametrize(
  ('num_assignments', 'num_experts', 'expected'),
  [(1_536, 8, 64), (1_536, 32, 32), (8_192, 8, 128), (8_192, 32, 64), (4, 8, 32)],
)
def test_blocks_suit_the_load(num_assignments, num_experts, expected):
  assert slots.block_size(num_assignments, num_experts) == expected


@pytest.mark.parametrize('alignment', [1, 8])
def test_slots_are_enough_and_no_more(alignment):
  """In the worst case, every expert has one assignment beyond a block."""
  for num_experts in (1, 3, 5):
    for blocks in ([0] * num_experts, [2, *[0] * (num_experts - 1)]):
      loads = [alignment * number + 1 for number in blocks]
      needed = sum(-(-load // alignment) * alignment for load in loads)
      assert slots.num_slots(sum(loads), num_experts, alignment) == needed


# Parameters.


@each_framework
def test_each_expert_begins_as_a_layer_of_its_own(framework):
  """Its standard deviation is that of its own inputs; no two are alike."""
  pytest.importorskip(framework)
  layers = importlib.import_module(f'algorithmic_efficiency.layers.{framework}')
  config = replace(BASE, expert=replace(_EXPERT, hidden_dim=256, out_init=0.01))
  if framework == 'jax':
    import jax

    x = np.zeros((2, 64), np.float32)
    layer = layers.Experts(config, np.float32)
    init = jax.jit(lambda key: layer.init(key, x, np.ones(2, bool), train=True))
    variables = init(jax.random.key(0))
    kernels = jax.tree.map(np.asarray, variables['params']['experts'])
  else:
    import torch

    torch.manual_seed(0)
    layer = layers.Experts(config, dim=64, dtype=torch.float32)
    kernels = {
      name: one.detach().numpy().transpose(0, 2, 1)
      for name, one in layer.experts.named_parameters()
    }
  assert {name: one.shape for name, one in kernels.items()} == {
    'first': (4, 64, 256),
    'gate': (4, 64, 256),
    'last': (4, 256, 64),
  }
  for name, stddev in (('first', 1 / 8), ('gate', 1 / 8), ('last', 0.01)):
    np.testing.assert_allclose(kernels[name].std(axis=(1, 2)), stddev, rtol=0.03)
    assert abs(np.corrcoef(kernels[name].reshape(4, -1)) - np.eye(4)).max() < 0.05


@each_framework
def test_the_router_computes_in_float32(framework):
  """Experts compute in bfloat16, in which logits of the router would tie."""
  pytest.importorskip(framework)
  layers = importlib.import_module(f'algorithmic_efficiency.layers.{framework}')
  if framework == 'jax':
    import jax
    import jax.numpy as jnp

    layer = layers.Experts(BASE, jnp.bfloat16)
    (out, routes), variables = jax.eval_shape(
      lambda key: layer.init_with_output(key, X.astype(jnp.bfloat16), IS_TOKEN, train=True),
      jax.random.key(0),
    )
    kinds = [out.dtype, routes.probabilities.dtype, variables['params']['experts']['first'].dtype]
  else:
    import torch

    layer = layers.Experts(BASE, dim=DIM, dtype=torch.bfloat16)
    out, routes = layer(torch.tensor(X, dtype=torch.bfloat16), torch.tensor(IS_TOKEN), train=True)
    kinds = [out.dtype, routes.probabilities.dtype, layer.experts.first.dtype]
  kinds = [str(kind).removeprefix('torch.') for kind in kinds]
  assert kinds == ['bfloat16', 'float32', 'float32']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'top_k': 5}, 'at most all 4; top_k is 5'),
    ({'top_k': 0}, 'at least one expert'),
    ({'capacity_factor': 0.0}, 'must be positive; it is 0.0'),
    ({'expert': replace(_EXPERT, use_bias=True)}, 'no biases'),
  ],
)
def test_impossible_configurations(change, message):
  with pytest.raises(ValueError, match=message):
    replace(BASE, **change)


def test_products_of_the_router_are_in_full_float32_on_every_platform():
  """The default of JAX rounds float32 on GPUs and TPUs; the experts may have it."""
  jax = pytest.importorskip('jax')
  from algorithmic_efficiency.layers import jax as layers

  config = CONFIGS['capacity']
  layer = layers.Experts(config, np.float32)
  is_token = np.ones(TOKENS, bool)
  x = X.astype(np.float32)

  def run(params):
    out, routes = layer.apply({'params': params}, x, is_token, train=True)
    return out.sum() + sum(layers.router_losses([routes]).values())

  params = jax.tree.map(np.float32, params_of(config))
  found = {'router': [], 'experts': []}
  for equation in _products(jax.make_jaxpr(jax.grad(run))(params).jaxpr):
    shapes = [one.aval.shape for one in (*equation.invars, *equation.outvars)]
    owner = 'router' if any(config.num_experts in shape for shape in shapes) else 'experts'
    found[owner].append(equation.params['precision'])
  highest = (jax.lax.Precision.HIGHEST,) * 2
  assert len(found['router']) > 2 and set(found['router']) == {highest}
  assert found['experts'] and highest not in found['experts']


def _products(jaxpr):
  """The products of matrices of a program and of what it calls."""
  from jax.extend import core

  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(inner, core.ClosedJaxpr):
          yield from _products(inner.jaxpr)
        elif isinstance(inner, core.Jaxpr):
          yield from _products(inner)
