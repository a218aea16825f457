"""The shared PyTorch step: gradients, clipping, parts, schedules, logging, and several ranks."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.layers import losses
from algorithmic_efficiency.training.options import StepOptions
from tests.unit import training_toys as toys

torch = pytest.importorskip('torch')

from algorithmic_efficiency.training import torch as training  # noqa: E402

RNG = np.array([1, 2], np.int32)


def _constant(step):
  return 1.0


def _gradients(options, batch=None, workload=None):
  model = toys.torch_model(toys.params())
  batch = toys.torch_batch(toys.batches(1)[0]) if batch is None else batch
  accumulate = training._gradients if options.micro_batches == 1 else training._gradients_in_parts
  loss = accumulate(workload or toys.TorchWorkload(), model, batch, RNG, options)
  return {name: p.grad.clone() for name, p in model.named_parameters()}, loss


def _assert_close(left, right, **tolerance):
  for name in left:
    torch.testing.assert_close(left[name], right[name], **tolerance)


def _norm(gradients):
  return torch.stack([gradient.norm() for gradient in gradients.values()]).norm()


def _sgd(model, learning_rate=1.0):
  return torch.optim.SGD(model.parameters(), lr=learning_rate)


def _step(workload, model, state, options, batch=None, global_step=1):
  batch = toys.torch_batch(toys.batches(1)[0]) if batch is None else batch
  training.train_step(workload, model, batch, RNG, state, options, global_step)


def test_gradient_is_that_of_the_mean_over_valid_examples():
  batch = toys.torch_batch(toys.batches(1)[0])
  model = toys.torch_model(toys.params())
  valid = {name: value[:-2] for name, value in batch.items()}
  mean = torch.nn.functional.cross_entropy(
    model(valid['inputs']), valid['targets'].long(), label_smoothing=0.1
  )
  mean.backward()
  expected = {name: p.grad for name, p in model.named_parameters()}
  gradients, loss = _gradients(StepOptions(label_smoothing=0.1), batch)
  _assert_close(gradients, expected, rtol=1e-5, atol=1e-7)
  torch.testing.assert_close(loss, mean.detach(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize('num_parts', [2, 4, 16])
def test_parts_give_the_gradient_of_the_whole_batch(num_parts):
  # The two examples that do not count are the last, so the parts weigh differently.
  whole, loss = _gradients(StepOptions())
  parts, loss_of_parts = _gradients(StepOptions(micro_batches=num_parts))
  _assert_close(parts, whole, rtol=2e-5, atol=1e-6)
  torch.testing.assert_close(loss_of_parts, loss, rtol=1e-6, atol=0.0)


def test_parts_without_weights_and_with_nested_inputs():
  batch = toys.torch_batch(toys.batches(1)[0])
  batch = {'inputs': batch['inputs'], 'targets': batch['targets'], 'more': (batch['inputs'], None)}
  whole, _ = _gradients(StepOptions(), batch)
  parts, _ = _gradients(StepOptions(micro_batches=4), batch)
  _assert_close(parts, whole, rtol=2e-5, atol=1e-6)


def test_a_batch_that_does_not_split_evenly_is_refused():
  with pytest.raises(UserError, match='16 is not divisible by 3'):
    _gradients(StepOptions(micro_batches=3))


def test_examples_that_depend_on_each_other_are_refused_in_parts():
  model = toys.torch_model(toys.params())
  before = copy.deepcopy(model.state_dict())
  workload = toys.TorchWorkload(independent_examples=False)
  options = StepOptions(micro_batches=2)
  with pytest.raises(UserError, match=r'independent_examples=False.*Leave micro_batches at 1'):
    _step(workload, model, training.start(model, _sgd(model), _constant, options), options)
  _assert_close(model.state_dict(), before, rtol=0.0, atol=0.0)
  _step(
    workload, model, training.start(model, _sgd(model), _constant, StepOptions()), StepOptions()
  )


@pytest.mark.parametrize(('limit', 'expected'), [(0.01, 0.01), (100.0, None)])
def test_clipping_bounds_the_global_norm(limit, expected):
  gradients, _ = _gradients(StepOptions())
  workload = toys.TorchWorkload()
  workload.metrics_logger = toys.Logger()
  model = toys.torch_model(toys.params())
  before = copy.deepcopy(model.state_dict())
  options = StepOptions(grad_clip=limit)
  _step(workload, model, training.start(model, _sgd(model), _constant, options), options, None, 0)
  moved = {name: before[name] - value for name, value in model.state_dict().items()}
  torch.testing.assert_close(
    _norm(moved), torch.tensor(expected) if expected else _norm(gradients), rtol=1e-3, atol=0.0
  )
  logged = workload.metrics_logger.rows[0][1]['grad_norm']  # as it was before clipping
  torch.testing.assert_close(logged, _norm(gradients), rtol=1e-5, atol=0.0)


def test_gradients_of_the_step_before_are_forgotten():
  model = toys.torch_model(toys.params())
  state = training.start(model, _sgd(model, 0.0), _constant, StepOptions())
  expected, _ = _gradients(StepOptions())
  for _ in range(2):
    _step(toys.TorchWorkload(), model, state, StepOptions())
  _assert_close({name: p.grad for name, p in model.named_parameters()}, expected)


def test_state_has_the_form_of_algoperf():
  model = toys.torch_model(toys.params())
  state = training.start(model, _sgd(model), _constant, StepOptions())
  assert set(state) == {'optimizer', 'scheduler'}
  for value in state.values():
    value.load_state_dict(value.state_dict())


def test_a_restored_state_goes_on_as_the_saved_one():
  point = toys.POINT
  module = toys.submission('external', 'nadamw', 'pytorch')

  def started(values):
    model = toys.torch_model(values)
    return model, module.init_optimizer_state(toys.TorchWorkload(), model, None, point, RNG)

  def train(model, state, batches, first):
    for step, batch in enumerate(batches, first):
      module.update_params(
        current_param_container=model,
        model_state=None,
        batch=toys.torch_batch(batch),
        optimizer_state=state,
        **toys.update_arguments(toys.TorchWorkload(), point, step, RNG),
      )

  batches = toys.batches(20)
  model, state = started(toys.params())
  train(model, state, batches[:12], 0)
  saved = copy.deepcopy({name: value.state_dict() for name, value in state.items()})
  values = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
  train(model, state, batches[12:], 12)
  other, fresh = started(values)
  for name, value in fresh.items():
    value.load_state_dict(saved[name])
  train(other, fresh, batches[12:], 12)
  for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
    assert torch.equal(mine, theirs)


def test_loss_and_norm_are_logged_now_and_then_as_tensors():
  workload = toys.TorchWorkload()
  workload.metrics_logger = toys.Logger()
  model = toys.torch_model(toys.params())
  state = training.start(model, _sgd(model, 0.0), _constant, StepOptions())
  for step in range(201):
    _step(workload, model, state, StepOptions(), None, step)
  assert [step for step, _ in workload.metrics_logger.rows] == [0, 100, 200]
  gradients, loss = _gradients(StepOptions())
  for _, metrics in workload.metrics_logger.rows:
    torch.testing.assert_close(metrics['loss'], loss, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(metrics['grad_norm'], _norm(gradients), rtol=1e-5, atol=0.0)
    assert not any(value.requires_grad for value in metrics.values())


def test_dropout_rate_reaches_the_model():
  workload = toys.TorchWorkload()
  model = toys.torch_model(toys.params())
  state = training.start(model, _sgd(model), _constant, StepOptions())
  for rate in (0.25, None):
    _step(workload, model, state, StepOptions(dropout_rate=rate))
  assert workload.dropout_rates == [0.25, None]


# Losses of the whole batch.


def test_an_auxiliary_loss_adds_its_weight_times_its_value_to_the_mean():
  batch = toys.torch_batch(toys.batches(1)[0])
  model, workload = toys.torch_model(toys.params()), toys.TorchWorkload(balance=2.0)
  outputs, _ = workload.model_fn(model, batch, None, None, None, True)
  plain = toys.TorchWorkload().loss_fn(batch['targets'], outputs.logits, batch['weights'])
  loss = workload.loss_fn(batch['targets'], outputs, batch['weights'])
  torch.testing.assert_close(
    loss['summed'] / loss['n_valid_examples'],
    plain['summed'] / plain['n_valid_examples'] + 2.0 * outputs.auxiliary['balance'],
  )
  summed, num_valid = loss['parts']['balance']
  torch.testing.assert_close(summed + plain['summed'], loss['summed'])
  assert num_valid == plain['n_valid_examples'] == 14


def test_loss_and_gradient_with_an_auxiliary_loss_are_those_of_jax():
  jax = pytest.importorskip('jax')
  from algorithmic_efficiency.training import jax as jax_training

  options = StepOptions(label_smoothing=0.1)
  expected, expected_loss, _ = jax_training.mean_gradients(
    toys.JaxWorkload(balance=2.0),
    jax.tree.map(jax.numpy.asarray, toys.params()),
    None,
    toys.batches(1)[0],
    np.array([1, 2], np.uint32),
    options,
  )
  gradients, loss = _gradients(options, workload=toys.TorchWorkload(balance=2.0))
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  for name, gradient in gradients.items():
    np.testing.assert_allclose(gradient, expected[name], rtol=1e-5, atol=1e-6)


def test_the_names_of_auxiliary_losses_and_of_their_weights_agree():
  loss = {'summed': 1.0, 'n_valid_examples': 2.0}
  with pytest.raises(ValueError, match=r"losses are \['z'\], the weights those of \['balance'\]"):
    losses.add_auxiliary(loss, {'z': 1.0}, {'balance': 1.0})


# Schedules.


def test_learning_rate_follows_the_schedule():
  model = toys.torch_model(toys.params())
  factor = training.warmup_cosine(step_hint=10, warmup_factor=0.2)
  state = training.start(model, _sgd(model, 3.0), factor, StepOptions())
  used = []
  for _ in range(12):
    used.append(state['optimizer'].param_groups[0]['lr'])
    _step(toys.TorchWorkload(), model, state, StepOptions())
  assert used == [3.0 * factor(step) for step in range(12)]


def test_warmup_cosine():
  factor = training.warmup_cosine(step_hint=100, warmup_factor=0.1)
  values = [factor(step) for step in (0, 5, 10, 55, 100, 150)]
  np.testing.assert_allclose(values, [0, 0.5, 1, 0.5, 0, 0], atol=1e-12)


def test_warmup_linear():
  factor = training.warmup_linear(
    step_hint=100, warmup_factor=0.1, decay_steps_factor=0.5, end_factor=0.1
  )
  values = [factor(step) for step in (0, 5, 10, 32.5, 55, 90)]
  np.testing.assert_allclose(values, [0, 0.5, 1, 0.55, 0.1, 0.1], atol=1e-12)


# Several ranks.


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(tmp_path):
  script = Path(__file__).with_name('training_ranks_script.py')
  ranks = [
    subprocess.Popen([sys.executable, script, str(rank), '2', tmp_path / 'store'])
    for rank in range(2)
  ]
  try:
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
  finally:
    for rank in ranks:
      rank.kill()
