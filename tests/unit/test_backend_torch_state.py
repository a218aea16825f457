"""Keeping and restoring the opaque state of a submission in PyTorch."""

from __future__ import annotations

import collections
import copy
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch_toy
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from algorithmic_efficiency import spec
from algorithmic_efficiency.backends import torch as backend_torch
from algorithmic_efficiency.backends._torch_state import overlay as overlay_on
from algorithmic_efficiency.backends._torch_state import overlay_trees, pack
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.trial.checkpoint import Checkpoints

CPU = torch.device('cpu')
WORDS = np.array([1, 2], np.uint32)


def overlay(fresh: Any, packed: Any) -> Any:
  return overlay_on(fresh, packed, device=CPU)


class Pair(NamedTuple):
  first: object
  second: object


class Averager:
  """Keeps and loads its own state, which grows and has a function in it."""

  def __init__(self, weight=None):
    self.history = []
    self.weight = weight

  def state_dict(self):
    return {'history': self.history, 'weight': self.weight}

  def load_state_dict(self, state):
    self.history, self.weight = state['history'], state['weight']


class HalfMomentum(torch.optim.Optimizer):
  """Keeps its momentum in bfloat16, a counter in int64 and a mask, whatever the parameters are."""

  def __init__(self, params):
    super().__init__(params, {'lr': 0.1, 'extra': (1, 'x', None)})

  @torch.no_grad()
  def step(self, closure=None):
    for group in self.param_groups:
      for p in group['params']:
        state = self.state[p]
        if not state:
          state['momentum'] = torch.zeros_like(p, dtype=torch.bfloat16)
          state['seen'] = torch.zeros((), dtype=torch.int64)
          state['parts'] = [torch.zeros_like(p, dtype=torch.float64)]
        state['momentum'].mul_(0.9).add_(p.grad)
        state['seen'] += 1
        state['parts'][0] += p.grad
        p -= group['lr'] * (state['momentum'] + state['parts'][0] / state['seen'])


def assert_same(tree, other):
  """Equal types, data types and values, to the last bit."""
  assert type(tree) is type(other)
  if isinstance(tree, (torch.Tensor, np.ndarray)):
    assert tree.dtype == other.dtype and tree.shape == other.shape
    if isinstance(tree, torch.Tensor):
      tree, other = (
        t.detach().resolve_conj().reshape(-1).view(torch.uint8).numpy() for t in (tree, other)
      )
    assert tree.tobytes() == other.tobytes()
  elif isinstance(tree, dict):
    assert tree.keys() == other.keys()
    for key, value in tree.items():
      assert_same(value, other[key])
  elif isinstance(tree, (list, tuple)):
    assert len(tree) == len(other)
    for value, its in zip(tree, other, strict=True):
      assert_same(value, its)
  else:
    assert tree == other or (tree != tree and other != other)


# Training goes on bit for bit.


def _adamw(parameters):
  optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
  warmup = lr_scheduler.LinearLR(optimizer, start_factor=1e-2, end_factor=1.0, total_iters=3)
  cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
  scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[3])
  return {'optimizer': optimizer, 'scheduler': scheduler, 'step': 0, 'hint': (1, len)}


def _nadam(parameters):
  groups = [{'params': [p], 'lr': 1e-2 * (i + 1)} for i, p in enumerate(parameters)]
  optimizer = torch.optim.NAdam(groups, decoupled_weight_decay=True)
  return {
    'optimizer': optimizer,
    'scheduler': lr_scheduler.LambdaLR(
      optimizer, [lambda i, k=k: 1 / (i + k) for k in range(1, 1 + len(groups))]
    ),
  }


def _momentum(parameters):
  optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
  return {'optimizer': optimizer, 'scheduler': lr_scheduler.OneCycleLR(optimizer, 0.1, 20)}


def _half(parameters):
  return {'optimizer': HalfMomentum(parameters)}


def _step_of_optimizer(state, model):
  state['optimizer'].step()
  if 'scheduler' in state:
    state['scheduler'].step()
  if 'step' in state:
    state['step'] += 1


def _by_hand(parameters):
  buffers = [torch.zeros_like(p) for p in parameters]

  @torch.no_grad()
  def step(parameters):
    for p, buffer in zip(parameters, buffers, strict=True):
      p -= 0.1 * buffer.mul_(0.9).add_(p.grad)

  return {'buffers': buffers, 'step': step, 'generator': torch.Generator()}


