"""The translation model: what it computes, what it sees, how it begins, in both frameworks."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import layer_twin as twin
import nmt_batches
import nmt_models
import numpy as np
import pytest
from nmt_models import EVALUATION, FRAMEWORKS, VARIANTS, Model, code, each_framework, pairs, small

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends import module as backend_module
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.layers.configs import AttentionConfig, BlockConfig, FeedForwardConfig

LENGTH = small().data.max_length

IN_JAX = pytest.param('jax', marks=pytest.mark.slow)  # what compiles, and others show in part

# What it computes.


def plain_log_probs(
  definition: Any, params: Any, pair: nmt_batches.Pair, start: int = 0
) -> np.ndarray:
  """The model of one pair in plain numpy, [target length, vocab]; the configs are written anew."""
  config, blocks = definition.model, registry.tasks()['nmt'].module('blocks')
  attention = AttentionConfig(
    num_heads=config.num_heads,
    head_dim=config.dim // config.num_heads,
    scale=config.attention_temperature / np.sqrt(config.dim / config.num_heads),
  )
  block = BlockConfig(
    dim=config.dim,
    self_attention=attention,
    feed_forward=FeedForwardConfig(
      hidden_dim=config.mlp_dim,
      activation='tanh' if config.gated else 'relu',
      gate='input' if config.gated else 'none',
    ),
    norm_position='pre' if config.pre_norm else 'post',
  )
  table = params['shared_embedding']['embedding']
  names = blocks.JAX_ENCODER.parts, blocks.JAX_DECODER.parts

  def embedded(tokens: np.ndarray) -> np.ndarray:
    half = config.dim // 2
    angles = [[p / 10_000 ** (i / (half - 1)) for i in range(half)] for p in range(len(tokens))]
    return (table[tokens] + np.concatenate([np.sin(angles), np.cos(angles)], 1))[None]

  def normed(x: np.ndarray, stack: str, name: str) -> np.ndarray:
    return twin.norm('layer', params[stack][name], x, 1e-6) if config.pre_norm else x

  x = embedded(pair.source)
  for index in range(config.num_layers):
    x = twin.block(block, names[0], params['encoder'][f'encoderblock_{index}'], x)
  context = normed(x, 'encoder', 'encoder_layernorm')
  block = replace(block, self_attention=replace(attention, causal=True), cross_attention=attention)
  x = embedded(np.append(start, pair.target[:-1]))
  for index in range(config.num_layers):
    own = params['decoder'][f'encoderdecoderblock_{index}']
    x = twin.block(block, names[1], own, x, context)
  logits = normed(x, 'decoder', 'encoderdecoder_layernorm')[0] @ table.T / np.sqrt(config.dim)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize('name', VARIANTS)
def test_a_model_is_that_of_plain_numpy(name):
  """In PyTorch; JAX's is the same function, as the tests of parity show."""
  definition = small(name)
  model = Model(definition, 'pytorch')
  params, _ = code('parity').to_jax(definition, nmt_models.weights(definition))
  rows = pairs(definition, 3)
  found = model.log_probs(nmt_batches.one_a_row(rows, LENGTH))
  for row, pair in zip(found, rows, strict=True):
    expected = plain_log_probs(definition, params, pair)
    np.testing.assert_allclose(row[: len(pair.target)], expected, rtol=1e-9, atol=1e-9)


# What it sees.


