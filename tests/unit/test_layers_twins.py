"""The map between the weights of two frameworks, and the activations that both know."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from algorithmic_efficiency.layers import twins
from algorithmic_efficiency.layers.configs import AttentionConfig, AttentionNames

PAIRS = [*twins.conv2d('Conv_0', 'conv', bias=False), *twins.batch_norm('Norm', 'bn')]
PARAMS = {
  'Conv_0': {'kernel': np.arange(24.0).reshape(1, 2, 3, 4)},
  'Norm': {'scale': np.full(4, 1.0), 'bias': np.full(4, 2.0)},
}
STATE = {'batch_stats': {'Norm': {'mean': np.full(4, 3.0), 'var': np.full(4, 4.0)}}}


def test_kernels_are_transposed_and_state_is_found():
  result = twins.to_torch(PAIRS, PARAMS, STATE)
  assert result['conv.weight'].shape == (4, 3, 1, 2)
  assert result['conv.weight'][3, 2, 0, 1] == PARAMS['Conv_0']['kernel'][0, 1, 2, 3]
  assert [result[f'bn.{name}'][0] for name in ('weight', 'bias', 'running_mean')] == [1, 2, 3]
  assert result['bn.num_batches_tracked'] == 0


def test_there_and_back():
  params, state = twins.to_jax(PAIRS, twins.to_torch(PAIRS, PARAMS, STATE))
  np.testing.assert_equal(params, PARAMS)
  np.testing.assert_equal(state, STATE)


def test_dense_kernels_are_transposed():
  kernel = np.arange(6.0).reshape(2, 3)
  pairs = twins.dense('Dense_0', 'fc', bias=False)
  result = twins.to_torch(pairs, {'Dense_0': {'kernel': kernel}}, None)
  np.testing.assert_array_equal(result['fc.weight'], kernel.T)
  assert twins.to_jax(pairs, result)[1] == {}


def test_projections_to_heads_are_merged_and_joined():
  random = np.random.default_rng(0)
  kernels = {name: random.normal(size=(5, 2, 3)) for name in ('query', 'key')}
  params = {name: {'kernel': kernel} for name, kernel in kernels.items()}
  pairs = twins.projections(('query', 'key'), 'w', heads=2)
  result = twins.to_torch(pairs, params, None)
  assert result['w.weight'].shape == (12, 5)
  x = random.normal(size=5)
  heads = (result['w.weight'] @ x).reshape(2, 2, 3)  # which projection, head, element
  for found, kernel in zip(heads, kernels.values(), strict=True):
    np.testing.assert_allclose(found, np.einsum('d,dhe->he', x, kernel))
  np.testing.assert_equal(twins.to_jax(pairs, result)[0], params)


def test_attention_with_fewer_heads_of_keys_goes_there_and_back():
  """One layer for all projections, with biases, and an output kernel by heads."""
  random = np.random.default_rng(0)
  config = AttentionConfig(num_heads=4, head_dim=3, num_kv_heads=2, use_bias=True)
  heads = {'query': 4, 'key': 2, 'value': 2}
  params = {
    name: {'kernel': random.normal(size=(5, num, 3)), 'bias': random.normal(size=(num, 3))}
    for name, num in heads.items()
  }
  params['out'] = {'kernel': random.normal(size=(4, 3, 5)), 'bias': random.normal(size=5)}
  names = AttentionNames(query='w', key='w', value='w', out='w_out')
  pairs = twins.attention(
    'attention', 'attn', config, jax_names=AttentionNames(), torch_names=names
  )
  result = twins.to_torch(pairs, {'attention': params}, None)
  x, hidden = random.normal(size=5), random.normal(size=(4, 3))
  parts = np.split(result['attn.w.weight'] @ x + result['attn.w.bias'], [12, 18])
  for part, (name, num) in zip(parts, heads.items(), strict=True):
    kernel, bias = params[name]['kernel'], params[name]['bias']
    np.testing.assert_allclose(part.reshape(num, 3), np.einsum('d,dhe->he', x, kernel) + bias)
  found = result['attn.w_out.weight'] @ hidden.ravel()
  np.testing.assert_allclose(found, np.einsum('he,hed->d', hidden, params['out']['kernel']))
  np.testing.assert_equal(twins.to_jax(pairs, result)[0], {'attention': params})


def test_a_tied_array_has_two_names_in_pytorch_and_one_value():
  pairs = [twins.same('embed/embedding', name) for name in ('embed.weight', 'head.weight')]
  params = {'embed': {'embedding': np.arange(6.0).reshape(3, 2)}}
  result = twins.to_torch(pairs, params, None)
  assert set(result) == {'embed.weight', 'head.weight'}
  np.testing.assert_equal(twins.to_jax(pairs, result)[0], params)
  with pytest.raises(ValueError, match=r'one value; head.weight differs'):
    twins.to_jax(pairs, {**result, 'head.weight': np.zeros((3, 2))})


def test_an_array_without_a_pair_is_an_error():
  params = {**PARAMS, 'Dense_0': {'kernel': np.ones((2, 3))}}
  with pytest.raises(ValueError, match=r"flax side: \['params/Dense_0/kernel'\]"):
    twins.to_torch(PAIRS, params, STATE)
  with pytest.raises(ValueError, match=r"PyTorch side: \['fc.weight'\]"):
    twins.to_jax(PAIRS, {**twins.to_torch(PAIRS, PARAMS, STATE), 'fc.weight': np.ones(3)})


def test_a_pair_without_an_array_is_an_error():
  with pytest.raises(ValueError, match=r"without an array: .*'batch_stats/Norm/mean'"):
    twins.to_torch(PAIRS, PARAMS, None)
  with pytest.raises(ValueError, match=r"without an array: .*'conv.weight'"):
    twins.to_jax(PAIRS, {})


def test_both_frameworks_know_the_same_activations():
  jax = pytest.importorskip('jax')
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import jax as jax_layers
  from algorithmic_efficiency.layers import torch as torch_layers

  x = np.linspace(-4, 4, 102).astype(np.float32)
  assert set(jax_layers.ACTIVATIONS) == set(torch_layers.ACTIVATIONS)
  for name, activation in jax_layers.ACTIVATIONS.items():
    expected = torch_layers.ACTIVATIONS[name](torch.tensor(x)).numpy()
    np.testing.assert_allclose(jax.device_get(activation(x)), expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('framework', ['jax', 'torch'])
def test_epsilon_bounds_the_length_by_which_a_vector_is_divided(framework):
  """x / sqrt(|x|^2 + epsilon^2), at lengths far below, at, and far above epsilon."""
  pytest.importorskip(framework)
  layers = importlib.import_module(f'algorithmic_efficiency.layers.{framework}')
  array = importlib.import_module({'jax': 'jax.numpy', 'torch': 'torch'}[framework]).asarray
  x = np.array([[3e-5, 4e-5], [3e-3, 4e-3], [3.0, 4.0], [0.0, 0.0]], np.float32)
  squares = (x.astype(np.float64) ** 2).sum(-1, keepdims=True)
  expected = x / np.sqrt(squares + 5e-3**2)
  np.testing.assert_allclose(np.asarray(layers.normalize(array(x), 5e-3)), expected, rtol=1e-5)