def _step_by_hand(state, model):
  """The function sees the buffers of its own making, so these have to be filled in place."""
  state['step'](list(model.parameters()))
  with torch.no_grad():
    for p in model.parameters():
      p += 1e-3 * torch.randn(p.shape, generator=state['generator'])


CASES = {
  'adamw': (_adamw, _step_of_optimizer),
  'nadam': (_nadam, _step_of_optimizer),
  'momentum': (_momentum, _step_of_optimizer),
  'half': (_half, _step_of_optimizer),
  'by_hand': (_by_hand, _step_by_hand),
}


class Trial:
  """The toy task under an optimizer, with random numbers that follow from the step."""

  def __init__(self, case: str):
    make, self._step = CASES[case]
    self._backend = backend_torch.start(Devices(platform='cpu', num_threads=1))
    self._workload = self._backend.workload(
      torch_toy.definition(), torch_toy.task(), torch_toy.BUDGET
    )
    self.params, _ = self._workload.init_model_fn(self._backend.key(WORDS))
    self.state = make(list(self.params.parameters()))

  def run(self, steps: range) -> None:
    for index in steps:
      self._backend.seed(index)
      batch = self._backend.place(torch_toy.batch(16, index))
      logits, _ = self._workload.model_fn(
        self.params, batch, None, spec.ForwardPassMode.TRAIN, None, update_batch_norm=True
      )
      self.params.zero_grad()
      self._workload.loss_fn(batch['targets'], logits)['summed'].backward()
      self._step(self.state, self.params)

  def saved(self) -> dict[str, Any]:
    return {'params': pack(self.params), 'state': pack(self.state)}

  def restore(self, saved: dict[str, Any]) -> None:
    params = self.params
    self.params = overlay(params, saved['params'])
    self.state = overlay(self.state, saved['state'])
    assert self.params is params


@pytest.mark.parametrize('case', CASES)
def test_training_goes_on_bit_for_bit(case, tmp_path):
  uninterrupted = Trial(case)
  uninterrupted.run(range(12))
  first = Trial(case)
  first.run(range(5))
  Checkpoints(tmp_path).save(5, first.saved())
  first.run(range(5, 7))  # what was saved is a copy
  second = Trial(case)
  second.run(range(2))  # whatever the fresh state has seen does not matter
  second.restore(Checkpoints(tmp_path).load().payload)
  second.run(range(5, 12))
  assert_same(second.saved(), uninterrupted.saved())


def test_the_same_packed_state_serves_twice():
  trial = Trial('adamw')
  trial.run(range(3))
  saved = trial.saved()
  before = copy.deepcopy(saved)
  for _ in range(2):
    again = Trial('adamw')
    again.restore(saved)
    again.run(range(3, 5))
    assert_same(saved, before)


# Every kind of container and leaf.


def _state(number: int) -> dict[Any, Any]:
  generator = torch.Generator()
  generator.manual_seed(number)
  return {
    'tensor': torch.full((2, 3), float(number)),
    'flags': torch.tensor([number > 1, True]),
    'count': torch.tensor(number),
    'double': torch.tensor([number], dtype=torch.float64),
    'half': torch.full((2, 2), number, dtype=torch.bfloat16),
    'quarter': torch.full((3,), number).to(torch.float8_e4m3fn),
    'half_scalar': torch.tensor(number, dtype=torch.bfloat16),
    'complex': torch.tensor([complex(0, number)]).conj(),
    'empty': torch.zeros((0, 3)),
    'strided': torch.arange(6.0).reshape(2, 3).t() * number,
    'parameter': nn.Parameter(torch.full((2,), float(number))),
    'numpy': np.arange(3) * number,
    'scalars': [np.float32(number), np.int64(number), complex(0, number), math.inf, math.nan],
    'plain': (number, float(number), str(number), number > 1, None, bytes([number])),
    'pair': Pair(torch.full((2,), number), [number, {}]),
    7: {'nested': [torch.ones(2) * number], 'nothing': ()},
    'function': len,
    'device': CPU,
  }


def _values(state: Any) -> Any:
  """The state without what is the same in every state, and tensors without their wrappers."""
  return {key: value for key, value in state.items() if key not in ('function', 'device')}


