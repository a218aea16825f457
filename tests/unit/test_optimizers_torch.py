"""Any optimizer of torch's interface: every kind trains, and goes on after a restart as if none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import optimizer_toys
import pytest
from optimizer_toys import TORCH, settings

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.optimizers import requirements
from tests.unit import training_toys as toys

torch = pytest.importorskip('torch')

from algorithmic_efficiency.backends import _torch_state  # noqa: E402
from algorithmic_efficiency.optimizers import torch as torch_optimizers  # noqa: E402
from algorithmic_efficiency.optimizers import torch_dry_run  # noqa: E402

NUM_STEPS = 30
CPU = torch.device('cpu')


class TwoPasses(torch.optim.SGD):
  """Stands for sharpness-aware optimizers: the gradient at a point uphill moves this one."""

  def __init__(self, params, lr: float = 0.1, rho: float = 0.05):
    super().__init__(params, lr=lr)
    self.rho = rho

  def step(self, closure):
    parameters = self.param_groups[0]['params']
    moves = [self.rho * p.grad for p in parameters]
    with torch.no_grad():
      torch._foreach_add_(parameters, moves)
    closure()
    with torch.no_grad():
      torch._foreach_sub_(parameters, moves)
    super().step()


class WithModes(torch.optim.SGD):
  """Stands for schedule-free optimizers: what it evaluates is not what it trains."""

  def __init__(self, params, lr: float = 0.1):
    super().__init__(params, lr=lr)
    self.param_groups[0]['mode'] = 'train'

  def train(self):
    self._set('train', -1.0)

  def eval(self):
    self._set('eval', 1.0)

  def _set(self, mode, change):
    if self.param_groups[0]['mode'] != mode:
      self.param_groups[0]['mode'] = mode
      with torch.no_grad():
        torch._foreach_add_(self.param_groups[0]['params'], change)

  def step(self, closure=None):
    assert self.param_groups[0]['mode'] == 'train'
    return super().step(closure)


OWN = {
  f'{__name__}.TwoPasses': {'rho': 0.05},
  f'{__name__}.WithModes': {'lr': 0.3},
}


@pytest.fixture(autouse=True)
def _two_passes(monkeypatch):
  """Enters the class above into the table."""
  name = f'{__name__.partition(".")[0]}.TwoPasses'
  monkeypatch.setitem(requirements.NEEDS, name, requirements.Needs(step='two_passes'))
  requirements.needs_of.cache_clear()


def _workload(step_hint=NUM_STEPS):
  return optimizer_toys.with_roles(toys.TorchWorkload(step_hint), outputs_first=False)


def _start(given, workload=None):
  workload = workload or _workload()
  model = toys.torch_model(toys.params())
  return workload, model, torch_optimizers.start(workload, model, given)


def _run(workload, model, state, steps, batch=None):
  batch = toys.torch_batch(toys.batches(1)[0]) if batch is None else batch
  for step in steps:
    torch_optimizers.update_params(
      current_param_container=model,
      model_state=None,
      batch=batch,
      optimizer_state=state,
      **toys.update_arguments(workload, None, step, np.array([step, 2], np.int32)),
    )


def _prepare(workload, model, state):
  arguments = toys.update_arguments(workload, None, 1, np.array([1, 2], np.int32))
  torch_optimizers.prepare_for_eval(
    current_param_container=model, model_state=None, optimizer_state=state, **arguments
  )


@torch.no_grad()
def _loss(model):
  batch = toys.torch_batch(toys.batches(1)[0])
  loss = toys.TorchWorkload().loss_fn(batch['targets'], model(batch['inputs']), batch['weights'])
  return float(loss['summed'] / loss['n_valid_examples'])


def _values(model):
  return {name: value.detach().clone() for name, value in model.named_parameters()}


def _assert_equal(left, right):
  for name in left:
    assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize('name', [*TORCH, *OWN])
def test_every_kind_trains(name):
  workload, model, state = _start(settings(name, {**TORCH, **OWN}[name]))
  before = _loss(model)
  _run(workload, model, state, range(NUM_STEPS))
  assert _loss(model) < 0.7 * before


@pytest.mark.parametrize('name', [*TORCH, *OWN])
def test_a_restored_optimizer_goes_on_as_if_nothing_had_been(name):
  given = settings(name, {**TORCH, **OWN}[name], schedule='warmup_cosine', dropout_rate=0.1)
  workload, model, state = _start(given)
  _run(workload, model, state, range(5))
  _prepare(workload, model, state)
  saved = _torch_state.pack({'model': model, 'state': state})
  _run(workload, model, state, range(5, 9))

  workload, resumed, fresh = _start(given)
  _torch_state.overlay({'model': resumed, 'state': fresh}, saved, device=CPU)
  _run(workload, resumed, fresh, range(5, 9))
  _assert_equal(_values(model), _values(resumed))


def test_the_step_is_that_of_a_native_submission():
  point = toys.POINT
  module = toys.submission('external', 'adamw', 'pytorch')
  workload, model, state = _start(
    settings(
      'torch.optim.AdamW',
      {
        'lr': point.learning_rate,
        'betas': [1 - point.one_minus_beta1, point.beta2],
        'weight_decay': point.weight_decay,
        'fused': True,
      },
      schedule='warmup_cosine',
      warmup=point.warmup_factor,
      grad_clip=point.grad_clip,
      label_smoothing=point.label_smoothing,
      dropout_rate=point.dropout_rate,
    )
  )
  _run(workload, model, state, range(6))
  native = toys.torch_model(toys.params())
  native_state = module.init_optimizer_state(workload, native, None, point, None)
  for step in range(6):
    module.update_params(
      current_param_container=native,
      model_state=None,
      batch=toys.torch_batch(toys.batches(1)[0]),
      optimizer_state=native_state,
      **toys.update_arguments(workload, point, step, None),
    )
  _assert_equal(_values(model), _values(native))


@pytest.mark.parametrize('schedule', ['constant', 'linear', 'warmup_cosine', 'wsd'])
def test_the_schedule_multiplies_the_learning_rate(schedule):
  given = settings('torch.optim.SGD', {'lr': 0.5}, schedule=schedule, warmup=0.2)
  workload, model, state = _start(given, _workload(step_hint=20))
  rates = []
  for step in range(20):
    rates.append(state['optimizer'].param_groups[0]['lr'])
    _run(workload, model, state, [step])
  assert rates[0] == 0 and rates[2] == pytest.approx(0.25) and rates[4] == pytest.approx(0.5)
  late = {'constant': 0.5, 'linear': 0.25, 'warmup_cosine': 0.25, 'wsd': 0.5}[schedule]
  assert rates[12] == pytest.approx(late)
  last = {'constant': 0.5, 'linear': 0.5 / 16, 'wsd': 0.5 / 4}
  assert rates[19] == pytest.approx(last.get(schedule, rates[19]))
  assert schedule == 'constant' or rates[19] < 0.2


# Closures.


class Counting(toys.TorchWorkload):
  """Remembers which forward passes update batch norm, and a random number of each."""

  def __init__(self):
    super().__init__()
    self.updates, self.masks = [], []

  def model_fn(self, *args, update_batch_norm, **kwargs):
    self.updates.append(update_batch_norm)
    self.masks.append(float(torch.rand(())))
    return super().model_fn(*args, update_batch_norm=update_batch_norm, **kwargs)


def _counted(name, hyperparameters):
  workload = Counting()
  workload.metrics_logger = toys.Logger()
  workload, model, state = _start(settings(name, hyperparameters), workload)
  _run(workload, model, state, range(2))
  return workload


def test_a_closure_sees_one_dropout_and_updates_batch_norm_once():
  workload = _counted('torch.optim.LBFGS', {'max_iter': 3})
  first = workload.updates.index(True, 1)
  assert first > 1, 'one evaluation a step would prove nothing'
  assert workload.updates == [index in (0, first) for index in range(len(workload.updates))]
  assert len(set(workload.masks[:first])) == 1
  assert len(set(workload.masks)) == 2
  assert len(workload.metrics_logger.rows) == 1


def test_two_passes_are_two():
  workload = _counted(f'{__name__}.TwoPasses', {})
  assert workload.updates == [True, False, True, False]


def test_modes_are_those_that_are_due():
  workload, model, state = _start(settings(f'{__name__}.WithModes', {'lr': 0.0}))
  before = _values(model)
  _run(workload, model, state, range(2))
  _assert_equal(_values(model), before)
  for _ in range(2):  # the second time there is nothing left to do
    _prepare(workload, model, state)
    _assert_equal(_values(model), {name: value + 1 for name, value in before.items()})
  _run(workload, model, state, range(2, 3))
  for name, value in _values(model).items():
    torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


# Matrices.


def test_hidden_matrices_go_to_muon_and_the_rest_to_adamw():
  given = settings('torch.optim.Muon', {'lr': 0.1, 'momentum': 0.8, 'adam_lr': 0.03})
  workload, model, state = _start(given)
  _run(workload, model, state, range(4))

  twin = toys.torch_model(toys.params())
  hidden = [twin.kernel_0]
  rest = [twin.bias_0, twin.kernel_1, twin.bias_1]
  both = [
    torch.optim.Muon(hidden, lr=0.1, momentum=0.8),
    torch.optim.AdamW(rest, lr=0.03),
  ]
  batch = toys.torch_batch(toys.batches(1)[0])
  for _ in range(4):
    twin.zero_grad()
    loss = workload.loss_fn(batch['targets'], twin(batch['inputs']), batch['weights'])
    (loss['summed'] / loss['n_valid_examples']).backward()
    for optimizer in both:
      optimizer.step()
  for name, value in _values(model).items():
    torch.testing.assert_close(value, _values(twin)[name], rtol=1e-6, atol=1e-7)


def test_adamw_beside_has_the_same_learning_rate_unless_given():
  _, _, state = _start(settings('torch.optim.Muon', {'lr': 0.07}))
  assert state['beside']['optimizer'].param_groups[0]['lr'] == 0.07
  with pytest.raises(UserError, match="no hyperparameter of the AdamW beside it 'momentum'"):
    _start(settings('torch.optim.Muon', {'adam_momentum': 0.9}))


def test_a_model_without_hidden_matrices_is_refused():
  workload = _workload()
  workload.parameter_roles = dict.fromkeys(
    workload.parameter_roles, workload.parameter_roles['kernel_1']
  )
  with pytest.raises(UserError, match=r'torch\.optim\.Muon trains hidden matrices .* has none'):
    _start(settings('torch.optim.Muon', {}), workload)


# The dry run.


@pytest.mark.parametrize('name', [*TORCH, *OWN])
def test_dry_runs(name):
  torch_dry_run.run(settings(name, {**TORCH, **OWN}[name], schedule='wsd'))


@pytest.mark.parametrize(
  ('hyperparameters', 'message'),
  [
    ({'lr': -1}, r'torch\.optim\.AdamW refuses its arguments: Invalid learning rate: -1'),
    ({'lrr': 1}, "Did you mean 'lr'"),
    ({'betas': 0.9}, 'betas of torch.optim.AdamW must be a sequence'),
  ],
)
def test_a_dry_run_finds_what_is_wrong(hyperparameters, message):
  with pytest.raises(UserError, match=message):
    torch_dry_run.run(settings('torch.optim.AdamW', hyperparameters))


# Several ranks.


@pytest.mark.slow
def test_ranks_train_as_one_does(tmp_path):
  script = Path(__file__).with_name('optimizer_ranks_script.py')
  ranks = [
    subprocess.Popen(
      [sys.executable, str(script), str(rank), str(tmp_path / 'store'), *TORCH],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(2)
  ]
  outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
  assert [rank.returncode for rank in ranks] == [0, 0], outputs
