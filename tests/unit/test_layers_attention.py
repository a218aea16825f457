"""The layers of Transformers, in both frameworks, against plain twins in numpy and float64."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import Any

import layer_twin as twin
import numpy as np
import pytest

from algorithmic_efficiency.layers.positions import (
  rotary_table,
  sine_cosine_2d_table,
  sinusoidal_table,
)

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


# Attention.

CASES = {
  'everything': {},
  'causal': {'causal': True},
  'masked': {'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=9) + 9 * np.eye(LENGTH) > 0},
  'masked alike': {'mask': draw(LENGTH, LENGTH, seed=5) > 0.8},
  'masked by head': {'mask': draw(BATCH, HEADS, LENGTH, LENGTH, seed=8) + 9 * np.eye(LENGTH) > 0},
  'causal and masked': {
    'causal': True,
    'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=7) + 9 * np.eye(LENGTH) > 0,
  },
  'causal, and masked so that some see nothing': {
    'causal': True,
    'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=7) > 0.8,
  },
  'biased': {'causal': True, 'bias': draw(1, HEADS, LENGTH, LENGTH, seed=6)},
  'biased and masked': {
    'mask': draw(BATCH, 1, LENGTH, LENGTH, seed=7) > 0.8,
    'bias': draw(1, HEADS, LENGTH, LENGTH, seed=6),
  },
}


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_attention_is_that_of_its_twin(framework, case, dtype):
  """With and without fused kernels."""
  layers = layers_of(framework)
  arrays = [draw(BATCH, LENGTH, HEADS, HEAD_DIM, seed=seed) for seed in range(3)]
  options = {'mask': None, 'bias': None, **CASES[case]}
  mask, bias = options.pop('mask'), options.pop('bias')
  attention = functools.partial(layers.attention, scale=0.7, **options)
  expected = twin.attention(
    *arrays, scale=0.7, mask=mask, bias=0 if bias is None else bias, **options
  )
  for context in (contextlib.nullcontext(), layers.plain_kernels()):
    with context:
      found = call(
        framework,
        lambda q, k, v, m, b: attention(q, k, v, mask=m, bias=b),
        *arrays,
        mask,
        bias,
        dtype=dtype,
      )
    assert_near(found, expected, dtype)


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('kv_heads', [1, 2])
def test_heads_of_keys_serve_several_heads_of_queries(framework, kv_heads):
  layers = layers_of(framework)
  query = draw(BATCH, LENGTH, 4, HEAD_DIM)
  key, value = (draw(BATCH, LENGTH, kv_heads, HEAD_DIM, seed=seed) for seed in (1, 2))
  expected = twin.attention(query, key, value, scale=0.3)
  for context in (contextlib.nullcontext(), layers.plain_kernels()):
    with context:
      attention = functools.partial(layers.attention, scale=0.3)
      found = call(framework, attention, query, key, value, dtype='float32')
    assert_near(found, expected, 'float32')


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_a_sequence_of_one_token_sees_itself(framework):
  layers = layers_of(framework)
  query, key, value = (draw(BATCH, 1, HEADS, HEAD_DIM, seed=seed) for seed in range(3))
  attention = functools.partial(layers.attention, scale=0.3, causal=True)
  assert_near(call(framework, attention, query, key, value, dtype='float32'), value, 'float32')


@pytest.mark.parametrize('is_plain', [False, True])
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_a_query_that_sees_nothing_has_no_gradient_and_spoils_none(framework, is_plain):
  layers = layers_of(framework)
  arrays = [np.float32(draw(1, 3, 1, HEAD_DIM, seed=seed)) for seed in range(3)]
  mask = np.array([[True, True, False], [False] * 3, [True, True, False]])
  with layers.plain_kernels() if is_plain else contextlib.nullcontext():
    if framework == 'jax':
      import jax

      def total(*arrays):
        return layers.attention(*arrays, scale=0.5, mask=mask[None, None]).sum()

      gradients = jax.grad(total, argnums=(0, 1, 2))(*arrays)
    else:
      import torch

      tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
      layers.attention(*tensors, scale=0.5, mask=torch.tensor(mask)[None, None]).sum().backward()
      gradients = [tensor.grad for tensor in tensors]
  of_query, of_key, of_value = map(np.asarray, gradients)
  assert np.isfinite(of_query).all() and not of_query[:, 1].any()
  assert not of_key[:, 2].any() and not of_value[:, 2].any()
  assert of_value[:, :2].sum() == pytest.approx(2 * HEAD_DIM, rel=1e-5)  # of two queries


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_dropout_zeroes_weights_of_the_attention(framework):
  """Values that are one-hot show the weights, which are 1/4 before dropout."""
  layers = layers_of(framework)
  zeros, value = np.zeros((8, 4, 2, 4), np.float32), np.tile(np.eye(4), (8, 2, 1, 1))
  value = np.float32(value).transpose(0, 2, 1, 3)
  for context in (contextlib.nullcontext(), layers.plain_kernels()):
    with context:
      if framework == 'jax':
        import jax

        dropout = functools.partial(layers.Dropout().apply, {}, rate=0.25, train=True)
        out = layers.attention(
          zeros,
          zeros,
          value,
          scale=1.0,
          dropout=lambda x, drop=dropout: drop(x, rngs={'dropout': jax.random.key(0)}),
        )
      else:
        import torch

        torch.manual_seed(0)
        arrays = [torch.tensor(array) for array in (zeros, zeros, value)]
        out = layers.attention(*arrays, scale=1.0, dropout_rate=0.25)
    out = np.asarray(out)
    np.testing.assert_allclose(np.unique(out.round(5)), [0, 1 / 3], atol=1e-5)
    assert (out == 0).mean() == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_masks_of_segments_and_padding(framework):
  layers = layers_of(framework)
  array = importlib.import_module({'jax': 'jax.numpy', 'torch': 'torch'}[framework]).asarray
  queries, keys = array([[1, 1, 2, 0]]), array([[1, 2, 2]])
  of_itself, of_others = layers.segment_mask(queries), layers.segment_mask(queries, keys)
  assert np.asarray(of_itself).astype(int).tolist() == [
    [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
  ]
  assert np.asarray(of_others).astype(int).tolist() == [
    [[[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]]]
  ]
  mask = layers.padding_mask(keys > 1)
  assert np.asarray(mask).tolist() == [[[[False, True, True]]]]


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_queries_may_be_more_or_fewer_than_keys(framework):
  layers = layers_of(framework)
  query, key, value = (
    draw(BATCH, length, HEADS, HEAD_DIM, seed=length) for length in (5, LENGTH, LENGTH)
  )
  attention = functools.partial(layers.attention, scale=0.3)
  found = call(framework, attention, query, key, value, dtype='float32')
  assert_near(found, twin.attention(query, key, value, scale=0.3), 'float32')


# Positions.


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_rotary_positions_are_those_of_their_twin(framework, dtype):
  layers = layers_of(framework)
  x = draw(BATCH, LENGTH, HEADS, HEAD_DIM)
  table = rotary_table(2 * LENGTH, HEAD_DIM, 100.0)
  found = call(framework, layers.rotate, x, table, dtype=dtype)
  assert_near(found, twin.rotation(x, 100.0), dtype)


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_rotary_positions_may_be_given(framework):
  layers = layers_of(framework)
  x = draw(BATCH, LENGTH, HEADS, HEAD_DIM)
  table = rotary_table(2 * LENGTH, HEAD_DIM, 100.0)
  positions = np.random.default_rng(3).integers(0, 2 * LENGTH, (BATCH, LENGTH))

  def rotate(x, table):
    array = positions if framework == 'jax' else layers_of('torch').torch.tensor(positions)
    return layers.rotate(x, table, array)

  found = call(framework, rotate, x, table, dtype='float32')
  for row in range(BATCH):
    long = np.zeros((1, 2 * LENGTH, HEADS, HEAD_DIM))
    for position, place in enumerate(positions[row]):
      long[0, place] = x[row, position]
      turned = twin.rotation(long, 100.0)[0, place]
      assert_near(found[row, position], turned, 'float32')


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


def test_sinusoidal_positions_are_those_of_the_formula():
  """Sines of all frequencies, then cosines; the slowest turns by 1e-4 radians a position."""
  length, dim = 40, 10
  table = sinusoidal_table(length, dim)
  for position, i in np.ndindex(length, dim // 2):
    angle = position * 10_000 ** (-i / (dim // 2 - 1))
    expected = [np.sin(angle), np.cos(angle)]
    np.testing.assert_allclose(table[position, [i, dim // 2 + i]], expected, atol=1e-12)
  np.testing.assert_array_equal(sinusoidal_table(length, dim + 1)[:, :dim], table)
  assert not sinusoidal_table(length, dim + 1)[:, dim].any()
  with pytest.raises(ValueError, match='at least 4; it is 3'):
    sinusoidal_table(length, 3)


def test_positions_of_patches_are_those_of_the_formula():
  height, width, dim = 3, 4, 12
  table = sine_cosine_2d_table(height, width, dim)
  for row, column, i in np.ndindex(height, width, dim // 4):
    x, y = (place * 10_000 ** (-i / (dim // 4 - 1)) for place in (column, row))
    found = table[row * width + column].reshape(4, -1)[:, i]
    np.testing.assert_allclose(found, [np.sin(x), np.cos(x), np.sin(y), np.cos(y)], atol=1e-12)
  for wrong in (4, 10):
    with pytest.raises(ValueError, match=f'it is {wrong}'):
      sine_cosine_2d_table(height, width, wrong)


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


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_layer_norm_is_that_of_its_twin(framework, dtype):
  """Of values far from 0, whose variance E[x^2] - E[x]^2 would lose."""
  layers = layers_of(framework)
  far = 1_000 if dtype == 'float32' else 0
  x, scale, bias = far + draw(BATCH, LENGTH, 64), draw(64, seed=1), draw(64, seed=2)
  params = {'scale': scale, 'bias': bias}
  expected = twin.norm('layer', params, x, EPSILON)
  if framework == 'jax':
    import jax

    norm = layers.LayerNorm(epsilon=EPSILON, **layers.types(getattr(jax.numpy, dtype)))
    variables = {'params': {name: jax.numpy.float32(one) for name, one in params.items()}}
    found = call(framework, lambda x: norm.apply(variables, x), x, dtype=dtype)
  else:
    import torch

    module = layers.LayerNorm(64, epsilon=EPSILON, dtype=getattr(torch, dtype))
    assert {one.dtype for one in module.parameters()} == {torch.float32}
    module.load_state_dict({'weight': torch.tensor(scale), 'bias': torch.tensor(bias)})
    found = call(framework, module, x, dtype=dtype)
  rounding = 100 if dtype == 'float32' else 1  # that of x itself
  np.testing.assert_allclose(found, expected, atol=rounding * TOLERANCE[dtype] * 5)


# Activations, embeddings and patches.


@pytest.mark.parametrize('name', [*twin.ACTIVATIONS, 'glu'])
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_activations_are_those_of_their_twins(framework, name):
  layers = layers_of(framework)
  x = np.linspace(-4, 4, 102)
  found = call(framework, layers.ACTIVATIONS[name], x, dtype='float32')
  assert_near(found, twin.activation(name, x), 'float32')


@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_patches_are_embedded_row_by_row(framework):
  """Kernels are [height, width, channels, dim] in flax, as AlgoPerf has them."""
  layers = layers_of(framework)
  size, channels, dim = 2, 3, 5
  image, kernel = draw(BATCH, 4, 6, channels), draw(size, size, channels, dim, seed=1)
  bias = draw(dim, seed=2)
  patches = [
    image[:, row : row + size, column : column + size]
    for row in range(0, 4, size)
    for column in range(0, 6, size)
  ]
  expected = np.stack([np.einsum('bhwc,hwcd->bd', p, kernel) + bias for p in patches], axis=1)
  if framework == 'jax':
    import jax

    layer = layers.patch_embedding(dim, patch_size=size, dtype=jax.numpy.float32)
    variables = {'params': {'kernel': np.float32(kernel), 'bias': np.float32(bias)}}
    shapes = jax.eval_shape(layer.init, jax.random.key(0), np.float32(image))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)
    run = functools.partial(layer.apply, variables)
  else:
    import torch

    image = image.transpose(0, 3, 1, 2)
    run = layers.PatchEmbedding(channels, dim, patch_size=size, dtype=torch.float32)
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
    run.load_state_dict({'weight': weight, 'bias': torch.tensor(bias)})
  assert_near(call(framework, run, image, dtype='float32'), expected, 'float32')
  with pytest.raises(ValueError, match=r'Patches of 2 pixels must divide an image'):
    call(
      framework, run, image[:, 1:, 1:] if framework == 'jax' else image[..., 1:], dtype='float32'
    )


def test_gradients_of_an_embedding_are_summed_in_float32():
  """In bfloat16 a sum of ones stops at 256."""
  layers = layers_of('torch')
  import torch

  embedding = layers.Embedding(3, 2, stddev=0.02, dtype=torch.bfloat16)
  vectors = embedding(torch.ones(1_000, dtype=torch.int64))
  assert vectors.dtype == torch.bfloat16
  vectors.sum().backward()
  np.testing.assert_array_equal(embedding.weight.grad[1].numpy(), [1_000, 1_000])
