"""The shared PyTorch layers against plain twins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')
from torch import nn  # noqa: E402

from algorithmic_efficiency.layers import torch as layers  # noqa: E402

SHAPES = {layers.BatchNorm1d: (10, 3), layers.BatchNorm2d: (6, 3, 5, 4)}


def random(*shape: int, seed: int = 0, dtype=torch.float64):
  return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_norm(kind=layers.BatchNorm2d):
  """A batch norm whose parameters and statistics are not those of a fresh one."""
  norm = kind(3, momentum=0.1, eps=1e-3, dtype=torch.float64)
  with torch.no_grad():
    norm.weight.copy_(1 + random(3, seed=1).abs())
    norm.bias.copy_(random(3, seed=2))
    norm.running_mean.copy_(random(3, seed=3))
    norm.running_var.copy_(1 + random(3, seed=4).abs())
  return norm


def plain_batch_norm(norm, x, mean, variance):
  shape = [1, -1] + [1] * (x.ndim - 2)
  weight, bias, mean, variance = (
    np.reshape(one, shape)
    for one in (norm.weight.detach().numpy(), norm.bias.detach().numpy(), mean, variance)
  )
  return (x - mean) / np.sqrt(variance + norm.eps) * weight + bias


@pytest.fixture(params=SHAPES, ids=lambda kind: kind.__name__)
def normed(request):
  """A batch norm, its input in numpy, and the input's mean and biased variance."""
  x = 2 + 3 * random(*SHAPES[request.param], seed=5)
  axes = tuple(axis for axis in range(x.dim()) if axis != 1)
  array = x.numpy()
  return some_norm(request.param), x, array.mean(axes), array.var(axes)


def test_batch_norm_normalises_by_the_batch_and_keeps_the_biased_variance(normed):
  norm, x, mean, variance = normed
  old_mean, old_variance = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
  y = norm(x).detach().numpy()
  np.testing.assert_allclose(y, plain_batch_norm(norm, x.numpy(), mean, variance), rtol=1e-12)
  np.testing.assert_allclose(norm.running_mean, 0.9 * old_mean + 0.1 * mean, rtol=1e-12)
  np.testing.assert_allclose(norm.running_var, 0.9 * old_variance + 0.1 * variance, rtol=1e-12)
  assert norm.num_batches_tracked == 0


def test_batch_norm_takes_the_running_averages_outside_training(normed):
  norm, x, _, _ = normed
  mean, variance = norm.running_mean.numpy().copy(), norm.running_var.numpy().copy()
  expected = plain_batch_norm(norm, x.numpy(), mean, variance)
  np.testing.assert_allclose(norm.eval()(x).detach(), expected, rtol=1e-12)
  np.testing.assert_array_equal(norm.running_mean, mean)
  np.testing.assert_array_equal(norm.running_var, variance)


def test_the_call_decides_over_the_mode(normed):
  norm, x, _, _ = normed
  by_running, by_batch = norm.eval()(x), norm.train()(x)
  norm = some_norm(type(norm))
  assert torch.equal(norm.train()(x, use_running_average=True), by_running)
  assert torch.equal(norm.eval()(x, use_running_average=False), by_batch)


@pytest.mark.parametrize('how', ['update_running_stats', 'momentum'])
def test_running_statistics_can_be_frozen_in_training(normed, how):
  norm, x, mean, variance = normed
  setattr(norm, how, 0)
  before = {name: one.clone() for name, one in norm.named_buffers()}
  y = norm(x).detach().numpy()
  np.testing.assert_allclose(y, plain_batch_norm(norm, x.numpy(), mean, variance), rtol=1e-12)
  for name, one in norm.named_buffers():
    assert torch.equal(one, before[name])


def test_batch_norm_of_values_far_from_zero_is_accurate_in_float32():
  x = 1_000 + random(64, 3, 4, 4, dtype=torch.float32)
  y = layers.BatchNorm2d(3)(x).detach().numpy()
  exact = x.numpy().astype(np.float64)
  deviation = exact - exact.mean((0, 2, 3), keepdims=True)
  expected = deviation / np.sqrt(exact.var((0, 2, 3), keepdims=True) + 1e-5)
  np.testing.assert_allclose(y, expected, atol=1e-3)


