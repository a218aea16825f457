"""Plain kernels: where they hold, and what they do not leak."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np
import pytest

FRAMEWORKS = ['jax', 'torch']

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


def modules(framework: str) -> tuple[Any, Any]:
  """The layers, and the module that says whether they are plain."""
  pytest.importorskip(framework)
  name = 'algorithmic_efficiency.layers'
  return (
    importlib.import_module(f'{name}.{framework}'),
    importlib.import_module(f'{name}._{framework}_plain'),
  )


@each_framework
def test_contexts_nest_and_end_with_errors(framework):
  layers, plain = modules(framework)
  assert not plain.is_plain()
  with layers.plain_kernels():
    with layers.plain_kernels():
      assert plain.is_plain()
    assert plain.is_plain()
    with pytest.raises(ZeroDivisionError), layers.plain_kernels():
      raise ZeroDivisionError
    assert plain.is_plain()
  assert not plain.is_plain()
  context = layers.plain_kernels()
  assert not plain.is_plain()
  with context:
    assert plain.is_plain()
  assert not plain.is_plain()


@each_framework
def test_other_threads_keep_their_kernels(framework):
  layers, plain = modules(framework)
  found = []
  with layers.plain_kernels():
    thread = threading.Thread(target=lambda: found.append(plain.is_plain()))
    thread.start()
    thread.join()
  assert found == [False]


def test_a_jitted_function_is_traced_again_within_the_context():
  layers, plain = modules('jax')
  import jax

  seen = []

  @jax.jit
  def function(x):
    seen.append(plain.is_plain())
    return x + 1

  for _ in range(2):
    function(1.0)
    with layers.plain_kernels():
      function(1.0)
  assert seen == [False, True]


def test_compiled_code_reads_no_context_variable():
  layers, _ = modules('torch')
  import torch

  arrays = [torch.randn(1, 4, 2, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]

  def attend(*arrays):
    return layers.attention(*arrays, scale=0.5, causal=True)

  compiled = torch.compile(attend, fullgraph=True, backend='eager')
  torch.testing.assert_close(compiled(*arrays), attend(*arrays))


@each_framework
def test_plain_logits_of_a_large_vocabulary_are_ordinary_ones(framework, monkeypatch):
  layers, _ = modules(framework)
  from algorithmic_efficiency.layers import chunks

  monkeypatch.setattr(chunks, '_WORK_BYTES', 64)
  array = importlib.import_module({'jax': 'jax.numpy', 'torch': 'torch'}[framework]).asarray
  random = np.random.default_rng(0)
  hidden, kernel = (array(np.float32(random.normal(size=s))) for s in ((2, 8, 3), (11, 3)))
  with layers.plain_kernels():
    logits = layers.vocab_logits(hidden, kernel)
  assert type(logits) is type(hidden)
  targets = array(random.integers(0, 11, (2, 8)))
  lazy = layers.vocab_logits(hidden, kernel)
  with layers.plain_kernels():
    losses = [layers.token_loss(targets, one)['per_example'] for one in (logits, lazy)]
  np.testing.assert_allclose(*map(np.asarray, losses), rtol=1e-6)
  np.testing.assert_allclose(
    np.asarray(layers.token_loss(targets, lazy)['per_example']), np.asarray(losses[0]), rtol=1e-5
  )


def test_no_custom_rule_is_traced_within_the_context(monkeypatch):
  layers, _ = modules('jax')
  import jax

  from algorithmic_efficiency.layers import chunks

  monkeypatch.setattr(chunks, '_WORK_BYTES', 64)
  hidden, kernel = np.ones((2, 8, 3), np.float32), np.ones((11, 3), np.float32)
  targets = np.zeros((2, 8), np.int32)

  def loss(hidden):
    return layers.token_loss(targets, layers.vocab_logits(hidden, kernel))['summed']

  assert 'custom_jvp_call' in str(jax.make_jaxpr(loss)(hidden))
  with layers.plain_kernels():
    text = str(jax.make_jaxpr(loss)(hidden))
  assert 'custom_jvp_call' not in text and 'scan' not in text


def test_a_sum_over_one_rank_is_the_array_itself():
  layers, _ = modules('torch')
  import torch

  x = torch.ones(3, requires_grad=True)
  assert layers.sum_over_ranks(x) is x


@each_framework
def test_outputs_are_logits_and_auxiliary_losses_and_no_statistics_unless_given(framework):
  layers, _ = modules(framework)
  found = layers.Outputs(logits=1, auxiliary={'balance': 2})
  assert (found.logits, found.auxiliary, found.statistics) == (1, {'balance': 2}, {})
