"""The layers of Transformers, in both frameworks, against plain twins in numpy and float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency.layers.configs import FeedForwardConfig
from algorithmic_efficiency.layers.positions import rotary_table

FRAMEWORKS = ['jax', 'torch']
BATCH, LENGTH, HEADS, HEAD_DIM = 2, 7, 3, 8
EPSILON = 1e-6
# Rounding of float32 and of bfloat16 in what these layers compute, relative to the largest output.
TOLERANCE = {'float32': 2e-6, 'bfloat16': 2e-2}


def layers_of(framework: str) -> Any:
  pytest.importorskip(framework)
  if framework == 'jax':
    from algorithmic_efficiency.layers import jax as layers
  else:
    from algorithmic_efficiency.layers import torch as layers  # type: ignore[no-redef]
  return layers


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


def call(framework: str, function: Callable[..., Any], *arrays: Any, dtype: str) -> np.ndarray:
  """The function's output as float64, of arrays that are cast to `dtype` where they are floats."""
  if framework == 'jax':
    import jax

    to_framework, name = jax.numpy.asarray, getattr(jax.numpy, dtype)
  else:
    import torch

    to_framework, name = torch.tensor, getattr(torch, dtype)

  def cast(x: Any) -> Any:
    if x is None or x.dtype.kind == 'b':
      return None if x is None else to_framework(x)
    return to_framework(x, dtype=name)

  out = function(*map(cast, arrays))
  assert out.dtype == name
  return np.asarray(out.astype('float32') if framework == 'jax' else out.detach().float(), float)


def assert_near(found: np.ndarray, expected: np.ndarray, dtype: str) -> None:
  np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * abs(expected).max())


# Twins, a position, a head, a token at a time.


def plain_attention(query, key, value, *, scale, causal=False, mask=None):
  out = np.zeros((*query.shape[:3], value.shape[-1]))
  for batch, position, head in np.ndindex(*query.shape[:3]):
    scores = scale * key[batch, :, head] @ query[batch, position, head]
    sees = np.ones(key.shape[1], bool)
    if causal:
      sees &= np.arange(key.shape[1]) <= position
    if mask is not None:
      shape = (len(query), query.shape[2], query.shape[1], key.shape[1])
      sees &= np.broadcast_to(mask, shape)[batch, head, position]
    weights = np.where(sees, np.exp(scores - scores[sees].max()), 0)
    out[batch, position, head] = weights @ value[batch, :, head] / weights.sum()
  return out


