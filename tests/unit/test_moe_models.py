"""The mixture of experts over text, images and audio: what it sees, its routers, its parameters."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends import module as backend_module
from algorithmic_efficiency.backends.base import TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

FRAMEWORKS = {'jax': 'jax', 'pytorch': 'torch'}
SUFFIXES = ('', '_dense', '_top1', '_no_balance', '_more_experts', '_long')
BASES = ('quick_moe', 'digits_moe', 'multimodal_moe')
TEXT, IMAGE, AUDIO = 1, 2, 3
BATCH = 4

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


def definition_of(name: str) -> WorkloadDefinition:
  return registry.workload(name)


def small(name: str) -> WorkloadDefinition:
  """The workload at smoke size; no expert drops a token."""
  definition = registry.workload(name).for_smoke()
  return replace(definition, model=replace(definition.model, capacity_factor=None))


def batch_of(definition: WorkloadDefinition, seed: int = 0) -> dict[str, np.ndarray]:
  return registry.module_of(definition, 'data').fake_batch(definition, BATCH, seed)


class Model:
  """A model of one framework with its initial parameters, in training."""

  def __init__(self, definition: WorkloadDefinition, framework: str):
    pytest.importorskip(FRAMEWORKS[framework])
    self.definition, self.framework = definition, framework
    self.code = registry.module_of(definition, framework)
    self._run = getattr(self, f'_in_{FRAMEWORKS[framework]}')()

  def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Logits and loss of each token, sums of evaluation, and gradients of the answers' mean loss
    alone, by the name of the parameter."""
    return self._run(batch)

  def _in_jax(self) -> Any:
    import jax
    from flax import linen as nn

    from algorithmic_efficiency.layers import jax as layers

    model = self.code.build(self.definition)
    options = {'train': True, 'use_running_average': False, 'dropout_rate': 0.0}
    evaluation = {**options, 'train': False}

    def init(key: Any) -> Any:
      return nn.init(self.code.forward, model)(key, batch_of(self.definition), **options)

    variables = jax.jit(init)(jax.random.key(0))

    def answers(params: Any, batch: Any) -> Any:
      returned = nn.apply(self.code.forward, model)({'params': params}, batch, **options)
      logits = getattr(returned, 'logits', returned)
      losses = layers.token_loss(batch['targets'], logits, batch['weights'])
      evaluated = nn.apply(self.code.forward, model)({'params': params}, batch, **evaluation)
      sums, _ = self.code.eval_step(self.definition, batch, evaluated)
      assert not getattr(returned, 'statistics', {}), 'nobody reads them in training'
      loss = self.code.loss(self.definition, batch['targets'], returned, batch['weights'])
      found = {'logits': logits, 'losses': losses['per_example'], 'sums': sums, 'loss': loss}
      return losses['summed'] / losses['n_valid_examples'], found

    differentiate = jax.jit(jax.grad(answers, has_aux=True))

    def run(batch: Any) -> dict[str, Any]:
      gradients, found = differentiate(variables['params'], dict(batch))
      named = jax.tree_util.tree_leaves_with_path(gradients)
      found['gradients'] = {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in named
      }
      return jax.tree.map(np.asarray, found)

    return run

  def _in_torch(self) -> Any:
    import torch
    from torch.utils import _pytree as tree

    from algorithmic_efficiency.layers import torch as layers

    torch.manual_seed(0)
    model = self.code.build(self.definition)

    def run(batch: Any) -> dict[str, Any]:
      batch = {name: torch.tensor(array) for name, array in batch.items()}
      whole = {
        name: array.long() if array.dtype == torch.int32 else array for name, array in batch.items()
      }
      options = {'use_running_average': False, 'dropout_rate': 0.0}
      returned = self.code.forward(model, whole, train=True, **options)
      evaluated = self.code.forward(model, whole, train=False, **options)
      assert not getattr(returned, 'statistics', {}), 'nobody reads them in training'
      logits = getattr(returned, 'logits', returned)
      losses = layers.token_loss(whole['targets'], logits, whole['weights'])
      model.zero_grad()
      (losses['summed'] / losses['n_valid_examples']).backward(retain_graph=True)
      found = {
        'logits': logits,
        'losses': losses['per_example'],
        'sums': self.code.eval_step(self.definition, whole, evaluated)[0],
        'loss': self.code.loss(self.definition, whole['targets'], returned, whole['weights']),
        'gradients': {name: one.grad for name, one in model.named_parameters()},
      }
      return tree.tree_map(lambda x: x.detach().numpy().copy(), found)

    return run


