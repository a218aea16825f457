"""Large logits in PyTorch: a tensor like any other, which is computed when it is read."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import token_loss_twin as twin

torch = pytest.importorskip('torch')
from torch.nn import functional as F  # noqa: E402
from torch.utils import checkpoint  # noqa: E402

from algorithmic_efficiency.layers import _torch_loss, chunks  # noqa: E402
from algorithmic_efficiency.layers import torch as layers  # noqa: E402

ONE = twin.case()
TARGETS = torch.tensor(ONE.targets, dtype=torch.int64)
VOCAB_SIZE = len(ONE.kernel)


@pytest.fixture(autouse=True)
def cut(monkeypatch):
  """Has the logits of the case cut into chunks, so that they count as large."""
  twin.cut(monkeypatch, ONE)


@pytest.fixture
def factors():
  return [torch.tensor(x, requires_grad=True) for x in (ONE.hidden, ONE.kernel)]


@pytest.fixture
def logits(factors):
  return layers.vocab_logits(*factors)


def product(hidden, kernel):
  return hidden @ kernel.T


def loss_of(logits):
  return layers.token_loss(TARGETS, logits)['summed']


def is_computed(logits):
  return logits._product is not None


def set_rows(x):
  x[:, 1] = 0.5
  return x


def change_a_view(x):
  x.view(-1, VOCAB_SIZE)[3].mul_(2)
  return x


def z_loss(x):
  return x.logsumexp(dim=-1).square()


def sampled_loss(x):
  """That of labels drawn from the model's own distribution."""
  torch.manual_seed(0)
  labels = torch.distributions.Categorical(logits=x).sample()
  return F.cross_entropy(x.flatten(0, 1), labels.flatten(), reduction='none')


MATRIX = torch.linspace(-1, 1, VOCAB_SIZE * 2, dtype=torch.float64).view(VOCAB_SIZE, 2)
OPERATIONS = {
  # Operators, on both sides.
  'add': lambda x: x + 1,
  'add_right': lambda x: 1 + x,
  'subtract_tensor': lambda x: torch.ones(VOCAB_SIZE) - x,
  'multiply': lambda x: 2 * x * x,
  'divide': lambda x: 1 / (3 + x.abs()),
  'power': lambda x: x**2,
  'negate': lambda x: -x,
  'matmul': lambda x: x @ MATRIX,
  'matmul_right': lambda x: MATRIX.T @ x.mT,
  'compare': lambda x: x * (x > 0),
  # Methods and functions.
  'float': lambda x: x.float(),
  'to_bfloat16': lambda x: x.to(torch.bfloat16),
  'cast_double': lambda x: x.double(),
  'max': lambda x: x.max(dim=-1).values,
  'argmax': lambda x: x.gather(-1, x.argmax(dim=-1, keepdim=True)),
  'view': lambda x: x.view(-1, VOCAB_SIZE),
  'flatten': lambda x: x.flatten(0, 1),
  'transpose': lambda x: x.transpose(0, 2),
  'clone': lambda x: x.clone(),
  'contiguous': lambda x: x.contiguous() * 1,
  'chunk': lambda x: torch.stack(x.chunk(3, dim=0)),
  'unbind': lambda x: x.unbind(0)[1],
  'iterate': lambda x: torch.stack([2 * row for row in x]),
  'cat': lambda x: torch.cat([x, torch.zeros(1, *x.shape[1:]), x]),
  'where': lambda x: torch.where(x > 0, x, 0.0),
  'einsum': lambda x: torch.einsum('blv,vk->bk', x, MATRIX),
  'softmax': lambda x: torch.softmax(x, dim=-1),
  'log_softmax': lambda x: F.log_softmax(x, dim=-1),
  'cross_entropy': lambda x: F.cross_entropy(x.view(-1, VOCAB_SIZE), TARGETS.view(-1)),
  'nll_loss': lambda x: F.nll_loss(F.log_softmax(x.mT, dim=1), TARGETS),
  'one_hot': lambda x: x * F.one_hot(TARGETS, VOCAB_SIZE),
  'z_loss': z_loss,
  'sampled_loss': sampled_loss,
  'detach': lambda x: x * x.detach(),
  'data': lambda x: x * x.data,
  # Indexing.
  'row': lambda x: x[1],
  'slice': lambda x: x[:, :-1],
  'last': lambda x: x[..., -1],
  'list': lambda x: x[..., [3, 1]],
  'mask': lambda x: x[x > 0],
  'set_rows': set_rows,
  # In place.
  'multiply_in_place': lambda x: x.mul_(2),
  'change_a_view': change_a_view,
  # Transformations.
  'vmap': lambda x: torch.vmap(z_loss)(x),
  'func_grad': lambda x: torch.func.grad(lambda y: z_loss(y).sum())(x),
  'checkpoint': lambda x: checkpoint.checkpoint(z_loss, x, use_reentrant=False),
}


