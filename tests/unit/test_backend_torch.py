"""The PyTorch backend in one process on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch_toy
from torch import nn

from algorithmic_efficiency import errors, spec, trust
from algorithmic_efficiency.backends import _torch_workload
from algorithmic_efficiency.backends import torch as backend_torch
from algorithmic_efficiency.backends._torch_backend import TorchBackend
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.spec import ForwardPassMode, LossType, ParameterType

WORDS = np.array([1, 2], np.uint32)
TRAIN, EVAL = ForwardPassMode.TRAIN, ForwardPassMode.EVAL
REFERENCE = Path(__file__).parents[3] / 'shared' / 'reference'


@pytest.fixture(scope='module')
def backend():
  return backend_torch.start(Devices(platform='cpu', num_threads=1))


@pytest.fixture
def toy(backend):
  """The toy workload, a fresh module and a placed batch."""
  workload = backend.workload(torch_toy.definition(), torch_toy.task(), torch_toy.BUDGET)
  model, state = workload.init_model_fn(backend.key(WORDS))
  assert state is None
  return workload, model, backend.place(torch_toy.batch(16, 0))


# Starting.


def test_devices_and_processes_must_be_as_many():
  with pytest.raises(errors.UserError, match='4 devices were asked for with 2 process'):
    backend_torch.start(Devices(platform='cpu', num_devices=4, world_size=2, address='localhost:1'))


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_an_absent_platform_is_a_user_error(platform):
  with pytest.raises(errors.UserError, match=rf'--platform {platform} (needs a GPU|is for JAX)'):
    backend_torch.start(Devices(platform=platform))


def test_every_process_needs_a_gpu_of_its_own(monkeypatch):
  monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
  devices = Devices(world_size=3, rank=2, local_rank=2, address='localhost:1')
  with pytest.raises(errors.UserError, match=r'PyTorch finds 2 .* at least 3 processes'):
    backend_torch.start(devices)


def test_a_missing_framework_is_a_user_error_with_the_install_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.UserError, match=r"'torch'.*algorithmic-efficiency\[torch\]"):
    backend_torch.start(Devices(platform='cpu'))


def test_one_process_finds_no_place_among_others_in_the_environment(monkeypatch):
  """An entry that finds LOCAL_RANK would reduce over a group that does not exist."""
  for name in ('LOCAL_RANK', 'RANK', 'WORLD_SIZE'):
    monkeypatch.setenv(name, '0')
  backend_torch.start(Devices(platform='cpu'))
  assert 'LOCAL_RANK' not in os.environ


def test_the_description_is_plain_and_says_what_runs(backend):
  facts = backend.describe()
  json.dumps(facts)
  assert facts['versions'] == {'torch': torch.__version__}
  assert (facts['platform'], facts['num_devices'], facts['num_threads']) == ('cpu', 1, 1)
  assert facts['compiles'] is False


# Keys and batches.


def test_a_key_is_two_numbers_that_are_not_negative(backend):
  key = backend.key(np.array([2**32 - 1, 2**31], np.uint32))
  assert key.dtype == np.int32 and key.tolist() == [2**31 - 1, 2**30]
  torch.manual_seed(key[0])


class Tokens(NamedTuple):
  ids: np.ndarray
  lengths: np.ndarray


def test_place_keeps_values_structure_and_missing_weights(backend):
  batch = {
    'inputs': (np.ones((4, 2), np.float32), np.arange(4)),
    'targets': Tokens(np.arange(6).reshape(2, 3)[:, ::2], np.array([True])),
    'more': {'nested': [np.float64([1.5])]},
    'weights': None,
  }
  placed = backend.place(batch)
  assert placed['weights'] is None
  assert isinstance(placed['targets'], Tokens) and isinstance(placed['inputs'], tuple)
  assert placed['inputs'][0].dtype == torch.float32
  assert placed['targets'].ids.tolist() == [[0, 2], [3, 5]]
  assert placed['more']['nested'][0].dtype == torch.float64


def test_whole_numbers_are_placed_as_int64(backend):
  batch = {
    'inputs': np.arange(6, dtype=np.int32).reshape(2, 3),
    'targets': (np.array([1, -1], np.int32), np.array([2**31 - 1], np.int64)),
    'weights': np.ones(2, np.float32),
    'masks': np.array([True, False]),
    'pixels': np.array([255], np.uint8),
  }
  placed = backend.place(batch)
  assert placed['inputs'].dtype == placed['targets'][0].dtype == torch.int64
  assert placed['inputs'].tolist() == [[0, 1, 2], [3, 4, 5]]
  assert [x.tolist() for x in placed['targets']] == [[1, -1], [2**31 - 1]]
  kinds = [placed[name].dtype for name in ('weights', 'masks', 'pixels')]
  assert kinds == [torch.float32, torch.bool, torch.uint8]
  assert batch['inputs'].dtype == np.int32


# The model.


def test_the_same_key_gives_the_same_parameters(backend, toy):
  workload, model, _ = toy
  again, _ = workload.init_model_fn(backend.key(WORDS))
  other, _ = workload.init_model_fn(backend.key(WORDS + 7))
  assert again is not model
  assert (
    backend.change_marker(again) == backend.change_marker(model) != backend.change_marker(other)
  )


def test_shapes_and_types_by_name(toy):
  workload, model, _ = toy
  assert workload.param_shapes == {
    name: spec.ShapeTuple(tuple(p.shape)) for name, p in model.named_parameters()
  }
  assert workload.model_params_types == {
    'dense.weight': ParameterType.WEIGHT,
    'dense.bias': ParameterType.BIAS,
    'bn.weight': ParameterType.BATCH_NORM_SCALE,
    'bn.bias': ParameterType.BATCH_NORM_BIAS,
    'head.weight': ParameterType.WEIGHT,
    'head.bias': ParameterType.BIAS,
  }


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('layer1.0.bn1.weight', 'BATCH_NORM_SCALE'),
    ('bn_conv.bias', 'BATCH_NORM_BIAS'),
    ('encoder.norm1.weight', 'LAYER_NORM_SCALE'),
    ('ln.scale', 'LAYER_NORM_SCALE'),
    ('self_attention.ln.bias', 'LAYER_NORM_BIAS'),
    ('conv1.weight', 'CONV_WEIGHT'),
    ('up_conv.3.1.bias', 'BIAS'),
    ('shared_embedding.weight', 'EMBEDDING'),
    ('embed_tokens.weight', 'EMBEDDING'),
    ('pos_embed', 'WEIGHT'),
    ('self_attn.in_proj.weight', 'ATTENTION_QKV'),
    ('layers.0.attn.w_qkv.weight', 'ATTENTION_QKV'),
    ('layers.0.attn.w_out.weight', 'ATTENTION_OUT'),
    ('layers.0.attn.attn_scale', 'WEIGHT'),
    ('layers.0.attn_norm.weight', 'LAYER_NORM_SCALE'),
    ('out_norm.weight', 'LAYER_NORM_SCALE'),
    ('self_attention.in_proj.bias', 'ATTENTION_BIAS'),
    ('multihead_attn.kv_proj.weight', 'ATTENTION_KV'),
    ('multihead_attn.q_proj.weight', 'ATTENTION_Q'),
    ('attn.k_proj.weight', 'ATTENTION_K'),
    ('attn.v_proj.weight', 'ATTENTION_V'),
    ('self_attention1.query.weight', 'ATTENTION_Q'),
    ('self_attention1.key.weight', 'ATTENTION_K'),
    ('self_attention1.value.weight', 'ATTENTION_V'),
    ('self_attention1.out.weight', 'ATTENTION_OUT'),
    ('self_attention.qs.scale', 'WEIGHT'),
    ('fc.bias', 'BIAS'),
    ('top_mlp.4.weight', 'WEIGHT'),
  ],
)
def test_the_type_of_a_parameter_follows_from_its_name(name, kind):
  assert _torch_workload.param_types([name]) == {name: ParameterType[kind]}


@pytest.mark.parametrize('name', ['bn1.gamma', 'norm.g', 'attn.alpha'])
def test_a_name_that_does_not_tell_its_type_is_an_error(name):
  with pytest.raises(ValueError, match=name):
    _torch_workload.param_types([name])


def test_every_parameter_of_algoperf_s_models_has_a_type():
  file = REFERENCE / 'parameters_pytorch.json'
  if not file.is_file():
    pytest.skip(f'there are no names of parameters at {file}')
  for workload in json.loads(file.read_text()).values():
    _torch_workload.param_types(workload.get('params', {}))


@pytest.mark.parametrize(
  ('device', 'capability', 'expected'),
  [('cpu', None, 'float32'), ('cuda', (8, 0), 'bfloat16'), ('cuda', (7, 5), 'float32')],
)
def test_models_compute_in_the_definition_s_type_on_a_gpu_that_has_it(
  device, capability, expected, monkeypatch
):
  monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)

  class BuildingError(Exception):
    pass

  def build(definition, *, dtype=torch.float32):
    raise BuildingError(dtype)

  task = torch_toy.task()
  task.model.build = build
  definition = torch_toy.definition(accelerator_dtype='bfloat16')
  backend = TorchBackend(torch.device(device), Devices(), compiles=False)
  with pytest.raises(BuildingError, match=f'^torch.{expected}$'):
    backend.workload(definition, task, torch_toy.BUDGET).init_model_fn(backend.key(WORDS))


def test_output_parameters_are_found_under_any_wrapper(toy):
  workload, _, _ = toy
  for prefix in ('', 'module.', '_orig_mod.', '_orig_mod.module.', 'module._orig_mod.'):
    assert workload.is_output_params(f'{prefix}head.bias')
    assert not workload.is_output_params(f'{prefix}dense.bias')


def test_unwrapping_takes_wrappers_off_in_any_order(toy):
  _, model, _ = toy
  wrapped = [
    nn.DataParallel(model),
    torch.compile(model),
    torch.compile(nn.DataParallel(model)),
    nn.DataParallel(torch.compile(model)),
  ]
  assert all(_torch_workload.unwrap(outer) is model for outer in (model, *wrapped))


def test_parameters_are_listed_without_memory(monkeypatch):
  allocated = []
  trunc_normal = nn.init.trunc_normal_
  monkeypatch.setattr(
    nn.init, 'trunc_normal_', lambda t, **k: (allocated.append(t.device.type), trunc_normal(t, **k))
  )
  definition = registry.workload('mnist')
  task = TaskCode(data=None, model=registry.module_of(definition, 'pytorch'))  # type: ignore[arg-type]
  listed = backend_torch.parameters(definition, task)
  assert [(one.name, one.shape, one.type.name, one.role.value) for one in listed] == [
    ('net.layer1.weight', (128, 784), 'WEIGHT', 'hidden_matrix'),
    ('net.layer1.bias', (128,), 'BIAS', 'bias'),
    ('net.layer2.weight', (10, 128), 'WEIGHT', 'head'),
    ('net.layer2.bias', (10,), 'BIAS', 'bias'),
  ]
  assert set(allocated) == {'meta'}


def test_a_parameter_with_two_names_is_an_output_by_either():
  class Tied(nn.Module):
    def __init__(self):
      super().__init__()
      self.embed_tokens = nn.Embedding(7, 4)
      self.lm_head = nn.Linear(4, 7, bias=False)
      self.lm_head.weight = self.embed_tokens.weight

  [one] = _torch_workload.described(Tied(), ('lm_head.weight',).__contains__)
  assert (one.name, one.role.value) == ('embed_tokens.weight', 'tied')


# The forward pass.


def _forward(workload, model, batch, mode=TRAIN, update=True, **options):
  logits, state = workload.model_fn(
    params=model,
    augmented_and_preprocessed_input_batch=batch,
    model_state=None,
    mode=mode,
    rng=None,
    update_batch_norm=update,
    **options,
  )
  assert state is None
  return logits


def _buffers(model):
  return {name: value.clone() for name, value in model.named_buffers()}


def _changed(model, before):
  return {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}


NORMS = {'ours': layers.BatchNorm1d, 'plain': nn.BatchNorm1d}


@pytest.fixture(params=NORMS)
def normed(request, backend):
  """A toy workload with a batch norm of ours, or of torch; the module has seen a few batches."""
  task = torch_toy.task(NORMS[request.param])
  workload = backend.workload(torch_toy.definition(), task, torch_toy.BUDGET)
  model, _ = workload.init_model_fn(backend.key(WORDS))
  batch = backend.place(torch_toy.batch(16, 0))
  for _ in range(3):
    _forward(workload, model, batch)
  return workload, model, batch


def _flags(model):
  return [
    (m.training, m.momentum, m.track_running_stats, getattr(m, 'update_running_stats', None))
    for m in model.modules()
    if isinstance(m, nn.BatchNorm1d)
  ]


def test_training_updates_the_running_averages(normed):
  workload, model, batch = normed
  before = _buffers(model)
  _forward(workload, model, batch)
  assert _changed(model, before) >= {'bn.running_mean', 'bn.running_var'}


def test_update_batch_norm_false_leaves_every_buffer_untouched_for_that_call(normed):
  workload, model, batch = normed
  expected = _forward(workload, model, batch, dropout_rate=0.0)
  before, flags = _buffers(model), _flags(model)
  logits = _forward(workload, model, batch, update=False, dropout_rate=0.0)
  assert _changed(model, before) == set()
  torch.testing.assert_close(logits, expected)  # normalised by the batch all the same
  assert _flags(model) == flags
  _forward(workload, model, batch)
  assert _changed(model, before) >= {'bn.running_mean'}


def test_running_averages_stay_finite_when_a_batch_that_does_not_count_is_not(normed):
  workload, model, batch = normed
  broken = {**batch, 'inputs': batch['inputs'] * float('nan')}
  _forward(workload, model, broken, update=False)
  assert all(torch.isfinite(value).all() for value in _buffers(model).values())


@pytest.mark.parametrize('mode', [TRAIN, EVAL])
def test_what_batch_norm_normalises_by_can_be_said(mode, normed):
  workload, model, batch = normed
  by_batch = _forward(workload, model, batch, update=False, dropout_rate=0.0)
  by_average = _forward(workload, model, batch, mode=EVAL, update=False)
  assert not torch.allclose(by_batch, by_average)
  before = _buffers(model)
  for use_running, expected in ((True, by_average), (False, by_batch)):
    logits = _forward(
      workload, model, batch, mode, False, use_running_average_bn=use_running, dropout_rate=0.0
    )
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
  assert _changed(model, before) == set()


def test_the_switches_are_set_back_when_the_forward_pass_fails(normed):
  workload, model, batch = normed
  _forward(workload, model, batch)
  flags = _flags(model)
  with pytest.raises(RuntimeError):
    _forward(workload, model, {'inputs': batch['inputs'][:, :2]}, update=False)
  assert _flags(model) == flags


def test_updating_batch_norm_in_evaluation_is_an_error(toy):
  workload, model, batch = toy
  with pytest.raises(ValueError, match='cannot be updated during evaluation'):
    _forward(workload, model, batch, mode=EVAL, update=True)


def test_gradients_and_modes(toy):
  workload, model, batch = toy
  assert _forward(workload, model, batch).requires_grad and model.bn.training
  assert not _forward(workload, model, batch, EVAL, False).requires_grad
  assert not model.training and not model.bn.training


def test_dropout_is_the_definition_s_unless_it_is_said(backend, toy):
  workload, model, batch = toy

  def same(*args, **options):
    return torch.equal(
      *(_forward(workload, model, batch, *args, update=False, **options) for _ in range(2))
    )

  assert not same(TRAIN)
  assert same(TRAIN, dropout_rate=0.0)
  assert same(EVAL) and same(EVAL, dropout_rate=0.9)
  workload.init_model_fn(backend.key(WORDS), 0.0, 0.0)  # AlgoPerf's older call style
  assert same(TRAIN)


def test_a_second_dropout_rate_is_that_of_init_and_for_training_alone(backend):
  given = []

  def forward(model, batch, *, aux_dropout_rate=0.0, **options):
    given.append(aux_dropout_rate)
    return toy_code.forward(model, batch, **options)

  task = torch_toy.task()
  toy_code = task.model
  model = SimpleNamespace(**{**vars(toy_code), 'forward': forward})
  workload = backend.workload(torch_toy.definition(), replace(task, model=model), torch_toy.BUDGET)
  batch = backend.place(torch_toy.batch(16, 0))
  for rate in (None, 0.25):
    module, _ = workload.init_model_fn(backend.key(WORDS), 0.0, rate)
    given.clear()
    for mode in (TRAIN, EVAL):
      _forward(workload, module, batch, mode, mode is TRAIN)
    assert given == [rate or 0.0, 0.0]


def test_losses_and_activations(backend, toy):
  workload, model, batch = toy
  logits = _forward(workload, model, batch)
  loss = workload.loss_fn(batch['targets'], logits, batch['weights'], label_smoothing=0.1)
  assert loss['per_example'].shape == (16,)
  torch.testing.assert_close(loss['summed'], loss['per_example'].sum())
  for loss_type, expected in (
    (LossType.SOFTMAX_CROSS_ENTROPY, torch.softmax(logits, -1)),
    (LossType.SIGMOID_CROSS_ENTROPY, torch.sigmoid(logits)),
    (LossType.MEAN_SQUARED_ERROR, logits),
  ):
    definition = torch_toy.definition(loss_type=loss_type)
    other = backend.workload(definition, torch_toy.task(), torch_toy.BUDGET)
    assert torch.equal(other.output_activation_fn(logits, 'pytorch'), expected)


def test_predictions_are_those_of_the_logits_beside_auxiliary_losses(toy):
  logits = torch.tensor([[0.0, 2.0, 1.0]])
  outputs = layers.Outputs(logits, {'balance': torch.ones(())})
  assert torch.equal(toy[0].output_activation_fn(outputs), torch.softmax(logits, -1))


# Losses by task.


@pytest.fixture
def tasks(backend):
  """A workload of three tasks, and a function of logits that gives the losses by task."""
  definition = torch_toy.definition(task_names=('a', 'b', 'c'))
  workload = backend.workload(definition, torch_toy.task(), torch_toy.BUDGET)
  batch = backend.place(torch_toy.batch(8, 0, 6))

  def by_task(logits, task, mask=batch['weights']):
    return workload.task_losses(batch['targets'], logits, mask, torch.tensor(task))

  return workload, batch, by_task


LOGITS = torch.tensor(np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32))
TASK = [0, 2, 0, 2, 2, 0, 0, 2]


def test_each_task_has_the_loss_of_its_examples(tasks):
  workload, batch, by_task = tasks
  found = by_task(LOGITS, TASK)
  for index in range(3):
    rows = index == torch.tensor(TASK)
    alone = workload.loss_fn(batch['targets'][rows], LOGITS[rows], batch['weights'][rows])
    for name in ('summed', 'n_valid_examples'):
      torch.testing.assert_close(found[name][index], alone[name])
  assert found['n_valid_examples'].tolist() == [3, 0, 3]
  assert by_task(LOGITS, TASK, None)['n_valid_examples'].tolist() == [4, 0, 4]


def test_a_task_out_of_range_belongs_to_none(tasks):
  _, _, by_task = tasks
  found = by_task(LOGITS, [0, 0, 0, 0, 0, -1, 3, 0])
  assert found['n_valid_examples'].tolist() == [5, 0, 0]


def test_a_loss_by_task_is_differentiated_by_itself(tasks):
  workload, batch, by_task = tasks
  logits = LOGITS.clone().requires_grad_()
  whole = workload.loss_fn(batch['targets'], logits, batch['weights'])['summed']
  (expected,) = torch.autograd.grad(whole, logits)
  for index, summed in enumerate(by_task(logits, TASK)['summed']):
    (gradient,) = torch.autograd.grad(summed, logits, retain_graph=True)
    rows = (index == torch.tensor(TASK))[:, None]
    torch.testing.assert_close(gradient, torch.where(rows, expected, 0))


def test_losses_of_tokens_are_summed_over_their_sequences(backend):
  task = torch_toy.task()
  task.model.loss = lambda *_, **__: {'per_example': torch.arange(6.0).reshape(2, 3)}
  definition = torch_toy.definition(task_names=('a', 'b'))
  workload = backend.workload(definition, task, torch_toy.BUDGET)
  number = torch.tensor([1, 0])
  mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
  for given, counts in ((mask, [1, 2]), (mask[:, 0] * 2, [6, 6]), (None, [3, 3])):
    found = workload.task_losses(None, None, given, number)
    assert found['summed'].tolist() == [12, 3]
    assert found['n_valid_examples'].tolist() == counts


def test_rows_may_hold_several_tasks(backend):
  definition = torch_toy.definition(task_names=('a', 'b'))
  losses = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
  task = torch_toy.task()
  task.model.loss = lambda *_, **__: {'per_example': losses}
  workload = backend.workload(definition, task, torch_toy.BUDGET)
  number = torch.tensor([[0, 1, 1], [1, 0, -1]])
  mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
  for given, counts in ((mask, [2, 2]), (mask[:, 1] * 2, [4, 6]), (None, [2, 3])):
    found = workload.task_losses(None, None, given, number)
    assert found['summed'].tolist() == [4, 6]
    assert found['n_valid_examples'].tolist() == counts


def test_a_definition_without_tasks_has_no_losses_by_task(toy):
  with pytest.raises(ValueError, match='need a definition with task_names; toy has none'):
    toy[0].task_losses(None, None, None, torch.zeros(2, dtype=torch.int64))


def test_a_workload_is_hashable(toy):
  assert hash(toy[0]) == hash(toy[0])


@pytest.fixture
def inductor_cache() -> Iterator[Path]:
  """A folder for compiled code whose path has no space.

  PyTorch's compiler does not quote the paths of its sources and libraries in the commands that it
  splits again: pytorch/pytorch#191010.
  """
  for place in (tempfile.gettempdir(), torch.__file__):
    if ' ' in place:
      pytest.skip(f'PyTorch compiles nothing where a path has a space, as in {place}')
  with tempfile.TemporaryDirectory() as folder:
    yield Path(folder)


@pytest.mark.slow
def test_a_compiled_module_has_the_same_names_and_numbers(toy, inductor_cache, monkeypatch):
  """The switches of batch norm and dropout are seen by the compiled code."""
  workload, model, batch = toy
  monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', '')  # so that what `start` sets is undone
  cache = str(inductor_cache)
  backend = backend_torch.start(
    Devices(platform='cpu', num_threads=1, compile='on', compilation_cache=cache)
  )
  facts = backend.describe()
  assert (facts['compiles'], facts['compilation_cache']) == (True, cache)
  compiling = backend.workload(torch_toy.definition(), torch_toy.task(), torch_toy.BUDGET)
  compiled, _ = compiling.init_model_fn(backend.key(WORDS))
  assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in model.named_parameters()]
  for mode, update in ((TRAIN, True), (TRAIN, False), (EVAL, False), (TRAIN, True)):
    before = _buffers(compiled)
    results = [
      _forward(w, m, batch, mode, update, dropout_rate=0.0)
      for w, m in ((workload, model), (compiling, compiled))
    ]
    torch.testing.assert_close(*results)
    assert bool(_changed(compiled, before)) == update
    torch.testing.assert_close(_buffers(compiled), _buffers(model))
  assert any(inductor_cache.iterdir())


def test_without_a_compilation_cache_nothing_compiled_is_found_again():
  with torch.compiler.config.patch(force_disable_caches=False):
    backend_torch.start(Devices(platform='cpu', compile='on'))
    assert torch.compiler.config.force_disable_caches


# Evaluation and numbers.


def _eval_batches(size, num_examples=50):
  """Batches of `size` over the examples, of which the last is padded with weights of 0."""
  examples = torch_toy.batch(num_examples, 3)
  for start in range(0, num_examples, size):
    rows = {name: values[start : start + size] for name, values in examples.items()}
    missing = size - len(rows['targets'])
    padding = {'inputs': 1e3, 'targets': 0, 'weights': 0}
    yield {
      name: np.concatenate(
        [values, np.full((missing, *values.shape[1:]), padding[name], values.dtype)]
      )
      for name, values in rows.items()
    }


@pytest.mark.parametrize('size', [1, 7, 13, 50, 64])
def test_every_example_is_evaluated_once(size, backend, toy):
  workload, model, _ = toy
  sums = backend.eval_sums(workload, model, None, _eval_batches(size), WORDS)
  whole = backend.place(torch_toy.batch(50, 3))
  logits = _forward(workload, model, whole, EVAL, False)
  loss = workload.loss_fn(whole['targets'], logits)
  assert sums['num_examples'] == (50.0, 1.0)
  assert sums['loss'] == (pytest.approx(float(loss['summed']), rel=1e-5), 50.0)
  correct = (logits.argmax(-1) == whole['targets']).sum()
  assert sums['accuracy'] == (float(correct), 50.0)


def _counting(backend, eval_sums):
  """A workload with the metrics that `eval_sums(batch)` gives."""
  model = torch_toy.task().model
  code = SimpleNamespace(
    build=model.build,
    forward=model.forward,
    eval_step=lambda definition, batch, logits: (eval_sums(batch), {}),
  )
  task = TaskCode(data=None, model=code)  # type: ignore[arg-type]
  return backend.workload(torch_toy.definition(), task, torch_toy.BUDGET)


def test_sums_are_exact_beyond_single_precision(backend, toy):
  """In float32, 2**24 + 1 is 2**24."""
  sums = iter([2.0**24, 1.0, 1.0])
  workload = _counting(backend, lambda batch: {'loss': (torch.tensor(next(sums)), 1)})
  batches = [torch_toy.batch(1, 0) for _ in range(3)]
  result = backend.eval_sums(workload, toy[1], None, batches, WORDS)
  assert result == {'loss': (2.0**24 + 2, 3.0), 'num_examples': (3.0, 1.0)}


def test_an_example_with_weights_for_its_parts_counts_once(backend, toy):
  workload = _counting(
    backend, lambda batch: {'loss': (batch['weights'].sum(), batch['weights'].sum())}
  )
  batch = torch_toy.batch(4, 0)
  batch['weights'] = np.array([[1, 1], [0.5, 0], [0, 0], [1, 0]], np.float32)
  result = backend.eval_sums(workload, toy[1], None, [batch], WORDS)
  assert result == {'loss': (3.5, 3.5), 'num_examples': (3.0, 1.0)}


def test_evaluation_without_examples(backend, toy):
  workload, model, _ = toy
  assert backend.eval_sums(workload, model, None, [], WORDS) == {'num_examples': (0.0, 1.0)}
  empty = {name: values[:0] for name, values in torch_toy.batch(1, 0).items()}
  sums = backend.eval_sums(workload, model, None, [empty], WORDS)
  assert sums['num_examples'] == (0.0, 1.0) and sums['loss'] == (0.0, 0.0)


def test_evaluation_leaves_the_module_as_it_was(backend, toy):
  workload, model, _ = toy
  model.train()
  model.head.eval()
  before, change_marker = _buffers(model), backend.change_marker(model)
  backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)
  assert model.training and model.bn.training and not model.head.training
  assert _changed(model, before) == set() and backend.change_marker(model) == change_marker
  assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_of_a_submission_runs_in_an_evaluation(backend, toy):
  """Regression: hooks on the module, and any module that was returned, ran untimed."""
  workload, model, _ = toy
  honest = backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)
  ran = []
  for module in model.modules():
    module.register_forward_pre_hook(lambda *arguments: ran.append('before'))
    module.register_forward_hook(lambda *arguments: ran.append('after'))
  model.forward = lambda *arguments, **options: ran.append('instead')

  class Other(nn.Module):
    def __init__(self):
      super().__init__()
      self.module = model  # as wrappers have it

    def forward(self, *arguments, **options):
      ran.append('around')
      return self.module(*arguments, **options)

  for params in (model, Other()):
    assert backend.eval_sums(workload, params, None, _eval_batches(7), WORDS) == honest
  assert ran == []


def test_an_evaluation_is_of_the_values_of_the_moment(backend, toy):
  workload, model, _ = toy
  before = backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)
  state = torch.get_rng_state()
  with torch.no_grad():
    model.head.bias += 1.0 + torch.arange(len(model.head.bias))
    model.bn.running_mean += 1.0
  after = backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)
  assert after['loss'] != before['loss']
  whole = backend.place(torch_toy.batch(50, 3))
  loss = workload.loss_fn(whole['targets'], _forward(workload, model, whole, EVAL, False))
  assert after['loss'] == (pytest.approx(float(loss['summed']), rel=1e-5), 50.0)
  assert torch.equal(torch.get_rng_state(), state)


def test_another_model_is_not_evaluated(backend, toy):
  workload, model, _ = toy
  model.head = nn.Linear(8, 2 * model.head.out_features)
  with pytest.raises(trust.IntegrityError, match=r'head.weight is \(\d+, 8\), not'):
    backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)
  model.head = nn.Identity()
  with pytest.raises(trust.IntegrityError, match=r'head.weight is missing'):
    backend.eval_sums(workload, model, None, _eval_batches(7), WORDS)


def test_a_change_of_a_parameter_changes_the_marker(backend, toy):
  _, model, _ = toy
  before = backend.change_marker(model)
  model.head.bias.data.copy_(torch.nextafter(model.head.bias.data, torch.tensor(9.0)))
  assert backend.change_marker(model) != before  # through .data, which no version counter sees
  before = backend.change_marker(model)
  model.dense.weight.data = model.dense.weight.data.flip(0)
  assert backend.change_marker(model) != before


def test_parameters_that_are_not_finite_are_found(backend, toy):
  _, model, _ = toy
  assert backend.all_finite(model)
  for value in (float('nan'), float('inf')):
    with torch.no_grad():
      model.bn.bias[3] = value
    assert not backend.all_finite(model)


def test_scalars_of_every_kind(backend):
  values = {
    'tensor': torch.tensor([[1.5]], requires_grad=True),
    'integer': torch.tensor(2**40),
    'half': torch.tensor(0.5, dtype=torch.bfloat16),
    'number': 3,
    'numpy': np.float32(0.25),
    'array': np.array([7]),
  }
  expected = [1.5, 2.0**40, 0.5, 3.0, 0.25, 7.0]
  assert backend.scalars(values) == dict(zip(values, expected, strict=True))
  assert backend.scalars({}) == {}


def test_seed_sets_the_global_random_state(backend):
  backend.seed(2**63 - 1)
  first = torch.rand(3)
  backend.seed(2**63 - 1)
  assert torch.equal(torch.rand(3), first)


def test_alone_there_is_nothing_to_wait_for(backend):
  backend.synchronize()
  backend.synchronize((torch.ones(1), None))
  backend.barrier()
  assert backend.sync_max(2.5) == 2.5
  assert backend.peak_memory_bytes()['host'] > 2**26
  backend.stop()


@pytest.mark.slow
def test_starting_imports_no_compiler():
  """What torch imports by itself cannot be helped; the rest comes when it is needed."""
  code = (
    'import sys\n'
    'from algorithmic_efficiency.backends import torch\n'
    'from algorithmic_efficiency.backends.base import Devices\n'
    "torch.start(Devices(platform='cpu'))\n"
    "names = ('torch._dynamo', 'torch._inductor', 'torch.distributed.nn', 'sympy', 'jax')\n"
    'print([name for name in names if name in sys.modules])\n'
  )
  output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert output.stdout.strip() == '[]'
