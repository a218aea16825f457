"""The token loss in PyTorch: in chunks or whole, it is the plain one."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import token_loss_twin as twin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip('torch')
from token_loss_rank import OBJECTIVES, OPTIONS, TiedModel  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from algorithmic_efficiency.layers import _torch_loss  # noqa: E402
from algorithmic_efficiency.layers import torch as layers  # noqa: E402

# Of the largest element; each sum runs over some hundred terms at most.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}


@pytest.fixture(autouse=True)
def blocks_of_little(monkeypatch):
  """So that chunks are worked on in several blocks, as large ones are."""
  monkeypatch.setattr(_torch_loss, '_MIN_BLOCK_BYTES', 1024)


def tensors(one, dtype=torch.float32):
  return [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (one.hidden, one.kernel)]


def product(hidden, kernel):
  """Logits that the loss takes as they are."""
  return hidden @ kernel.T


def loss_of(one, hidden, kernel, *, masked=True, label_smoothing=0.1):
  logits = layers.vocab_logits(hidden, kernel)
  mask = torch.tensor(one.mask, dtype=hidden.dtype) if masked else None
  return layers.token_loss(torch.tensor(one.targets), logits, mask, label_smoothing)


def mean(one, loss):
  return loss['summed'] / loss['n_valid_examples']


def by_token(one, loss):
  return (loss['per_example'] * torch.tensor(one.of_tokens)).sum() + 2 * loss['summed']


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
def test_losses_of_classes_are_those_of_sequences_of_one_token(label_smoothing):
  logits, targets = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
  weights = torch.tensor([1.0, 0.0, 1.0, 2.0, 1.0])
  found = layers.token_loss(targets, logits, weights, label_smoothing)
  expected = layers.token_loss(targets[:, None], logits[:, None], weights[:, None], label_smoothing)
  torch.testing.assert_close(found, {**expected, 'per_example': expected['per_example'][:, 0]})


def test_weights_of_examples_are_those_of_each_of_their_tokens():
  logits, targets = torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)
  found = layers.token_loss(targets, logits, torch.tensor([1.0, 0.0]))
  expected = layers.token_loss(targets, logits, torch.tensor([[1.0] * 3, [0.0] * 3]))
  torch.testing.assert_close(found, expected)
  assert found['n_valid_examples'] == 3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('masked', [True, False])
@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
@pytest.mark.parametrize(
  ('objective', 'of_tokens'),
  [
    (mean, lambda one, weights: weights / weights.sum()),
    (by_token, lambda one, weights: weights * (one.of_tokens + 2)),
  ],
  ids=['mean', 'by_token'],
)
def test_chunks_give_the_values_and_gradients_of_the_formulas(
  monkeypatch, objective, of_tokens, label_smoothing, masked, dtype
):
  one, tolerance = twin.case(), TOLERANCE[dtype]
  assert twin.cut(monkeypatch, one) == 8  # 37 positions are no multiple of it
  inputs = tensors(one, dtype)
  loss = loss_of(one, *inputs, masked=masked, label_smoothing=label_smoothing)
  objective(one, loss).backward()
  assert {tensor.dtype for tensor in loss.values()} == {dtype}
  weights = one.mask if masked else np.ones_like(one.mask)
  expected = twin.losses(one, label_smoothing) * weights
  twin.assert_close(loss['per_example'].detach(), expected, tolerance)
  twin.assert_close(loss['summed'].detach(), expected.sum(), tolerance)
  twin.assert_close(loss['n_valid_examples'], weights.sum(), tolerance)
  expected = twin.gradients(one, of_tokens(one, weights), label_smoothing)
  for tensor, wanted in zip(inputs, expected, strict=True):
    twin.assert_close(tensor.grad, wanted, tolerance)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
  sizes=st.tuples(*(st.integers(1, 9) for _ in range(4))),
  num_chunks=st.integers(1, 12),
  seed=st.integers(0, 99),
)
def test_any_shape_in_any_number_of_chunks(monkeypatch, sizes, num_chunks, seed):
  one = twin.case(*sizes, seed=seed)
  twin.cut(monkeypatch, one, num_chunks)
  inputs = tensors(one, torch.float64)
  loss = loss_of(one, *inputs)['summed']
  loss.backward()
  twin.assert_close(loss.detach(), (twin.losses(one, 0.1) * one.mask).sum(), 1e-12)
  for tensor, wanted in zip(inputs, twin.gradients(one, one.mask, 0.1), strict=True):
    np.testing.assert_allclose(tensor.grad, wanted, rtol=1e-11, atol=1e-13)


def test_a_tied_kernel_gets_both_its_gradients(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)
  targets, mask = torch.tensor(one.targets), torch.tensor(one.mask)

  def gradient(logits_of):
    kernel = torch.tensor(one.kernel, requires_grad=True)
    logits = logits_of(torch.tanh(kernel[targets.flip(1)]), kernel)
    layers.token_loss(targets, logits, mask)['summed'].backward()
    return kernel.grad

  twin.assert_close(gradient(layers.vocab_logits), gradient(product).numpy(), 1e-12)


def test_a_mask_that_is_learned_gets_its_gradient(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)
  mask = torch.tensor(one.mask, requires_grad=True)
  logits = layers.vocab_logits(*tensors(one, torch.float64))
  layers.token_loss(torch.tensor(one.targets), logits, mask)['summed'].backward()
  twin.assert_close(mask.grad, twin.losses(one), 1e-12)


def test_to_go_backward_twice_gives_the_same_twice(monkeypatch):
  """The first pass scales the gradients in place, and the second must not scale them again."""
  one = twin.case()
  twin.cut(monkeypatch, one)
  inputs = tensors(one, torch.float64)
  objective = 3 * loss_of(one, *inputs)['summed']
  first = torch.autograd.grad(objective, inputs, retain_graph=True)
  second = torch.autograd.grad(objective, inputs)
  for x, y, wanted in zip(first, second, twin.gradients(one, 3 * one.mask, 0.1), strict=True):
    twin.assert_close(x, wanted, 1e-12)
    twin.assert_close(y, wanted, 1e-12)


@pytest.mark.parametrize('objective', [mean, by_token])
def test_second_derivatives(monkeypatch, objective):
  """What an entry may ask for that estimates curvature."""
  one = twin.case(2, 9, 11, 4)

  def second():
    inputs = tensors(one, torch.float64)
    value = objective(one, loss_of(one, *inputs))
    gradients = torch.autograd.grad(value, inputs, create_graph=True)
    return torch.autograd.grad(sum((x.sin() * x).sum() for x in gradients), inputs)

  expected = second()
  twin.cut(monkeypatch, one)
  torch.testing.assert_close(second(), expected, rtol=1e-12, atol=1e-12)


def test_without_gradients_none_are_computed(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)
  monkeypatch.setattr(_torch_loss, '_losses_and_gradients', None)
  with torch.no_grad():
    loss = loss_of(one, *tensors(one))
  twin.assert_close(loss['summed'], (twin.losses(one, 0.1) * one.mask).sum(), 2e-6)
  with pytest.raises(TypeError):
    loss_of(one, *tensors(one))


class Peak(TorchDispatchMode):
  """Notes how many elements there were at once, at most, in all that operations gave."""

  def __init__(self):
    super().__init__()
    self.num_elements = 0
    self._given: list[weakref.ref[torch.Tensor]] = []

  def __torch_dispatch__(self, func, types, args=(), kwargs=None):
    result = func(*args, **(kwargs or {}))
    results = result if isinstance(result, (tuple, list)) else [result]
    self._given += [weakref.ref(x) for x in results if isinstance(x, torch.Tensor)]
    alive = [tensor for given in self._given if (tensor := given()) is not None]
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().size() for x in alive}
    self.num_elements = max(self.num_elements, sum(sizes.values()) // 8)
    return result


@pytest.mark.parametrize('objective', [mean, by_token])
def test_of_large_logits_little_more_than_a_chunk_is_there_at_once(monkeypatch, objective):
  one = twin.case(length=40, vocab_size=2000)
  twin.cut(monkeypatch, one)
  chunk = one.logits.size * twin.chunk_length(one, num_arrays=1) / 40
  assert chunk == one.logits.size * 14 / 40
  hidden, kernel = tensors(one, torch.float64)
  with Peak() as peak:
    objective(one, loss_of(one, hidden, kernel)).backward()
  rest = 2 * hidden.numel() + 3 * kernel.numel()  # they and their gradients
  assert chunk < peak.num_elements < 1.3 * chunk + rest


def test_sums_hold_little_more_than_two_arrays_of_a_chunk(monkeypatch):
  one = twin.case(length=40, vocab_size=2000)
  assert twin.cut(monkeypatch, one) == 8
  hidden, kernel = (tensor.detach() for tensor in tensors(one, torch.float64))
  ones = torch.ones(one.targets.shape)
  with Peak() as peak:
    layers.token_sums(torch.tensor(one.targets), layers.vocab_logits(hidden, kernel), ones, ones)
  assert peak.num_elements < 2.1 * one.logits.size / 5 + kernel.numel()


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_sums_are_those_of_the_formulas(monkeypatch, num_chunks):
  one = twin.case()
  twin.cut(monkeypatch, one, num_chunks)
  target_bytes = 1 + np.abs(one.of_tokens)
  hidden, kernel = tensors(one, torch.float64)
  found = layers.token_sums(
    torch.tensor(one.targets),
    layers.vocab_logits(hidden, kernel),
    torch.tensor(one.mask),
    torch.tensor(target_bytes),
  )
  expected = twin.sums(one, target_bytes)
  assert set(found) == set(expected)
  for name, values in expected.items():
    assert [value.item() for value in found[name]] == pytest.approx(values, rel=1e-12), name


def test_without_bytes_there_are_the_other_sums():
  one = twin.case()
  logits = layers.vocab_logits(*tensors(one))
  arguments = (torch.tensor(one.targets), logits, torch.tensor(one.mask))
  with_bytes = layers.token_sums(*arguments, torch.tensor(one.mask))
  del with_bytes['bits_per_byte']
  assert layers.token_sums(*arguments) == with_bytes


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_of_logits_that_tie_the_first_counts(monkeypatch, num_chunks):
  one = twin.with_ties(twin.case())
  twin.cut(monkeypatch, one, num_chunks)
  hidden, kernel = tensors(one)
  ones = torch.ones(one.targets.shape)
  logits = layers.vocab_logits(hidden, kernel)
  total, weight = layers.token_sums(torch.tensor(one.targets), logits, ones, ones)['accuracy']
  assert weight == one.targets.size
  assert 0 < total == (one.logits.argmax(-1) == one.targets).sum() < weight


@pytest.mark.parametrize('num_chunks', [1, 5])
def test_low_precision_logits_have_a_loss_and_a_kernel_gradient_in_float32(monkeypatch, num_chunks):
  one = twin.rounded(twin.case(), lambda x: torch.tensor(x).bfloat16().double().numpy())
  twin.cut(monkeypatch, one, num_chunks)
  hidden, kernel = tensors(one)
  hidden = hidden.detach().bfloat16().requires_grad_()
  loss = loss_of(one, hidden, kernel)
  loss['summed'].backward()
  assert {tensor.dtype for tensor in loss.values()} == {torch.float32}
  assert [hidden.grad.dtype, kernel.grad.dtype] == [torch.bfloat16, torch.float32]
  twin.assert_close(loss['per_example'].detach(), twin.losses(one, 0.1) * one.mask, 1e-2)
  for tensor, wanted in zip((hidden, kernel), twin.gradients(one, one.mask, 0.1), strict=True):
    twin.assert_close(tensor.grad.float(), wanted, 2e-2)


@pytest.mark.slow
def test_models_and_losses_compile(monkeypatch):
  one = twin.case()
  twin.cut(monkeypatch, one)
  targets, mask = torch.tensor(one.targets), torch.tensor(one.mask)

  def step(model, loss):
    logits = layers.vocab_logits(*model(targets.flip(1)))
    result = loss(targets, logits, mask, 0.1)['summed']
    (gradient,) = torch.autograd.grad(result, model.parameters())
    return result, gradient

  found = step(
    torch.compile(TiedModel(one), backend='aot_eager', fullgraph=True),
    torch.compile(layers.token_loss, backend='aot_eager'),
  )
  torch.testing.assert_close(found, step(TiedModel(one), layers.token_loss), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_two_ranks_share_the_loss(tmp_path):
  """DistributedDataParallel finds the tensors in what the model returns, whatever its options."""
  one = twin.case(batch_size=4)
  script = Path(twin.__file__).with_name('token_loss_rank.py')
  path = os.pathsep.join([str(script.parent), os.environ.get('PYTHONPATH', '')])
  ranks = [
    subprocess.Popen(
      [sys.executable, str(script), str(rank), '2', str(tmp_path)],
      env={**os.environ, 'PYTHONPATH': path},
    )
    for rank in range(2)
  ]
  assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
  targets, mask = torch.tensor(one.targets), torch.tensor(one.mask)

  def gradient(objective):
    model = TiedModel(one)
    logits = product(*model(targets.flip(1)))
    (objective(targets, logits, mask) / one.mask.sum()).backward()
    return model.embed.grad

  expected = {name: gradient(objective) for name, objective in OBJECTIVES.items()}
  for rank in range(2):
    results = torch.load(tmp_path / f'rank_{rank}.pt')
    assert set(results) == {(name, option) for name in OBJECTIVES for option in OPTIONS}
    for (name, option), gradients in results.items():
      for found in gradients:  # of two steps
        torch.testing.assert_close(
          found, expected[name], rtol=1e-12, atol=1e-12, msg=lambda m, o=option: f'{o}: {m}'
        )