@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_packed_pairs_have_the_losses_that_they_have_alone(framework):
  model = Model(small(packed_start='zero'), framework)
  half = replace(model.definition.data, max_length=LENGTH // 2)
  rows = pairs(replace(model.definition, data=half), 6)
  alone = model.losses(nmt_batches.one_a_row(rows, LENGTH))
  batch = nmt_batches.packed([rows[:2], rows[2:3], rows[3:5], rows[5:]], LENGTH)
  together = model.losses(batch)
  for number, pair in enumerate(rows):
    row, segment = [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (3, 1)][number]
    own = batch['targets_segmentation'][row] == segment
    expected = alone[number, : len(pair.target)]
    np.testing.assert_allclose(together[row, own], expected, rtol=1e-9)


@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_in_wmt_a_packed_pair_starts_from_the_end_of_the_one_before_as_in_algoperf(framework):
  definition = small('wmt')
  params, _ = code('parity').to_jax(definition, nmt_models.weights(definition))
  half = replace(definition.data, max_length=LENGTH // 3)
  row = pairs(replace(definition, data=half), 3)
  batch = nmt_batches.packed([row], LENGTH)
  found = Model(definition, framework).log_probs(batch)[0]
  for number, pair in enumerate(row, 1):
    start = 0 if number == 1 else nmt_batches.EOS
    expected = plain_log_probs(definition, params, pair, start)
    own = batch['targets_segmentation'][0] == number
    np.testing.assert_allclose(found[own], expected, rtol=1e-9, atol=1e-9)


def test_only_wmt_has_the_starts_of_algoperf():
  found = {
    name
    for name, one in registry.workloads().items()
    if one.task == 'nmt'
    if one.model.packed_start == 'end'
  }
  assert found == {*VARIANTS}


@pytest.fixture
def in_torch():
  return Model(small(), 'pytorch')


def test_padding_is_not_seen(in_torch):
  """Neither how much there is, nor in what."""
  rows = pairs(in_torch.definition, 4)
  rows = [replace(one, source=one.source[-8:], target=one.target[-8:]) for one in rows]
  wide, narrow = (in_torch.losses(nmt_batches.one_a_row(rows, width)) for width in (LENGTH, 8))
  np.testing.assert_allclose(wide[:, :8], narrow, rtol=1e-9)
  assert (wide[:, 8:] == 0).all()


def test_a_loss_depends_on_the_source_and_on_targets_before_it(in_torch):
  random = np.random.default_rng(0)
  batch = {
    name: random.integers(nmt_batches.FIRST, 32, (2, LENGTH)).astype(np.int32)
    for name in ('inputs', 'targets')
  }
  before = in_torch.log_probs(batch)

  def changed(name: str, position: int) -> np.ndarray:
    other = batch[name].copy()
    other[0, position] = nmt_batches.FIRST + (other[0, position] - 2) % (32 - nmt_batches.FIRST)
    differs = (in_torch.log_probs({**batch, name: other}) != before).any(-1)
    assert not differs[1].any()
    return differs[0]

  for position in (0, 5, LENGTH - 1):
    assert changed('inputs', position).all()
    after = np.arange(LENGTH) > position  # a target is shifted by one
    np.testing.assert_array_equal(changed('targets', position), after)


def test_a_row_of_padding_has_finite_losses_and_gradients(in_torch):
  """Evaluation has rows without a pair, and rows that fill up the last batch."""
  rows = pairs(in_torch.definition, 2)
  batch = nmt_batches.one_a_row(rows, LENGTH)
  for array in batch.values():
    array[1] = 0
  logits = code('pytorch').forward(in_torch.module, nmt_models.tensors(batch), **EVALUATION)
  logits.square().sum().backward()
  gradients = [parameter.grad for parameter in in_torch.module.parameters()]
  assert all(np.isfinite(x.detach().numpy()).all() for x in (logits, *gradients))
  alone = in_torch.losses(nmt_batches.one_a_row(rows[:1], LENGTH))
  np.testing.assert_allclose(in_torch.losses(batch)[:1], alone, rtol=1e-9)


# Dropout.


@each_framework
def test_weights_of_attention_are_dropped_at_the_second_rate_alone(framework, monkeypatch):
  """The first is that of all else, as in AlgoPerf 0.6; the second is that of AlgoPerf 0.5."""
  model = Model(small(num_layers=1), framework)
  batch = nmt_batches.one_a_row(pairs(model.definition, 4), LENGTH)
  module = importlib.import_module(
    f'algorithmic_efficiency.layers._{FRAMEWORKS[framework]}_attention'
  )
  argument = {'jax': 'dropout', 'pytorch': 'dropout_rate'}[framework]
  attention, given = module.attention, []
  monkeypatch.setattr(
    module,
    'attention',
    lambda *arrays, **options: given.append(options.get(argument)) or attention(*arrays, **options),
  )
  for rates, num_dropped in (({'dropout_rate': 0.5}, 0), ({'aux_dropout_rate': 0.5}, 3)):
    given.clear()
    traced(model, batch, **rates)
    assert (len(given), sum(map(bool, given))) == (3, num_dropped)


def traced(model: Model, batch: dict[str, np.ndarray], **rates: float) -> None:
  """Runs a forward pass of training with rates that are constants."""
  if model.framework == 'pytorch':
    model.pytorch_training_logits(batch, **rates)
    return
  import jax
  from flax import linen as nn

  apply = nn.apply(code('jax').forward, model._flax)
  options = {**EVALUATION, 'train': True, **rates}
  rngs = {'dropout': jax.random.key(0)}
  with jax.enable_x64(True):
    jax.eval_shape(lambda: apply(model._variables, batch, rngs=rngs, **options))


@pytest.mark.parametrize(
  ('suite', 'rate'), [('algoperf_v05', 0.1), ('algoperf_v06', 0.0), ('algoperf_a100', 0.0)]
)
@each_framework
def test_the_second_rate_is_that_of_algoperf_by_default(framework, suite, rate):
  pytest.importorskip(FRAMEWORKS[framework])
  definition = registry.workload('wmt', suite)
  task = TaskCode(data=None, model=code(framework))
  backend = backends.start(framework, Devices(platform='cpu', num_devices=1, num_threads=1))
  workload = backend.workload(definition, task, definition.suites[suite])
  assert workload._aux_dropout(train=True) == {'aux_dropout_rate': rate}
  assert workload._aux_dropout(train=False) == {'aux_dropout_rate': 0.0}


@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_one_dropout_rate_leaves_attention_alone_and_a_second_is_that_of_attention(framework):
  pytest.importorskip(FRAMEWORKS[framework])
  model = Model(small(num_layers=1), framework)
  batch = nmt_batches.one_a_row(pairs(model.definition, 4), LENGTH)
  logits = functools.partial(getattr(model, f'{framework}_training_logits'), batch)
  without = logits()
  np.testing.assert_allclose(without, getattr(model, f'_{framework}_logits')(batch), rtol=1e-6)
  for rates in ({'aux_dropout_rate': 0.5}, {'dropout_rate': 0.5}):
    assert abs(logits(**rates) - without).max() > 0.1
  # With no weight of attention left, nothing comes from the source.
  others = {**batch, 'inputs': np.roll(batch['inputs'], 1, axis=0)}
  lost = logits(aux_dropout_rate=1.0)
  np.testing.assert_allclose(
    getattr(model, f'{framework}_training_logits')(others, aux_dropout_rate=1.0), lost, rtol=1e-6
  )
  # With no hidden unit left, all positions are the same.
  lost = logits(dropout_rate=1.0)
  np.testing.assert_allclose(lost, np.broadcast_to(lost[:1, :1], lost.shape), rtol=1e-6)


# How it begins, and how its parameters are called.


@functools.cache
def fresh(framework: str) -> dict[str, np.ndarray]:
  definition = small(num_layers=1, dim=128, mlp_dim=256)
  definition = replace(definition, data=replace(definition.data, vocab_size=512))
  model = code(framework).build(definition)
  if framework == 'pytorch':
    import torch

    torch.manual_seed(0)
    named = code(framework).build(definition).named_parameters()
    return {name: parameter.detach().numpy() for name, parameter in named}
  import jax
  from flax import linen as nn

  batch = nmt_batches.one_a_row(pairs(definition, 1), LENGTH)
  init = nn.init(code(framework).forward, model)
  run = jax.jit(lambda key: init(key, batch, **EVALUATION))
  params = run(jax.random.key(0))['params']
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


@pytest.mark.parametrize('framework', [IN_JAX, 'pytorch'])
def test_how_parameters_begin(framework):
  pytest.importorskip(FRAMEWORKS[framework])
  for name, array in fresh(framework).items():
    if 'embedding' in name:
      assert array.std() == pytest.approx(1, rel=0.02)
    elif 'norm' in name.lower():
      assert (array == (0 if 'bias' in name else 1)).all(), name
    elif 'bias' in name:
      assert array.std() == pytest.approx(1e-6, rel=0.2), name
    else:
      hidden = 256 if any(one in name for one in ('Dense', 'linear')) else 128
      bound = np.sqrt(6 / (128 + hidden))  # Glorot uniform, each projection by itself
      assert abs(array).max() == pytest.approx(bound, rel=0.01), name
      assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.02), name


TYPES = {
  'jax': {
    'shared_embedding/embedding': 'EMBEDDING',
    'encoder_layernorm/scale': 'LAYER_NORM_SCALE',
    'MultiHeadDotProductAttention_1/query/kernel': 'ATTENTION_Q',
    'MultiHeadDotProductAttention_1/key/kernel': 'ATTENTION_K',
    'MultiHeadDotProductAttention_1/value/kernel': 'ATTENTION_V',
    'MultiHeadDotProductAttention_0/out/kernel': 'ATTENTION_OUT',
    'MlpBlock_0/Dense_1/kernel': 'WEIGHT',
    'MlpBlock_0/Dense_1/bias': 'BIAS',
  },
  'pytorch': {
    'shared_embedding.weight': 'EMBEDDING',
    'encoder.norm.weight': 'LAYER_NORM_SCALE',
    'self_attn.in_proj.weight': 'ATTENTION_QKV',
    'multihead_attn.q_proj.weight': 'ATTENTION_Q',
    'multihead_attn.kv_proj.weight': 'ATTENTION_KV',
    'multihead_attn.out_proj.weight': 'ATTENTION_OUT',
    'linear2.weight': 'WEIGHT',
    'linear2.bias': 'BIAS',
    'norm3.bias': 'LAYER_NORM_BIAS',
  },
}


@each_framework
def test_types_of_parameters(framework):
  batch = nmt_batches.one_a_row(pairs(small(), 1), LENGTH)
  data = SimpleNamespace(fake_batch=lambda *_: batch)
  task = TaskCode(data=data, model=code(framework))
  found = backend_module(framework).parameters(small(num_layers=1), task)
  for ending, kind in TYPES[framework].items():
    kinds = {one.type.name for one in found if one.name.endswith(ending)}
    assert kinds == {kind}, ending


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'num_heads': 3}, '16 does not divide into 3'),
    ({'search': {'num_beams': 0}}, 'at least 1 beam; num_beams is 0'),
    ({'search': {'length_penalty': -0.5}}, 'not be negative; it is -0.5'),
  ],
)
def test_what_no_model_can_be_is_refused(change, message):
  model = small().model
  with pytest.raises(ValueError, match=message):
    if 'search' in change:
      change = {'search': replace(model.search, **change['search'])}
    replace(model, **change)


@pytest.mark.long
def test_the_largest_model_agrees_between_the_frameworks_in_float32():
  """Its logits and losses at full size, of two rows."""
  torch, jax = pytest.importorskip('torch'), pytest.importorskip('jax')
  from flax import linen as nn

  definition = registry.workload('wmt')
  batch = nmt_batches.one_a_row(pairs(definition, 2), definition.data.max_length)
  torch.manual_seed(0)
  model = code('pytorch').build(definition)
  with torch.no_grad():
    logits = code('pytorch').forward(model, nmt_models.tensors(batch), **EVALUATION).numpy()
  state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
  params, _ = code('parity').to_jax(definition, state)
  apply = nn.apply(code('jax').forward, code('jax').build(definition))
  run = jax.jit(lambda params, batch: apply({'params': params}, batch, **EVALUATION))
  counts = batch['weights'] > 0
  np.testing.assert_allclose(
    np.asarray(run(params, batch))[counts],
    logits[counts],
    rtol=0,
    atol=1e-5 * max(1, np.abs(logits).max()),
  )