def test_every_kind_of_container_and_leaf(tmp_path):
  Checkpoints(tmp_path).save(1, pack(_state(2)))
  fresh = _state(1)
  restored = overlay(fresh, Checkpoints(tmp_path).load().payload)
  assert_same(_values(restored), _values(_state(2)))
  assert restored is fresh
  assert restored['function'] is len


def test_filling_is_in_place_and_keeps_what_refers_to_it():
  fresh = _state(1)
  names = ('tensor', 'half', 'strided', 'parameter', 'numpy', 'scalars', 7)
  before = {name: fresh[name] for name in names}
  strides = fresh['strided'].stride()
  restored = overlay(fresh, pack(_state(2)))
  for name in names:
    assert restored[name] is before[name], name
  assert restored['strided'].stride() == strides
  assert restored['parameter'].requires_grad


def test_a_tensor_without_a_match_goes_where_it_lived():
  packed = pack([torch.ones(2), torch.ones(2)])
  packed[1]['on_host'] = False
  restored = overlay_on([None, None], packed, device=torch.device('meta'))
  assert [tensor.device.type for tensor in restored] == ['cpu', 'meta']


def test_the_state_of_an_optimizer_moves_to_the_device_of_its_parameters():
  trial = Trial('half')
  trial.run(range(2))
  trial.params.to('meta')
  fresh = _half([nn.Parameter(p.detach().to('meta')) for p in trial.params.parameters()])
  overlay(fresh, pack(trial.state))
  for state in fresh['optimizer'].state.values():
    assert state['momentum'].dtype == torch.bfloat16
    assert state['momentum'].device.type == state['parts'][0].device.type == 'meta'


def test_a_packed_tensor_is_a_copy():
  tensor, array = torch.zeros(3), np.zeros(3)
  packed = pack([tensor, array])
  tensor += 1
  array += 1
  assert not packed[0]['data'].any() and not packed[1].any()


def test_a_number_that_became_a_tensor_is_one_again():
  restored = overlay({'step': 0, 'norm': None}, pack({'step': torch.tensor(7), 'norm': [1.5]}))
  assert_same(restored, {'step': torch.tensor(7), 'norm': [1.5]})
  assert overlay({'step': torch.tensor(0)}, pack({'step': 7})) == {'step': 7}


def test_functions_are_kept_from_the_fresh_state():
  old, new = (lambda: 'old'), (lambda: 'new')
  restored = overlay((torch.zeros(2), new, nn.Linear), pack((torch.ones(2), old, nn.Conv2d)))
  assert restored[1] is new and restored[2] is nn.Linear
  assert_same(restored[0], torch.ones(2))


def test_an_object_with_state_dict_keeps_its_own_state():
  old, fresh = Averager(min), Averager(max)
  old.history = [torch.ones(2), (1, 2.5), {'k': np.arange(2)}]
  restored = overlay({'a': fresh}, pack({'a': old}))
  assert restored['a'] is fresh
  assert_same(fresh.history, old.history)
  assert fresh.weight is max


def test_a_module_is_kept_without_its_wrappers():
  module, other = nn.Linear(2, 3), nn.Linear(2, 3)
  packed = pack(torch.compile(nn.DataParallel(module)))
  assert set(packed['data']) == {'weight', 'bias'}
  wrapped = nn.DataParallel(torch.compile(other))
  assert overlay(wrapped, packed) is wrapped
  assert_same(dict(other.state_dict()), dict(module.state_dict()))


@pytest.mark.parametrize(
  ('leaf', 'message'),
  [
    (object(), r"\['deep'\]\[1\] is a object"),
    ({1, 2}, r"\['deep'\]\[1\] is a set"),
    (np.array([None]), r"\['deep'\]\[1\] is a ndarray"),
    (torch.eye(2).to_sparse(), r"\['deep'\]\[1\] is a Tensor with the layout torch.sparse_coo"),
    ({(1, 2): 3}, r"\['deep'\]\[1\] has the key \(1, 2\)"),
    ({torch.zeros(1): 3}, r"\['deep'\]\[1\] has the key tensor"),
    ({'__kind__': 3}, r"\['deep'\]\[1\] has the key '__kind__'"),
    (Averager(weight=object()), r"\['deep'\]\[1\]\['weight'\] is a object"),
  ],
)
def test_what_cannot_be_kept_is_named(leaf, message):
  with pytest.raises(TypeError, match=message):
    pack({'deep': (0, leaf)})


