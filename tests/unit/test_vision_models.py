"""What is particular to the image classifiers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import streams

QUICK = registry.workload('quick_vision')
MNIST = registry.workload('mnist')
SMALL = [QUICK.for_smoke(), MNIST.for_smoke()]
SMALL_NAMES = {'ids': lambda definition: definition.name}


@pytest.fixture
def model_jax():
  pytest.importorskip('jax')
  return registry.module_of(QUICK, 'jax')


@pytest.fixture
def model_torch():
  pytest.importorskip('torch')
  return registry.module_of(QUICK, 'pytorch')


def fake_batch(definition, seed=0):
  return registry.module_of(QUICK, 'data').fake_batch(definition, 8, seed)


def torch_batch(batch):
  """A batch as the steps of a submission get it."""
  import torch

  from algorithmic_efficiency.backends._torch_backend import TorchBackend

  return TorchBackend(torch.device('cpu'), Devices(), compiles=False).place(batch)


def test_images_are_channels_first_in_pytorch():
  """Regression: entries of AlgoPerf got [batch, 28, 28, 1]."""
  pytest.importorskip('torch')
  for definition, shape in ((MNIST, (8, 1, 28, 28)), (QUICK, (8, 1, 8, 8))):
    batch = fake_batch(definition)
    inputs = torch_batch(batch)['inputs']
    assert inputs.shape == shape
    assert inputs.view(8, -1).shape == (8, shape[2] * shape[3])  # as AlgoPerf's own model does
    np.testing.assert_array_equal(inputs[:, 0], batch['inputs'][..., 0])


def test_mnist_tells_its_mean_and_stddev_as_numbers():
  """Regression: entries of AlgoPerf got tuples."""
  pytest.importorskip('torch')
  import torch

  from algorithmic_efficiency.backends._torch_backend import TorchBackend

  backend = TorchBackend(torch.device('cpu'), Devices(), compiles=False)
  task = TaskCode.of(QUICK, 'pytorch')
  workload = backend.workload(MNIST, task, MNIST.suites['algoperf_v06'])
  assert (workload.train_mean, workload.train_stddev) == (0.1307, 0.3081)
  assert workload._eval_iters == {}  # which some entries clear


def jax_variables(model_jax, definition, seed=0):
  import jax
  from flax import linen as nn

  init = jax.jit(
    lambda key: nn.init(model_jax.forward, model_jax.build(definition))(
      key, fake_batch(definition), train=False, use_running_average=True, dropout_rate=0.0
    )
  )
  return init(jax.random.key(seed))


# The loss also takes probabilities as targets, as mixed-up images have them.

PROBABILITIES = np.array([[0.7, 0.3, 0, 0], [0, 0, 0.5, 0.5], [1, 0, 0, 0]], np.float32)
LOGITS = np.array([[1, 2, 3, 4], [-1, 0, 2, 2], [5, 1, 1, 0]], np.float32)


def expected_loss(label_smoothing):
  labels = PROBABILITIES * (1 - label_smoothing) + label_smoothing / 4
  log_probabilities = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
  return -(labels * log_probabilities).sum(-1)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.2])
def test_the_loss_takes_probabilities_in_jax(model_jax, label_smoothing):
  found = model_jax.loss(QUICK, PROBABILITIES, LOGITS, None, label_smoothing)
  np.testing.assert_allclose(found['per_example'], expected_loss(label_smoothing), rtol=1e-6)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.2])
def test_the_loss_takes_probabilities_in_pytorch(model_torch, label_smoothing):
  import torch

  targets, logits = torch.tensor(PROBABILITIES), torch.tensor(LOGITS)
  found = model_torch.loss(QUICK, targets, logits, None, label_smoothing)
  np.testing.assert_allclose(found['per_example'], expected_loss(label_smoothing), rtol=1e-6)


# Dropout acts in training alone, at the rate of the call.


@pytest.mark.slow
@pytest.mark.parametrize('definition', SMALL, **SMALL_NAMES)
def test_dropout_in_jax(model_jax, definition):
  import jax
  from flax import linen as nn

  variables = jax_variables(model_jax, definition)
  model, batch = model_jax.build(definition), fake_batch(definition)

  def logits(train, rate, seed=0):
    return nn.apply(model_jax.forward, model)(
      variables,
      batch,
      train=train,
      use_running_average=True,
      dropout_rate=rate,
      rngs={'dropout': jax.random.key(seed)},
    )

  assert_is_dropout(logits)


@pytest.mark.parametrize('definition', SMALL, **SMALL_NAMES)
def test_dropout_in_pytorch(model_torch, definition):
  import torch

  model, batch = model_torch.build(definition), torch_batch(fake_batch(definition))

  def logits(train, rate, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
      return model_torch.forward(
        model, batch, train=train, use_running_average=True, dropout_rate=rate
      ).numpy()

  assert_is_dropout(logits)


def assert_is_dropout(logits):
  plain = logits(True, 0.0)
  np.testing.assert_array_equal(logits(False, 0.9), plain)
  np.testing.assert_array_equal(logits(True, 0.5), logits(True, 0.5))
  assert not np.allclose(logits(True, 0.5), plain)
  assert not np.allclose(logits(True, 0.5), logits(True, 0.5, seed=1))


# Both frameworks draw the first weights from one distribution.


@pytest.mark.slow
@pytest.mark.parametrize('definition', [QUICK, MNIST], **SMALL_NAMES)
def test_first_weights_have_one_distribution(model_jax, model_torch, definition):
  variables = jax_variables(model_jax, definition)
  state_dict = model_torch.build(definition).state_dict()
  state = {name: value for name, value in variables.items() if name != 'params'}
  in_jax = registry.module_of(QUICK, 'parity').to_torch(definition, variables['params'], state)
  for name, tensor in state_dict.items():
    left, right = in_jax[name], tensor.numpy()
    if left.ndim < 2:
      np.testing.assert_array_equal(left, right, err_msg=name)
      continue
    scale = 0.1 if name == 'fc.weight' else 1  # the head of the convolutional net
    stddev = scale * np.sqrt(1 / left[0].size)
    for array in (left, right):
      # Five standard errors of the deviation of so many draws, less for the truncation.
      assert array.std() == pytest.approx(stddev, rel=5 / np.sqrt(2 * array.size)), name
      assert np.abs(array).max() <= 2 * stddev / 0.8796 * (1 + 1e-5), name


# The models learn their data.

NUM_STEPS = 150


def batches(tmp_path):
  stream = streams.train_stream(
    registry.module_of(QUICK, 'data'), QUICK, tmp_path, QUICK.batch_sizes.train, 1
  )
  return itertools.islice(stream, NUM_STEPS)


def validation_batch(tmp_path):
  size = QUICK.batch_sizes.eval
  (batch,) = streams.eval_stream(
    registry.module_of(QUICK, 'data'), QUICK, tmp_path, 'validation', size
  )
  return batch


def test_quick_vision_learns_in_pytorch(model_torch, tmp_path):
  import torch

  torch.manual_seed(0)
  model = model_torch.build(QUICK)
  optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
  for batch in batches(tmp_path):
    batch = torch_batch(batch)
    logits = model_torch.forward(
      model, batch, train=True, use_running_average=False, dropout_rate=0.0
    )
    loss = model_torch.loss(QUICK, batch['targets'], logits)
    optimizer.zero_grad()
    (loss['summed'] / loss['n_valid_examples']).backward()
    optimizer.step()
  batch = torch_batch(validation_batch(tmp_path))
  logits = model_torch.forward(
    model, batch, train=False, use_running_average=True, dropout_rate=0.0
  )
  correct, count = model_torch.eval_step(QUICK, batch, logits)[0]['accuracy']
  assert count == QUICK.splits.validation
  assert 0.9 < correct / count <= 1


@pytest.mark.slow
def test_quick_vision_learns_in_jax(model_jax, tmp_path):
  import jax
  import optax
  from flax import linen as nn

  model = model_jax.build(QUICK)
  variables = dict(jax_variables(model_jax, QUICK))
  params, state = variables.pop('params'), variables
  optimizer = optax.adam(0.01)

  @jax.jit
  def step(params, state, optimizer_state, batch):
    def loss(params):
      logits, new_state = nn.apply(model_jax.forward, model, mutable=['batch_stats'])(
        {'params': params, **state},
        batch,
        train=True,
        use_running_average=False,
        dropout_rate=0.0,
      )
      result = model_jax.loss(QUICK, batch['targets'], logits)
      return result['summed'] / result['n_valid_examples'], new_state

    gradients, state_ = jax.grad(loss, has_aux=True)(params)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state)
    return optax.apply_updates(params, updates), state_, optimizer_state

  optimizer_state = optimizer.init(params)
  for batch in batches(tmp_path):
    params, state, optimizer_state = step(params, state, optimizer_state, batch)
  batch = validation_batch(tmp_path)
  logits = nn.apply(model_jax.forward, model)(
    {'params': params, **state},
    batch,
    train=False,
    use_running_average=True,
    dropout_rate=0.0,
  )
  correct, count = model_jax.eval_step(QUICK, batch, logits)[0]['accuracy']
  assert count == QUICK.splits.validation
  assert 0.9 < correct / count <= 1