@functools.cache
def model_of(framework: str, name: str) -> Model:
  return Model(small(name), framework)


@functools.cache
def found_of(framework: str, name: str) -> dict[str, Any]:
  model = model_of(framework, name)
  return model(batch_of(model.definition))


# What a position sees.


def with_random_text(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The batch with every position counted, so that the losses of all positions are compared."""
  return {**batch, 'weights': np.ones_like(batch['weights'])}


def first(batch: Mapping[str, np.ndarray], modality: int) -> tuple[int, int]:
  """Row and position of the first of a modality that another position of its question follows."""
  rows, columns = np.nonzero(batch['modality'] == modality)
  return int(rows[0]), int(columns[0])


def changed(batch: dict[str, np.ndarray], where: Any) -> dict[str, np.ndarray]:
  """The batch with another content of one position, and with noise where nothing may be read."""
  modality = int(batch['modality'][where])
  new = {name: batch[name].copy() for name in ('inputs', 'patches', 'frames') if name in batch}
  random = np.random.default_rng(0)
  name = {TEXT: 'inputs', IMAGE: 'patches', AUDIO: 'frames'}[modality]
  if name == 'inputs':
    new['inputs'][where] = (new['inputs'][where] + 1) % 20
  elif name == 'patches':
    new['patches'][where] = 16 - np.minimum(new['patches'][where], 16)
  else:
    new['frames'][where] += random.normal(size=new['frames'][where].shape)
  return {**batch, **new}


def sees(batch: Mapping[str, np.ndarray], row: int, source: int) -> np.ndarray:
  """Whether each position may depend on one of its row: those after it in its question."""
  segments = batch['segments'][row]
  return (segments == segments[source]) & (np.arange(len(segments)) >= source)


@pytest.mark.parametrize('name', ['quick_moe', pytest.param('digits_moe', marks=pytest.mark.slow)])
@each_framework
def test_a_position_sees_those_before_it_in_its_question_and_no_other(framework, name):
  model = model_of(framework, name)
  batch = with_random_text(batch_of(model.definition))
  before = model(batch)['logits']
  for modality in {TEXT, IMAGE, AUDIO} & set(batch['modality'].ravel().tolist()):
    row, source = first(batch, modality)
    if modality == AUDIO:
      source += 1  # a convolution looks at the next frame, which may be of the position before
    after = model(changed(batch, (row, source)))['logits']
    differs = np.abs(after - before).max(-1) > 1e-6
    expected = np.zeros_like(differs)
    expected[row] = sees(batch, row, source)
    if modality == AUDIO:
      expected[row, source - 1] = True
    np.testing.assert_array_equal(differs, expected, err_msg=str(modality))


@pytest.mark.parametrize('name', ['quick_moe', pytest.param('digits_moe', marks=pytest.mark.slow)])
@each_framework
def test_a_position_reads_what_its_modality_says(framework, name):
  """Noise in the other fields changes nothing, nor does the content of padding."""
  model = model_of(framework, name)
  batch, random = batch_of(model.definition), np.random.default_rng(0)
  noisy, modality = dict(batch), batch['modality']
  noisy['inputs'] = np.where(modality == TEXT, batch['inputs'], 3).astype(np.int32)
  noise = random.integers(16, size=batch['patches'].shape, dtype=np.uint8)
  noisy['patches'] = np.where((modality == IMAGE)[..., None], batch['patches'], noise)
  if 'frames' in batch:
    noise = random.normal(size=batch['frames'].shape).astype(np.float32)
    noisy['frames'] = np.where((modality == AUDIO)[..., None], batch['frames'], noise)
  np.testing.assert_array_equal(model(noisy)['logits'], found_of(framework, name)['logits'])


@each_framework
def test_patches_have_places_in_both_directions(framework):
  model = model_of(framework, 'quick_moe')
  batch = batch_of(model.definition)
  row, column = first(batch, IMAGE)
  before = found_of(framework, 'quick_moe')['logits'][row, column]
  for axis in range(2):
    moved = batch['patch_positions'].copy()
    moved[row, column, axis] = 1 - moved[row, column, axis]
    after = model({**batch, 'patch_positions': moved})['logits'][row, column]
    assert np.abs(after - before).max() > 1e-4


def test_pixels_are_standardized_by_channel():
  definition = small('multimodal_moe')
  architecture = importlib.import_module('workloads.multimodal_moe.architecture')
  mean, stddev = architecture.pixel_statistics(definition)
  assert len(mean) == definition.data.patch_dim
  assert tuple(mean[:3]) == definition.train_mean == tuple(mean[-3:])
  assert tuple(stddev[3:6]) == definition.train_stddev


# Routers.


@pytest.mark.parametrize('suffix', [one for one in SUFFIXES if one != '_dense'])
@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.slow), 'pytorch'])
def test_the_answers_alone_give_the_router_a_gradient(framework, suffix):
  gradients = found_of(framework, f'quick_moe{suffix}')['gradients']
  routers = [array for name, array in gradients.items() if 'router' in name]
  assert routers and all(np.abs(array).max() > 1e-6 for array in routers)


@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.slow), 'pytorch'])
def test_a_dense_model_has_logits_alone(framework):
  found = found_of(framework, 'quick_moe_dense')
  assert not any('router' in name or 'expert' in name for name in found['gradients'])
  assert 'parts' not in found['loss']
  assert set(found['sums']) == {'accuracy', 'loss', 'loss_of_kind', 'exact_match'}


@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.slow), 'pytorch'])
def test_the_loss_weighs_the_losses_of_the_routers(framework):
  parts = found_of(framework, 'quick_moe')['loss']['parts']
  config = definition_of('quick_moe').model
  num_layers = small('quick_moe').model.num_layers // 2
  total, number = parts['balance']
  # The balance is 1 for an even load, and more or less near it at the beginning.
  assert total / number == pytest.approx(config.balance_weight, rel=0.5)
  assert parts['router_z'][0] > 0 and num_layers == 1
  without = found_of(framework, 'quick_moe_no_balance')['loss']['parts']
  assert without['balance'][0] == 0 and without['router_z'][0] > 0


@each_framework
def test_sums_count_the_rows_and_positions_that_count(framework):
  model = model_of(framework, 'quick_moe')
  batch = batch_of(model.definition)
  batch['weights'][2] = 0
  found = model(batch)
  counted = np.array([True, True, False, True])
  num_positions = (batch['modality'][counted] > 0).sum()
  sums, config = found['sums'], model.definition.model
  np.testing.assert_allclose(sums['router_load'].sum(-1), config.top_k * num_positions)
  entropy, number = sums['router_entropy']
  assert number == config.num_sparse_layers * num_positions
  assert 0 < entropy / number < math.log(config.num_experts)
  is_correct = found['logits'].argmax(-1) == batch['targets']
  weights = batch['weights'] > 0
  assert sums['accuracy'] == ((is_correct & weights).sum(), weights.sum())
  exact, asked = np.zeros(6), np.zeros(6)
  for row in np.flatnonzero(counted):
    asked[batch['task'][row, 0]] += 1
    exact[batch['task'][row, 0]] += is_correct[row][weights[row]].all()
  losses = np.zeros(6)
  np.add.at(losses, batch['task'][counted, 0], (found['losses'] * weights)[counted].sum(axis=1))
  np.testing.assert_allclose(sums['loss_of_kind'][0], losses, rtol=1e-5)
  assert sums['loss_of_kind'][1].sum() == weights.sum()
  np.testing.assert_array_equal(sums['exact_match'][0], exact)
  np.testing.assert_array_equal(sums['exact_match'][1], asked)


@each_framework
def test_an_exact_match_is_one_in_every_token(framework):
  """Targets are set to what the model finds likeliest, but for one token of one row."""
  model = model_of(framework, 'quick_moe')
  batch = batch_of(model.definition)
  likeliest = found_of(framework, 'quick_moe')['logits'].argmax(-1)
  batch['targets'] = np.where(batch['weights'] > 0, likeliest, 0).astype(np.int32)
  wrong = tuple(index[0] for index in np.nonzero(batch['weights']))
  batch['targets'][wrong] = (batch['targets'][wrong] + 1) % 20
  sums = model(batch)['sums']
  assert sums['exact_match'][0].sum() == BATCH - 1
  assert sums['exact_match'][1].sum() == BATCH
  assert sums['accuracy'][0] == batch['weights'].sum() - 1


# Parameters.


@functools.cache
def parameters_of(framework: str, name: str) -> list[Any]:
  pytest.importorskip(FRAMEWORKS[framework])
  definition = definition_of(name)
  return backend_module(framework).parameters(definition, TaskCode.of(definition, framework))


IN_JAX = pytest.param('jax', marks=pytest.mark.slow)


@pytest.mark.parametrize('name', [f'{base}{suffix}' for base in BASES for suffix in SUFFIXES])
@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_counts_are_those_of_the_model_at_full_size(framework, name):
  found = parameters_of(framework, name)
  config = definition_of(name).model
  sizes = [(math.prod(one.shape), one.role.value) for one in found]
  share = config.top_k / config.num_experts
  active = sum(size * (share if role == 'expert' else 1) for size, role in sizes)
  counts = config.num_parameters(definition_of(name).data)
  assert (counts.total, counts.active) == (sum(size for size, _ in sizes), active)


@pytest.mark.parametrize('base', BASES)
def test_a_dense_variant_has_as_many_active_parameters(base):
  sparse, dense = (
    one.model.num_parameters(one.data)
    for one in (definition_of(base), definition_of(f'{base}_dense'))
  )
  assert dense.total == dense.active
  assert dense.active == pytest.approx(sparse.active, rel=0.01)


def test_the_full_model_has_a_billion_parameters_and_a_quarter_of_them_active():
  definition = definition_of('multimodal_moe')
  counts = definition.model.num_parameters(definition.data)
  assert (definition.model.num_experts, definition.model.top_k) == (16, 2)
  assert counts.total == pytest.approx(1e9, rel=0.05)
  assert counts.active == pytest.approx(2.5e8, rel=0.05)


def test_the_target_of_the_full_workload_weighs_modalities_alike():
  assert definition_of('multimodal_moe').target.metric == 'loss_of_modality'


@pytest.mark.parametrize('base', BASES)
def test_variants_change_what_they_say(base):
  plain = definition_of(base)
  more, long = definition_of(f'{base}_more_experts'), definition_of(f'{base}_long')
  assert more.model == replace(plain.model, num_experts=4 * plain.model.num_experts)
  assert definition_of(f'{base}_top1').model == replace(plain.model, top_k=1)
  assert definition_of(f'{base}_no_balance').model == replace(plain.model, balance_weight=0.0)
  positions = [one.data.row_length * one.batch_sizes.train for one in (plain, long)]
  assert positions[0] == positions[1]
  assert long.data.row_length == 4 * plain.data.row_length


ROLES = {
  'jax': {
    'blocks_1/Experts_0/router/kernel': ('WEIGHT', 'router', (1, 16, 4)),
    'blocks_1/Experts_0/experts/first': ('WEIGHT', 'expert', (4, 16, 8)),
    'blocks_1/Experts_0/experts/gate': ('WEIGHT', 'expert', (4, 16, 8)),
    'blocks_1/Experts_0/experts/last': ('WEIGHT', 'expert', (4, 8, 16)),
    'blocks_1/CausalAttn_0/query/kernel': ('ATTENTION_Q', 'hidden_matrix', (1, 16, 16)),
    'blocks_0/Mlp_0/Dense_0/kernel': ('WEIGHT', 'hidden_matrix', (1, 16, 16)),
    'blocks_0/RMSNorm_1/scale': ('LAYER_NORM_SCALE', 'norm', (0, 0, 0)),
    'audio/conv_0/kernel': ('CONV_WEIGHT', 'convolution', (1, 120, 8)),
    'patches/kernel': ('WEIGHT', 'hidden_matrix', (1, 196, 16)),
    'embed/embedding': ('EMBEDDING', 'tied', (1, 32, 16)),
  },
  'pytorch': {
    'layers.1.moe.router.weight': ('WEIGHT', 'router', (1, 4, 16)),
    'layers.1.moe.experts.first': ('WEIGHT', 'expert', (4, 8, 16)),
    'layers.1.moe.experts.gate': ('WEIGHT', 'expert', (4, 8, 16)),
    'layers.1.moe.experts.last': ('WEIGHT', 'expert', (4, 16, 8)),
    'layers.1.attn.kv_proj.weight': ('ATTENTION_KV', 'hidden_matrix', (2, 8, 16)),
    'layers.0.mlp.first.weight': ('WEIGHT', 'hidden_matrix', (1, 16, 16)),
    'layers.0.mlp_norm.weight': ('LAYER_NORM_SCALE', 'norm', (0, 0, 0)),
    'audio.conv_0.weight': ('CONV_WEIGHT', 'convolution', (1, 8, 120)),
    'patches.weight': ('WEIGHT', 'hidden_matrix', (1, 16, 196)),
    'embed_tokens.weight': ('EMBEDDING', 'tied', (1, 32, 16)),
  },
}


@each_framework
def test_roles_types_and_matrices_of_parameters(framework):
  """Each expert is a matrix of its own, for optimizers of matrices."""
  pytest.importorskip(FRAMEWORKS[framework])
  definition = small('digits_moe')
  code = TaskCode.of(definition, framework)
  found = {one.name: one for one in backend_module(framework).parameters(definition, code)}
  vocab_size = definition.data.vocab_size
  for name, (kind, role, view) in ROLES[framework].items():
    one = found[name]
    view = tuple(vocab_size if size == 32 else size for size in view)
    assert (one.type.name, one.role.value) == (kind, role), name
    given = one.matrix_view
    assert (given.num_matrices, given.rows, given.columns) == view, name


# Bad sizes.


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'top_k': 9}, 'at most all 8; top_k is 9'),
    ({'num_experts': 1}, 'at most all 1; top_k is 2'),
    ({'capacity_factor': -1.0}, 'must be positive; it is -1.0'),
    ({'num_heads': 3}, '64 does not divide into 3 heads'),
    ({'num_kv_heads': 3}, 'there are 3 of keys'),
    ({'num_layers': 1}, 'num_layers is 1'),
  ],
)
def test_sizes_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    replace(definition_of('quick_moe').model, **change)


@each_framework
def test_an_expert_has_room_for_a_token(framework):
  pytest.importorskip(FRAMEWORKS[framework])
  definition = definition_of('quick_moe').for_smoke()
  definition = replace(definition, model=replace(definition.model, capacity_factor=0.01))
  with pytest.raises(errors.UserError, match=r'room for 0\.64\. Raise the factor'):
    registry.module_of(definition, framework).build(definition)


def test_both_frameworks_are_known():
  assert set(FRAMEWORKS) == set(backends.FRAMEWORKS)