def plain_rotation(x, theta):
  out = np.zeros_like(x)
  for batch, position, head in np.ndindex(*x.shape[:3]):
    for pair in range(x.shape[-1] // 2):
      turn = np.exp(1j * position * theta ** (-2 * pair / x.shape[-1]))
      here = (batch, position, head, slice(2 * pair, 2 * pair + 2))
      turned = turn * complex(*x[here])
      out[here] = turned.real, turned.imag
  return out


# Attention.

CASES = {
  'everything': {},
  'causal': {'causal': True},
  'masked': {'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=9) + 9 * np.eye(LENGTH) > 0},
  'masked by head': {'mask': draw(BATCH, HEADS, LENGTH, LENGTH, seed=8) + 9 * np.eye(LENGTH) > 0},
  'causal and masked': {
    'causal': True,
    'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=7) + 9 * np.eye(LENGTH) > 0,
  },
}


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_attention_is_that_of_its_twin(framework, case, dtype):
  layers = layers_of(framework)
  arrays = [draw(BATCH, LENGTH, HEADS, HEAD_DIM, seed=seed) for seed in range(3)]
  options = {'mask': None, **CASES[case]}
  mask = options.pop('mask')
  attention = functools.partial(layers.attention, scale=0.7, **options)
  found = call(framework, lambda q, k, v, m: attention(q, k, v, mask=m), *arrays, mask, dtype=dtype)
  assert_near(found, plain_attention(*arrays, scale=0.7, mask=mask, **options), dtype)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_queries_may_be_more_or_fewer_than_keys(framework):
  layers = layers_of(framework)
  query, key, value = (
    draw(BATCH, length, HEADS, HEAD_DIM, seed=length) for length in (5, LENGTH, LENGTH)
  )
  attention = functools.partial(layers.attention, scale=0.3)
  found = call(framework, attention, query, key, value, dtype='float32')
  assert_near(found, plain_attention(query, key, value, scale=0.3), 'float32')


# Positions.


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_rotary_positions_are_those_of_their_twin(framework, dtype):
  layers = layers_of(framework)
  x = draw(BATCH, LENGTH, HEADS, HEAD_DIM)
  table = rotary_table(2 * LENGTH, HEAD_DIM, 100.0)
  found = call(framework, layers.rotate, x, table, dtype=dtype)
  assert_near(found, plain_rotation(x, 100.0), dtype)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_products_of_rotated_vectors_depend_on_their_distance_alone(framework):
  layers = layers_of(framework)
  query, key = (np.tile(draw(HEAD_DIM, seed=seed), (1, 1_000, 1, 1)) for seed in (1, 2))
  table = rotary_table(1_000, HEAD_DIM, 500_000.0)
  query, key = (call(framework, layers.rotate, x, table, dtype='float32') for x in (query, key))
  for distance in (0, 1, 900):
    products = np.einsum('ld,ld->l', query[0, distance:, 0], key[0, : 1_000 - distance, 0])
    np.testing.assert_allclose(products, products[0], atol=5e-6)


def test_rotary_tables_need_pairs():
  with pytest.raises(ValueError, match='even head_dim; it is 7'):
    rotary_table(4, 7, 100.0)


# Norms.


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_normalize_gives_length_one(framework):
  layers = layers_of(framework)
  x = draw(BATCH, LENGTH, HEAD_DIM)
  found = call(framework, lambda x: layers.normalize(x, EPSILON), x, dtype='float32')
  assert_near(found, x / np.linalg.norm(x, axis=-1, keepdims=True), 'float32')


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_normalize_leaves_zero_at_zero_with_a_finite_gradient(framework):
  layers = layers_of(framework)
  if framework == 'jax':
    import jax

    gradient = jax.grad(lambda x: layers.normalize(x, EPSILON).sum())(jax.numpy.zeros(4))
  else:
    import torch

    x = torch.zeros(4, requires_grad=True)
    layers.normalize(x, EPSILON).sum().backward()
    gradient = x.grad
  assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_rms_norm_is_that_of_its_twin(framework, dtype):
  """Of values whose squares a bfloat16 or a float16 could not sum."""
  layers = layers_of(framework)
  x, scale = 300 * draw(BATCH, LENGTH, 64), draw(64, seed=1)
  expected = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + EPSILON) * scale
  if framework == 'jax':
    import jax
    from flax import linen as nn

    norm = nn.RMSNorm(epsilon=EPSILON, **layers.types(getattr(jax.numpy, dtype)))
    variables = {'params': {'scale': jax.numpy.asarray(scale, 'float32')}}
    found = call(framework, lambda x: norm.apply(variables, x), x, dtype=dtype)
  else:
    import torch

    module = layers.RMSNorm(64, epsilon=EPSILON, dtype=getattr(torch, dtype))
    assert module.weight.dtype == torch.float32
    module.load_state_dict({'weight': torch.tensor(scale)})
    found = call(framework, module, x, dtype=dtype)
  assert_near(found, expected, dtype)


# The MLP and the embedding.


def plain_mlp(x, first, second, activation):
  hidden = x @ first
  if activation == 'glu':
    value, gate = np.split(hidden, 2, axis=-1)
    hidden = value / (1 + np.exp(-gate))
  else:
    hidden = np.maximum(hidden, 0) ** 2
  return hidden @ second


@pytest.mark.parametrize('activation', ['glu', 'relu2'])
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_the_mlp_is_that_of_its_twin(framework, activation):
  layers = layers_of(framework)
  dim, hidden_dim = 6, 10
  x = draw(BATCH, LENGTH, dim)
  first = draw(dim, hidden_dim * (2 if activation == 'glu' else 1), seed=1)
  second = draw(hidden_dim, dim, seed=2)
  config = FeedForwardConfig(hidden_dim=hidden_dim, activation=activation, use_bias=False)
  if framework == 'jax':
    import jax

    module = layers.FeedForward(config, jax.numpy.float32)
    params = {'Dense_0': {'kernel': np.float32(first)}, 'Dense_1': {'kernel': np.float32(second)}}
    found = call(framework, lambda x: module.apply({'params': params}, x), x, dtype='float32')
  else:
    import torch

    module = layers.FeedForward(config, dim=dim, dtype=torch.float32)
    weights = {'linear1.weight': torch.tensor(first.T), 'linear2.weight': torch.tensor(second.T)}
    module.load_state_dict(weights)
    found = call(framework, module, x, dtype='float32')
  assert_near(found, plain_mlp(x, first, second, activation), 'float32')


def test_gradients_of_an_embedding_are_summed_in_float32():
  """In bfloat16 a sum of ones stops at 256."""
  layers = layers_of('torch')
  import torch

  embedding = layers.Embedding(3, 2, stddev=0.02, dtype=torch.bfloat16)
  vectors = embedding(torch.ones(1_000, dtype=torch.int64))
  assert vectors.dtype == torch.bfloat16
  vectors.sum().backward()
  np.testing.assert_array_equal(embedding.weight.grad[1].numpy(), [1_000, 1_000])