def _optimizer(*sizes: int) -> torch.optim.Optimizer:
  return torch.optim.SGD([nn.Parameter(torch.zeros(size)) for size in sizes], lr=0.1)


@pytest.mark.parametrize(
  ('fresh', 'saved', 'message'),
  [
    ({'a': 1, 'b': 2}, {'a': 1}, r"\['b'\] is not in the saved one"),
    ({'a': (1,)}, {'a': (1, 2)}, r"\['a'\]\[1\] was saved but is not in it"),
    ({'a': [1, 2]}, {'a': [1]}, r"\['a'\]\[1\] is not in the saved one"),
    ({'a': (1, 2)}, {'a': (1,)}, r"\['a'\]\[1\] is not in the saved one"),
    ({'a': [1]}, {'a': {'b': 1}}, r"\['a'\] is a dict in the saved state"),
    ({'a': (1,)}, {'a': [1]}, r"\['a'\] is a list in the saved state"),
    ({'a': {'b': 1}}, {'a': 1}, r"\['a'\] is a int in the saved state"),
    ({'a': 1}, {'a': [1]}, r"\['a'\] is a list in the saved state"),
    ({'a': torch.ones(2)}, {'a': torch.ones(3)}, r"\['a'\] has the shape \(3,\).*\(2,\)"),
    ({'a': [1]}, {'a': torch.ones(3)}, r"\['a'\] is a list in the fresh state"),
    ({'a': torch.ones(3)}, {'a': [1]}, r"\['a'\] is a list in the saved state"),
    ({'a': np.ones(2)}, {'a': np.ones(3)}, r"\['a'\] has the shape \(3,\).*\(2,\)"),
    (torch.ones(2), torch.ones(3), 'the state itself has the shape'),
    ({'a': len}, {'a': 1}, r"\['a'\] is a function in the fresh state"),
    ({'a': 1}, {'a': len}, r"\['a'\] was a function when it was saved"),
    ({'a': None}, {'a': [len]}, r"\['a'\]\[0\] was a function when it was saved"),
    ({'a': Averager()}, {'a': 1}, r"\['a'\] is an object with state_dict in only one"),
    ({'a': 1}, {'a': Averager()}, r"\['a'\] is an object with state_dict in only one"),
    ({'a': Averager()}, {'a': Averager(len)}, r"\['a'\]\['weight'\] was a function"),
    ({'a': torch.Generator()}, {'a': 1}, r"\['a'\] is a random generator in only one"),
    (nn.Linear(2, 3), nn.Linear(2, 3, bias=False), r"\['bias'\] is not in the saved one"),
    (nn.Linear(2, 3, bias=False), nn.Linear(2, 3), r"\['bias'\] was saved but is not in it"),
    (nn.Linear(2, 3), nn.Linear(2, 4), r"\['weight'\] has the shape \(4, 2\).*\(3, 2\)"),
    ({'o': _optimizer(2)}, {'o': _optimizer(2, 3)}, r"\['o'\] refuses the saved state"),
  ],
)
def test_a_state_that_does_not_fit_is_named(fresh, saved, message):
  with pytest.raises(ValueError, match=message):
    overlay(fresh, pack(saved))


@pytest.mark.parametrize(
  ('fresh', 'saved'),
  [
    ({'adam': 1, 'kept': None}, {'adam': 2, 'kept': {'w': torch.ones(2), 'b': None}}),
    ({'adam': 1}, {'adam': 2, 'kept': (torch.ones(2), [3.5])}),
    ({'history': [1]}, {'history': [2, {'x': torch.ones(1, dtype=torch.bfloat16)}]}),
    ({'once': {'x': torch.ones(2)}, 'f': 1}, {'once': None, 'f': 2}),
    ({'once': torch.ones(2), 'o': Averager()}, {'once': None, 'o': None}),
    (None, {'a': 1}),
  ],
)
def test_a_structure_that_has_changed_since_the_start_comes_back(fresh, saved, tmp_path):
  Checkpoints(tmp_path).save(1, {'state': pack(saved)})
  assert_same(overlay(fresh, Checkpoints(tmp_path).load().payload['state']), saved)