@pytest.mark.parametrize('operation', OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_gives_the_values_and_gradients_of_the_product(factors, operation):
  def outcome(logits_of):
    result = operation(logits_of(*factors))
    return result, torch.autograd.grad(result.double().sin().sum(), factors)

  (found, gradients), (expected, expected_gradients) = map(outcome, (layers.vocab_logits, product))
  assert found.dtype == expected.dtype
  torch.testing.assert_close(found.data, expected.data, rtol=0, atol=0)
  torch.testing.assert_close(gradients, expected_gradients, rtol=1e-12, atol=1e-12)


def test_second_derivatives_of_values_are_those_of_the_product(factors):
  def second(logits_of):
    value = z_loss(logits_of(*factors)).sum()
    gradients = torch.autograd.grad(value, factors, create_graph=True)
    return torch.autograd.grad(sum(x.sin().sum() for x in gradients), factors)

  found, expected = map(second, (layers.vocab_logits, product))
  torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_to_ask_what_logits_are_computes_nothing(factors, logits):
  expected = product(*factors)
  assert isinstance(logits, torch.Tensor) and torch.is_tensor(logits)
  for name in ('shape', 'dtype', 'device', 'ndim', 'requires_grad', 'is_leaf', 'layout', 'nbytes'):
    assert getattr(logits, name) == getattr(expected, name), name
  for name in ('size', 'stride', 'numel', 'dim', '__len__', 'is_contiguous', 'is_floating_point'):
    assert getattr(logits, name)() == getattr(expected, name)(), name
  assert logits.double() is logits
  assert not is_computed(logits)


def test_without_gradients_logits_have_none(factors):
  with torch.no_grad():
    logits = layers.vocab_logits(*factors)
  assert not logits.requires_grad
  assert not (logits + 1).requires_grad


def test_what_reads_memory_finds_the_product(factors):
  expected = product(*factors).detach()
  with torch.no_grad():
    logits = layers.vocab_logits(*factors)
  np.testing.assert_array_equal(logits.numpy(), expected.numpy())
  np.testing.assert_array_equal(np.asarray(logits), expected.numpy())
  assert logits.tolist() == expected.tolist()
  assert logits[0, 0, 0].item() == expected[0, 0, 0].item()
  assert repr(logits) == repr(expected)
  file = io.BytesIO()
  torch.save(logits, file)
  file.seek(0)
  for copied in (copy.deepcopy(logits), pickle.loads(pickle.dumps(logits)), torch.load(file)):
    assert type(copied) is torch.Tensor
    assert torch.equal(copied, expected)


def test_numpy_refuses_logits_with_gradients_as_it_does_elsewhere(logits):
  with pytest.raises(RuntimeError, match='requires grad'):
    logits.numpy()


def test_a_function_of_ones_own_gets_the_gradient(factors):
  """Its arguments come past `__torch_function__`."""

  class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
      return 2 * x

    @staticmethod
    def backward(ctx, gradient):
      return 2 * gradient

  found, expected = (
    torch.autograd.grad(Double.apply(of(*factors)).sin().sum(), factors)
    for of in (layers.vocab_logits, product)
  )
  torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_under_autocast_logits_have_the_type_that_they_declare():
  factors = [torch.tensor(x, dtype=torch.float32) for x in (ONE.hidden, ONE.kernel)]
  with torch.autocast('cpu', dtype=torch.bfloat16):
    logits = layers.vocab_logits(*factors)
    found = logits.max()
  assert found.dtype == logits.dtype == torch.float32
  assert found == product(*factors).max()


def test_logits_of_inference_mode(factors):
  with torch.inference_mode():
    hidden = torch.tanh(factors[0])
    logits = layers.vocab_logits(hidden, factors[1])
    loss = loss_of(logits)
    torch.testing.assert_close(logits.argmax(-1), product(hidden, factors[1]).argmax(-1))
    torch.testing.assert_close(loss, loss_of(product(hidden, factors[1])), rtol=1e-12, atol=0)


def test_kernels_and_hidden_states_of_two_types():
  hidden = torch.tensor(ONE.hidden, dtype=torch.bfloat16, requires_grad=True)
  kernel = torch.tensor(ONE.kernel, dtype=torch.float32, requires_grad=True)

  def outcome(logits_of):
    logits = logits_of(hidden, kernel)
    return logits.dtype, torch.autograd.grad(z_loss(logits.float()).sum(), (hidden, kernel))

  found, expected = map(outcome, (layers.vocab_logits, lambda h, k: h @ k.to(h.dtype).T))
  assert found[0] == expected[0] == torch.bfloat16
  torch.testing.assert_close(found[1], expected[1], rtol=1e-2, atol=1e-2)


# The loss, of logits that were used before or not.


def test_a_loss_computes_no_logits(logits):
  loss_of(logits).backward()
  layers.token_sums(TARGETS, logits, torch.ones(TARGETS.shape), torch.ones(TARGETS.shape))
  assert not is_computed(logits)


@pytest.mark.parametrize('order', ['before', 'after'])
def test_a_z_loss_beside_the_loss(factors, order):
  def gradients(logits_of):
    logits = logits_of(*factors)
    if order == 'before':
      objective = z_loss(logits).sum() + loss_of(logits)
    else:
      objective = loss_of(logits) + z_loss(logits).sum()
    return torch.autograd.grad(objective, factors)

  found, expected = map(gradients, (layers.vocab_logits, product))
  torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_loss_is_of_logits_as_they_were_changed(factors):
  found, expected = (
    torch.autograd.grad(loss_of(change_a_view(of(*factors)).mul_(0.5)), factors)
    for of in (layers.vocab_logits, product)
  )
  torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def by_retaining(logits):
  logits.retain_grad()
  loss_of(logits).backward()
  return logits.grad


def by_hook(logits):
  seen = []
  logits.register_hook(seen.append)
  loss_of(logits).backward()
  return seen[0]


def by_asking_autograd(logits):
  logits = logits.clone()
  return torch.autograd.grad(loss_of(logits), logits)[0]


@pytest.mark.parametrize('way', [by_retaining, by_hook, by_asking_autograd])
def test_the_gradient_of_the_loss_to_the_logits(logits, way):
  expected = torch.tensor(np.exp(twin.log_probs(ONE)) - twin.one_hot(ONE))
  torch.testing.assert_close(way(logits), expected, rtol=1e-12, atol=1e-12)


def test_logits_that_become_a_leaf_get_their_gradient(factors):
  with torch.no_grad():
    logits = layers.vocab_logits(*factors)
  logits.requires_grad_()
  loss_of(logits).backward()
  expected = torch.tensor(np.exp(twin.log_probs(ONE)) - twin.one_hot(ONE))
  torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('ask', ['retain_grad', 'register_hook'])
def test_to_ask_for_a_gradient_too_late_is_refused(logits, ask):
  loss_of(logits)
  with pytest.raises(RuntimeError, match='before loss_fn'):
    getattr(logits, ask)(*([print] if ask == 'register_hook' else []))


# Logits that are kept while the parameters change.

OPTIMIZERS = {
  'sgd': lambda p: torch.optim.SGD(p, lr=0.1),
  'sgd_loop': lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
  'adamw_fused': lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
  'adamw_foreach': lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
}


def change_through_data(kernel):
  kernel.data.mul_(0.9)


STEPS = [
  *(
    pytest.param(lambda kernel, of=optimizer: of([kernel]).step(), id=name)
    for name, optimizer in OPTIMIZERS.items()
  ),
  pytest.param(change_through_data, id='data'),
]


@pytest.mark.parametrize('step', STEPS)
def test_logits_read_after_the_step_only_are_refused(factors, logits, step):
  loss_of(logits).backward()
  step(factors[1])
  with pytest.raises(RuntimeError, match='parameters have changed'):
    logits.argmax(dim=-1)


@pytest.mark.parametrize('step', STEPS)
def test_a_loss_of_old_logits_is_refused(factors, logits, step):
  loss_of(logits).backward()
  step(factors[1])
  with pytest.raises(RuntimeError, match='parameters have changed'):
    loss_of(logits)


def test_a_first_loss_after_the_parameters_changed_is_refused(factors, logits):
  with torch.no_grad():
    factors[1].mul_(0.9)
  with pytest.raises(RuntimeError, match='parameters have changed'):
    loss_of(logits)


@pytest.mark.parametrize('step', STEPS)
def test_logits_read_before_the_step_keep_their_values(factors, logits, step):
  expected = product(*factors).detach()
  loss_of(logits).backward()
  kept = logits.clone()
  step(factors[1])
  for found in (logits.detach(), kept.detach()):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
  torch.testing.assert_close(loss_of(logits), loss_of(expected), rtol=0, atol=0)


def test_logits_of_a_diverged_model_are_read():
  kernel = torch.full((VOCAB_SIZE, 8), torch.nan)
  kernel[::2] = torch.inf
  logits = layers.vocab_logits(torch.tensor(ONE.hidden, dtype=torch.float32), kernel)
  assert logits.isnan().any()


# Compilers.


@pytest.mark.slow
def test_code_around_logits_compiles(factors):
  def step(hidden, kernel):
    logits = layers.vocab_logits(hidden, kernel)
    return loss_of(logits) + z_loss(logits).sum() + F.softmax(logits.flatten(0, 1), -1)[:, 0].sum()

  expected = step(*factors)
  found = torch.compile(step, backend='aot_eager')(*factors)
  torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
  pairs = (torch.autograd.grad(x, factors) for x in (found, expected))
  torch.testing.assert_close(*pairs, rtol=1e-12, atol=1e-12)


def test_small_logits_are_plain_tensors(monkeypatch, factors):
  monkeypatch.setattr(chunks, '_WORK_BYTES', 2**30)
  logits = layers.vocab_logits(*factors)
  assert type(logits) is torch.Tensor
  assert torch.equal(logits, product(*factors))


def test_of_two_chunks_none_is_left_out(monkeypatch, factors, logits):
  """The loss uses the chunks, and no logits as a whole."""
  monkeypatch.setattr(_torch_loss, '_losses', None)
  loss_of(logits)
  with pytest.raises(TypeError):
    loss_of(product(*factors))
