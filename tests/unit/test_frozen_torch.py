"""Frozen parameters in PyTorch: they are buffers, and keep their initial values."""

from __future__ import annotations

import dataclasses

import numpy as np
import optimizer_toys
import pytest

torch = pytest.importorskip('torch')

from algorithmic_efficiency import errors, spec, trust  # noqa: E402
from algorithmic_efficiency.backends import torch as backend_torch  # noqa: E402
from algorithmic_efficiency.backends.base import Devices, TaskCode  # noqa: E402
from algorithmic_efficiency.benchmark import registry  # noqa: E402
from algorithmic_efficiency.optimizers import torch as optimizers  # noqa: E402

WORDS = np.array([1, 2], np.uint32)
FIRST = {'conv1.weight', 'bn1.weight', 'bn1.bias'}


def definition(*names, workload='quick_vision'):
  whole = registry.workload(workload).for_smoke()
  return dataclasses.replace(whole, frozen_params={'pytorch': names})


def code(workload='quick_vision'):
  return TaskCode.of(definition(workload=workload), 'pytorch')


@pytest.fixture(scope='module')
def backend():
  return backend_torch.start(Devices(platform='cpu', num_threads=1))


def begin(backend, *names, workload='quick_vision'):
  found = definition(*names, workload=workload)
  built = backend.workload(found, code(workload), next(iter(found.suites.values())))
  model, _ = built.init_model_fn(backend.key(WORDS))
  return built, model


@pytest.fixture
def first(backend):
  """The workload and the module of a model whose first layer is frozen."""
  return begin(backend, 'conv1', 'bn1')


def batch(backend, seed=0):
  return backend.place(code().data.fake_batch(definition(), 8, seed))


def logits(workload, model, batch):
  mode = spec.ForwardPassMode.TRAIN
  return workload.model_fn(model, batch, None, mode, None, update_batch_norm=False)[0]


def values(model):
  return {name: value.clone() for name, value in model.state_dict().items()}


def test_they_are_buffers_and_the_state_of_the_module_has_the_same_names(backend, first):
  _, model = first
  _, whole = begin(backend)
  parameters = {name for name, _ in model.named_parameters()}
  assert parameters == {name for name, _ in whole.named_parameters()} - FIRST
  assert {name for name, _ in model.named_buffers()} >= FIRST
  assert set(model.state_dict()) == set(whole.state_dict())
  for name, value in whole.named_parameters():  # that others are frozen does not change these
    if name in parameters:
      assert torch.equal(model.state_dict()[name], value), name


def test_what_a_submission_learns_of_parameters_is_of_those_that_are_trained(first):
  workload, model = first
  names = [name for name, _ in model.named_parameters()]
  for found in (workload.param_shapes, workload.model_params_types, workload.parameter_roles):
    assert list(found) == names
  listed = backend_torch.parameters(definition('conv1', 'bn1'), code())
  assert {one.name for one in listed if one.is_frozen} == FIRST


def test_the_forward_pass_is_that_of_the_whole_model(backend, first):
  workload, whole = begin(backend)
  whole.load_state_dict(first[1].state_dict())
  assert torch.equal(logits(*first, batch(backend)), logits(workload, whole, batch(backend)))


@pytest.mark.parametrize('optimizer', ['torch.optim.AdamW', 'torch.optim.Muon'])
def test_training_leaves_them_as_they_were(backend, first, optimizer):
  workload, model = first
  before = values(model)
  settings = optimizer_toys.settings(optimizer, {'lr': 0.1, 'weight_decay': 0.1})
  state = optimizers.start(workload, model, settings)
  workload.remember_frozen(model, None)
  for step in range(3):
    state, model, _ = optimizers.update_params(
      workload, model, None, None, None, batch(backend, step), None, state, [], step, [1, step]
    )
  after = values(model)
  unchanged = {name for name in before if torch.equal(before[name], after[name])}
  assert unchanged == FIRST | {'bn1.num_batches_tracked', 'bn2.num_batches_tracked'}
  workload.check_frozen(model, None)


def test_a_saved_state_has_them(backend, first):
  _, model = first
  packed = backend.pack({'params': model})
  fresh = begin(backend, 'conv1', 'bn1')[1]
  fresh.conv1.weight.zero_()
  backend.overlay({'params': fresh}, packed, fixed=('params',))
  assert torch.equal(fresh.conv1.weight, model.conv1.weight)


def test_an_evaluation_has_them(backend, first):
  batches = [{**code().data.fake_batch(definition(), 8, 0), 'weights': np.ones(8, np.float32)}]
  workload, whole = begin(backend)
  whole.load_state_dict(first[1].state_dict())
  expected = backend.eval_sums(workload, whole, None, batches, WORDS)
  assert backend.eval_sums(*first, None, batches, WORDS) == expected


def test_a_change_is_found_at_an_evaluation(first):
  workload, model = first
  workload.remember_frozen(model, None)
  workload.check_frozen(torch.nn.DataParallel(model), None)
  model.conv1.weight.view(-1)[0] += 1e-7
  with pytest.raises(trust.IntegrityError, match='change no buffer'):
    workload.check_frozen(model, None)
  del model.conv1.weight
  with pytest.raises(trust.IntegrityError, match='change no buffer'):
    workload.check_frozen(model, None)


def test_nothing_is_looked_at_where_nothing_is_frozen(backend):
  workload, _ = begin(backend)
  workload.remember_frozen(None, None)
  workload.check_frozen(None, None)


def test_a_frozen_parameter_is_made_again_by_itself(first):
  state = torch.random.get_rng_state()
  key = (WORDS >> 1).astype(np.int32)
  for name in FIRST:
    alone = backend_torch.frozen_param(definition(name), code(), key, name)
    assert torch.equal(alone, first[1].state_dict()[name]), name
  other = backend_torch.frozen_param(definition('conv1'), code(), key + 1, 'conv1.weight')
  assert not torch.equal(other, first[1].conv1.weight)
  assert torch.equal(torch.random.get_rng_state(), state)
  with pytest.raises(errors.UserError, match=r"'fc.bias' is none of quick_vision"):
    backend_torch.frozen_param(definition('conv1'), code(), key, 'fc.bias')


@pytest.mark.parametrize('name', ['conv', 'conv1.bias', 'Conv_0'])
def test_a_name_that_matches_nothing_is_an_error(backend, name):
  with pytest.raises(errors.UserError, match=f"nothing is called '{name}'. Its parameters: "):
    begin(backend, 'conv1', name)


def test_a_parameter_must_be_left_to_train(backend, first):
  with pytest.raises(errors.UserError, match='pytorch model of quick_vision it names all of them'):
    begin(backend, *dict(first[1].named_parameters()), *FIRST)


@pytest.mark.parametrize('name', ['embed_tokens', 'lm_head.weight'])
def test_a_tied_weight_is_frozen_under_all_its_names(backend, name):
  workload, model = begin(backend, name, workload='quick_lm')
  assert model.lm_head.weight is model.embed_tokens.weight
  assert not any(name.startswith(('embed', 'lm_head')) for name, _ in model.named_parameters())
  whole = begin(backend, workload='quick_lm')[1]
  assert set(model.state_dict()) == set(whole.state_dict())
  workload.remember_frozen(model, None)
  model.lm_head.weight = model.lm_head.weight + 1e-7
  with pytest.raises(trust.IntegrityError, match='change no buffer'):
    workload.check_frozen(model, None)