@pytest.mark.parametrize(
  ('fresh', 'saved'), [({'b': 1}, {'b': 1, 'a': 1}), ({'a': [0]}, {'a': None})]
)
def test_parameters_do_not_change_their_structure(fresh, saved):
  with pytest.raises(ValueError, match=r"\['params'\]\['a'\]"):
    overlay_trees({'params': fresh}, {'params': pack(saved)}, device=CPU, fixed=('params',))


# Tensors that share memory.


class Sharing:
  """A module and an optimizer state, packed together."""

  def __init__(self, value: float = 0.0):
    self.model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
      self.model.weight.fill_(value)
    self.state: dict[str, Any] = {}

  def trees(self) -> dict[str, Any]:
    return {'params': self.model, 'optimizer_state': self.state}

  def resumed_from(self, saved: Sharing) -> Sharing:
    overlay_trees(self.trees(), pack(saved.trees()), device=CPU, fixed=('params',))
    assert_same(dict(self.model.state_dict()), dict(saved.model.state_dict()))
    return self


def share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
  before = one.detach().clone()
  with torch.no_grad():
    other.add_(1.0)
    changed = not torch.equal(one, before)
    other.sub_(1.0)
  return changed


@pytest.mark.parametrize('is_fresh_shared', [False, True, None])
def test_what_shares_the_memory_of_a_parameter_does_so_again(is_fresh_shared):
  """Regression: it was restored as a tensor of its own, and later steps differed."""
  saved, fresh = Sharing(3.0), Sharing()
  saved.state['first'] = saved.model.weight.data
  if is_fresh_shared is not None:
    weight = fresh.model.weight.data
    fresh.state['first'] = weight if is_fresh_shared else weight.clone()
  fresh.resumed_from(saved)
  assert share_memory(fresh.state['first'], fresh.model.weight)


def test_so_does_what_an_optimizer_keeps():
  saved, fresh = Sharing(3.0), Sharing()
  for trial in (saved, fresh):
    trial.state['optimizer'] = torch.optim.SGD(trial.model.parameters(), lr=0.1)
  weight = saved.model.weight
  saved.state['optimizer'].state[weight] = {'first': weight.data.cpu(), 'other': weight + 1}
  fresh.resumed_from(saved)
  found = fresh.state['optimizer'].state[fresh.model.weight]
  assert share_memory(found['first'], fresh.model.weight)
  assert not share_memory(found['other'], fresh.model.weight)


def test_tensors_of_a_state_share_memory_as_they_did():
  saved, fresh = Sharing(), Sharing()
  one = torch.arange(3.0)
  saved.state.update(a=one, b=[one, one.clone()])
  found = fresh.resumed_from(saved).state
  assert share_memory(found['a'], found['b'][0]) and not share_memory(found['a'], found['b'][1])


def test_what_no_longer_shares_memory_leaves_the_parameter_alone():
  """Regression: the values of the state were written into the parameter."""
  saved, fresh = Sharing(3.0), Sharing()
  saved.state['average'] = torch.full((2, 2), 7.0)
  fresh.state['average'] = fresh.model.weight.data
  fresh.resumed_from(saved)
  assert not share_memory(fresh.state['average'], fresh.model.weight)
  assert (fresh.state['average'] == 7.0).all() and (fresh.model.weight == 3.0).all()


def test_a_parameter_in_the_state_is_the_parameter():
  saved, fresh = Sharing(3.0), Sharing()
  for trial in (saved, fresh):
    trial.state['params'] = list(trial.model.parameters())
  assert fresh.resumed_from(saved).state['params'][0] is fresh.model.weight


def test_a_part_that_the_fresh_state_shares_too_is_filled():
  saved, fresh = Sharing(3.0), Sharing()
  for trial in (saved, fresh):
    trial.state['row'] = trial.model.weight.data[0]
  fresh.resumed_from(saved)
  assert share_memory(fresh.state['row'], fresh.model.weight)


@pytest.mark.parametrize('is_fresh_there', [False, True])
def test_a_part_of_the_memory_of_a_parameter_is_named(is_fresh_there):
  saved, fresh = Sharing(3.0), Sharing()
  saved.state['row'] = saved.model.weight.data[0]
  if is_fresh_there:
    fresh.state['row'] = torch.zeros(2)
  with pytest.raises(ValueError, match=r"\['row'\] shares a part of its memory with \['params'\]"):
    fresh.resumed_from(saved)