def test_batch_norm_keeps_statistics_in_float32_for_bfloat16_images():
  x = 2 + 3 * random(16, 3, 4, 4, dtype=torch.float32)
  norm, wide = layers.BatchNorm2d(3), layers.BatchNorm2d(3)
  assert norm(x.bfloat16()).dtype == torch.bfloat16
  wide(x.bfloat16().float())
  assert norm.running_var.dtype == torch.float32
  torch.testing.assert_close(norm.running_var, wide.running_var, rtol=1e-4, atol=0)


def test_entries_find_batch_norms_by_their_class_and_buffers():
  for kind, parent in ((layers.BatchNorm1d, nn.BatchNorm1d), (layers.BatchNorm2d, nn.BatchNorm2d)):
    norm = kind(3)
    assert isinstance(norm, parent)
    assert [name for name, _ in norm.named_buffers()] == [
      'running_mean',
      'running_var',
      'num_batches_tracked',
    ]


@pytest.mark.slow
def test_statistics_over_ranks_are_those_of_the_global_batch(tmp_path):
  """Two ranks, with unequal numbers of rows, against one process with all of them."""
  norm, bounds = some_norm(), [0, 2, 6]
  x, cotangent = 2 + 3 * random(*SHAPES[layers.BatchNorm2d]), random(6, 3, 5, 4, seed=6)
  norm.eps = layers.BatchNorm2d(3).eps
  case = {'x': x, 'cotangent': cotangent, 'bounds': bounds, 'state': norm.state_dict()}
  torch.save(case, tmp_path / 'case.pt')
  script = Path(__file__).with_name('batch_norm_rank.py')
  environment = {**os.environ, 'PYTHONPATH': str(Path(layers.__file__).parents[2])}
  ranks = [
    subprocess.Popen([sys.executable, script, str(rank), '2', tmp_path], env=environment)
    for rank in range(2)
  ]
  assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
  parts = [torch.load(tmp_path / f'rank_{rank}.pt') for rank in range(2)]

  x.requires_grad_()
  y = norm(x)
  (y * cotangent).sum().backward()
  close = {'rtol': 1e-10, 'atol': 1e-12}
  torch.testing.assert_close(torch.cat([one['y'] for one in parts]), y.detach(), **close)
  torch.testing.assert_close(torch.cat([one['x_gradient'] for one in parts]), x.grad, **close)
  # Of parameters each rank has the gradient of its own rows; their sum is the whole one.
  gradient = sum(one['weight_gradient'] for one in parts)
  torch.testing.assert_close(gradient, norm.weight.grad, **close)
  for part in parts:
    torch.testing.assert_close(part['state'], norm.state_dict(), **close)


@pytest.mark.parametrize('shape', [(400, 64), (64, 16, 3, 3)])
def test_weights_begin_truncated_normal_of_variance_one_over_fan_in(shape):
  torch.manual_seed(0)
  weight = torch.empty(shape)
  layers.lecun_normal_(weight)
  fan_in = np.prod(shape[1:])
  stddev = 1 / np.sqrt(fan_in)
  assert weight.std().item() == pytest.approx(stddev, rel=0.02)
  assert weight.mean().item() == pytest.approx(0, abs=0.02 * stddev)
  largest = weight.abs().max().item()
  assert 1.9 * stddev / 0.8796 < largest <= 2 * stddev / 0.8796 * (1 + 1e-6)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32, torch.float64])
def test_linear_and_convolution_compute_in_their_type(dtype):
  linear = layers.Linear(5, 4, dtype=dtype)
  conv = layers.Conv2d(3, 4, 3, stride=2, padding=1, dtype=dtype)
  for layer, plain, x in (
    (linear, nn.functional.linear, random(2, 5)),
    (conv, lambda *a: nn.functional.conv2d(*a, stride=2, padding=1), random(2, 3, 8, 8)),
  ):
    assert not layer.bias.any()
    nn.init.normal_(layer.bias)
    y = layer(x)
    assert y.dtype == dtype
    expected = plain(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
    assert torch.equal(y, expected)