def test_neighbors_in_one_storage_share_no_memory():
  saved, fresh = Sharing(), Sharing()
  saved.state['parts'] = list(torch.arange(6.0).chunk(3))
  found = fresh.resumed_from(saved).state['parts']
  assert_same(found, saved.state['parts'])


def test_tied_weights_of_a_module_are_loaded_as_they_are():
  saved, fresh = (nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]) for _ in range(2))
  for module in (saved, fresh):
    module[1].weight = module[0].weight
  overlay(fresh, pack(saved))
  assert_same(dict(fresh.state_dict()), dict(saved.state_dict()))
  assert fresh[1].weight is fresh[0].weight


def test_what_version_0_1_0_packed_is_filled_in_place():
  saved, fresh = Sharing(3.0), Sharing()
  saved.state['first'] = torch.ones(2)
  fresh.state['first'] = before = torch.zeros(2)
  packed = pack(saved.trees())
  del packed['optimizer_state']['first']['shares'], packed['optimizer_state']['first']['overlaps']
  overlay_trees(fresh.trees(), packed, device=CPU)
  assert fresh.state['first'] is before and (before == 1.0).all()


_leaves = st.one_of(
  st.integers(-(2**31), 2**31 - 1),
  st.floats(width=32, allow_nan=False),
  st.booleans(),
  st.text(max_size=3),
  st.none(),
  st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32)),
  st.integers(0, 3).map(lambda n: torch.arange(n, dtype=torch.bfloat16)),
)
_trees = st.recursive(
  _leaves,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.tuples(inner, inner),
    st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=3),
    st.builds(Pair, inner, inner),
  ),
  max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(_trees)
def test_any_tree_survives_being_packed_and_laid_over_itself(tree):
  expected = copy.deepcopy(tree)
  assert_same(overlay(tree, pack(tree)), expected)


# Objects that say nothing of their state.


class Queue:
  """The last few copies of some weights."""

  def __init__(self):
    self.copies = collections.deque(maxlen=2)
    self.label = 'none'


def test_an_object_without_a_state_dict_is_kept_by_its_attributes():
  saved, fresh = Queue(), Queue()
  for number in range(3):
    saved.copies.append([torch.full((2,), float(number)), number])
  saved.label, saved.later = 'full', {'x': torch.ones(1)}
  copies = fresh.copies
  restored = overlay({'queue': fresh}, pack({'queue': saved}))['queue']
  assert restored is fresh and fresh.copies is copies and copies.maxlen == 2
  assert_same(list(copies), list(saved.copies))
  assert_same([fresh.label, fresh.later], [saved.label, saved.later])


def test_what_is_kept_of_an_object_is_a_copy():
  queue = Queue()
  queue.copies.append(torch.zeros(1))
  packed = pack(queue)
  queue.copies[0] += 1
  assert overlay(Queue(), packed).copies[0] == 0


def test_an_object_that_holds_itself_is_named():
  queue = Queue()
  queue.owner = {'back': queue}
  with pytest.raises(TypeError, match=r"\['q'\]\['owner'\]\['back'\] is a Queue"):
    pack({'q': queue})


def test_an_object_that_lacks_an_attribute_is_named():
  fresh = Queue()
  fresh.extra = 1
  with pytest.raises(ValueError, match=r"\['extra'\] is not in the saved one"):
    overlay(fresh, pack(Queue()))
  with pytest.raises(ValueError, match=r"\['q'\] was an object with attributes"):
    overlay({'q': 1}, pack({'q': Queue()}))


@pytest.mark.parametrize('empty', [{}, [], None, collections.deque()])
def test_what_is_empty_at_the_start_takes_what_comes(empty):
  saved = {
    dict: {'a': torch.ones(2), 'b': [1]},
    list: [torch.ones(2), {'a': 1}],
    type(None): [torch.ones(2)],
    collections.deque: collections.deque([torch.ones(2)]),
  }[type(empty)]
  restored = overlay({'x': empty}, pack({'x': saved}))['x']
  assert type(restored) is type(saved)
  assert_same(
    restored if isinstance(saved, dict) else list(restored),
    (saved if isinstance(saved, dict) else list(saved)),
  )
  assert empty is None or restored is empty
