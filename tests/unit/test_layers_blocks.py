"""Blocks, attention layers, feed-forward layers and norms: both frameworks against plain twins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import layer_twin as twin
import numpy as np
import pytest

from algorithmic_efficiency.layers import twins
from algorithmic_efficiency.layers.configs import (
  AttentionConfig,
  AttentionNames,
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
  FeedForwardNames,
  QueryKeyNorm,
)
from algorithmic_efficiency.layers.positions import rotary_table

FRAMEWORKS = ['jax', 'torch']
BATCH, LENGTH, CONTEXT, DIM, THETA = 2, 6, 5, 8, 100.0

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape)


@dataclass(frozen=True)
class Case:
  """A block, its names in both frameworks, and what it is applied to."""

  config: BlockConfig
  jax_names: BlockNames
  torch_names: BlockNames
  is_rotary: bool = False
  mask: np.ndarray | None = None
  context_mask: np.ndarray | None = None

  @property
  def x(self) -> np.ndarray:
    return draw(BATCH, LENGTH, DIM, seed=1)

  @property
  def context(self) -> np.ndarray | None:
    return draw(BATCH, CONTEXT, DIM, seed=2) if self.config.cross_attention else None

  @property
  def table(self) -> np.ndarray | None:
    config = self.config.self_attention
    return rotary_table(2 * LENGTH, config.head_dim, THETA) if self.is_rotary else None

  @functools.cached_property
  def params(self) -> dict[str, Any]:
    """Parameters of the flax module, away from those of the beginning."""
    import jax

    from algorithmic_efficiency.layers import jax as layers

    module = layers.Block(self.config, self.jax_names, np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), self.x, self.context)['params']
    leaves, structure = jax.tree.flatten(shapes)
    return structure.unflatten(
      [
        draw(*leaf.shape, seed=seed) / (2 if leaf.ndim > 1 else 8) + (leaf.ndim < 2)
        for seed, leaf in enumerate(leaves)
      ]
    )

  @property
  def pairs(self) -> list[twins.Pair]:
    return twins.block('', '', self.config, jax_names=self.jax_names, torch_names=self.torch_names)


ROW_WITHOUT_CONTEXT = np.ones((BATCH, 1, 1, CONTEXT), bool)
ROW_WITHOUT_CONTEXT[0, ..., 3:] = False
ROW_WITHOUT_CONTEXT[1] = False
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 2, 2, 2, 2]])
IN_SEGMENT = (SEGMENTS[:, :, None] == SEGMENTS[:, None, :])[:, None]

CASES = {
  'decoder': Case(
    BlockConfig(
      dim=DIM,
      self_attention=AttentionConfig(
        num_heads=4,
        head_dim=2,
        num_kv_heads=2,
        causal=True,
        query_key_norm=QueryKeyNorm(initial_scale=3.0),
        out_by_heads=False,
      ),
      feed_forward=FeedForwardConfig(hidden_dim=6, activation='glu', use_bias=False),
      norm='rms',
    ),
    BlockNames(
      self_attention='CausalAttn_0',
      feed_forward='Mlp_0',
      norms=('RMSNorm_0', 'RMSNorm_1'),
      self_projections=AttentionNames(out='attn_out_proj'),
    ),
    BlockNames(
      self_attention='attn',
      feed_forward='mlp',
      norms=('attn_norm', 'mlp_norm'),
      self_projections=AttentionNames(query='w', key='w', value='w', out='w_out'),
    ),
    is_rotary=True,
    mask=IN_SEGMENT,
  ),
  'translation': Case(
    BlockConfig(
      dim=DIM,
      self_attention=AttentionConfig(num_heads=2, head_dim=4, causal=True, scale=2.0),
      cross_attention=AttentionConfig(num_heads=2, head_dim=4, scale=2.0),
      feed_forward=FeedForwardConfig(hidden_dim=6, activation='tanh', gate='input'),
      norm_position='post',
    ),
    BlockNames(
      self_attention='MultiHeadDotProductAttention_0',
      cross_attention='MultiHeadDotProductAttention_1',
      feed_forward='MlpBlock_0',
      norms=('LayerNorm_0', 'LayerNorm_1', 'LayerNorm_2'),
    ),
    BlockNames(
      self_attention='self_attn',
      cross_attention='multihead_attn',
      feed_forward='',
      norms=('norm1', 'norm2', 'norm3'),
      self_projections=AttentionNames(
        query='in_proj', key='in_proj', value='in_proj', out='out_proj'
      ),
      cross_projections=AttentionNames(
        query='q_proj', key='kv_proj', value='kv_proj', out='out_proj'
      ),
    ),
    context_mask=ROW_WITHOUT_CONTEXT,
  ),
  'vision': Case(
    BlockConfig(
      dim=DIM,
      self_attention=AttentionConfig(num_heads=2, head_dim=4, use_bias=True),
      feed_forward=FeedForwardConfig(hidden_dim=6, activation='gelu', gate='hidden'),
    ),
    BlockNames(
      self_attention='MultiHeadDotProductAttention_1',
      feed_forward='MlpBlock_3',
      norms=('LayerNorm_0', 'LayerNorm_2'),
    ),
    BlockNames(
      self_attention='self_attention1',
      feed_forward='mlp3',
      norms=('layer_norm0', 'layer_norm2'),
      feed_forward_layers=FeedForwardNames(gate='glu_linear'),
    ),
  ),
}


def stripped(pairs: list[twins.Pair]) -> list[twins.Pair]:
  """The pairs of a block that is the whole model."""
  return [
    replace(
      pair,
      jax=tuple(name.replace('params//', 'params/') for name in pair.jax),
      torch=pair.torch.lstrip('.'),
    )
    for pair in pairs
  ]


def in_jax(case: Case, cotangent: np.ndarray) -> tuple[np.ndarray, Mapping[str, Any]]:
  """The output, and the gradients of its product with the cotangent by PyTorch's names."""
  import jax

  from algorithmic_efficiency.layers import jax as layers

  module = layers.Block(case.config, case.jax_names, np.float64)

  @jax.jit
  def run(params: Any, x: Any) -> Any:
    def objective(params: Any, x: Any) -> Any:
      out = module.apply(
        {'params': params},
        x,
        case.context,
        mask=case.mask,
        context_mask=case.context_mask,
        table=None if case.table is None else jax.numpy.asarray(case.table),
      )
      return (out * cotangent).sum(), out

    return jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(params, x)

  with jax.enable_x64(True):
    (_, out), (of_params, of_x) = jax.device_get(run(case.params, case.x))
  return out, {'x': of_x, **twins.to_torch(stripped(case.pairs), of_params, None)}


def torch_block(case: Case) -> Any:
  import torch

  from algorithmic_efficiency.layers import torch as layers

  block = layers.Block(case.config, case.torch_names, dtype=torch.float64)
  state = twins.to_torch(stripped(case.pairs), case.params, None)
  block.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
  return block


def tensors(*arrays: np.ndarray | None) -> list[Any]:
  import torch

  return [None if array is None else torch.tensor(array) for array in arrays]


def in_torch(case: Case, cotangent: np.ndarray) -> tuple[np.ndarray, Mapping[str, Any]]:
  block = torch_block(case)
  x, context, mask, context_mask, table, cotangent = tensors(
    case.x, case.context, case.mask, case.context_mask, case.table, cotangent
  )
  out = block(x.requires_grad_(), context, mask=mask, context_mask=context_mask, table=table)
  (out * cotangent).sum().backward()
  gradients = {name: one.grad.numpy() for name, one in block.named_parameters()}
  return out.detach().numpy(), {'x': x.grad.numpy(), **gradients}


@pytest.mark.parametrize('name', CASES)
def test_blocks_are_those_of_the_twin_and_agree_in_their_gradients(name):
  pytest.importorskip('torch')
  pytest.importorskip('jax')
  case = CASES[name]
  cotangent = draw(BATCH, LENGTH, DIM, seed=3)
  (out, gradients), (jax_out, jax_gradients) = in_torch(case, cotangent), in_jax(case, cotangent)
  expected = twin.block(
    case.config,
    case.jax_names,
    case.params,
    case.x,
    case.context,
    masks=(case.mask, case.context_mask),
    theta=THETA if case.is_rotary else None,
  )
  for found in (out, jax_out):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
  assert set(gradients) == set(jax_gradients)
  for key, gradient in gradients.items():
    largest = abs(gradient).max()
    if not key.endswith('key.bias'):  # the same for all keys, so that the softmax takes it away
      assert 1e-6 < largest < np.inf, key
    np.testing.assert_allclose(jax_gradients[key], gradient, rtol=0, atol=1e-9 * largest + 1e-12)


# Dropout.


@each_framework
def test_dropout_of_everything_leaves_the_input(framework):
  """Of hidden units and outputs; that of attention leaves what does not come from attention."""
  pytest.importorskip('jax')  # it names the parameters
  case = CASES['vision']
  params, names = case.params, case.jax_names
  after_attention = case.x + params[names.self_attention]['out']['bias']
  normed = twin.norm('layer', params[names.norms[1]], after_attention, 1e-6)
  feed_forward = twin.feed_forward(case.config.feed_forward, params[names.feed_forward], normed)
  for rates, expected in (
    ({'dropout_rate': 1.0}, case.x),
    ({'attention_dropout_rate': 1.0}, after_attention + feed_forward),
  ):
    if framework == 'jax':
      import jax

      from algorithmic_efficiency.layers import jax as layers

      module = layers.Block(case.config, names, np.float32)
      rngs = {'dropout': jax.random.key(0)}
      run = functools.partial(module.apply, {'params': params}, np.float32(case.x), rngs=rngs)
      out, still = jax.jit(
        lambda run=run, rates=rates: (run(train=True, **rates), run(train=False, **rates))
      )()
      np.testing.assert_allclose(still, twin.block(case.config, names, params, case.x), atol=1e-5)
    else:
      block = torch_block(case)
      out = block(*tensors(case.x), **rates).detach()
    np.testing.assert_allclose(np.asarray(out), expected, atol=1e-5)


@each_framework
def test_dropout_of_hidden_units_leaves_the_last_bias(framework):
  pytest.importorskip(framework)
  config, x = CASES['vision'].config.feed_forward, np.float32(draw(2, 3, DIM))
  if framework == 'jax':
    import jax

    from algorithmic_efficiency.layers import jax as layers

    module = layers.FeedForward(replace(config, bias_stddev=0.5), np.float32)
    rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    out, variables = jax.jit(
      lambda: module.init_with_output(rngs, x, train=True, dropout_rate=1.0)
    )()
    bias = variables['params']['Dense_2']['bias']
  else:
    torch = pytest.importorskip('torch')
    from algorithmic_efficiency.layers import torch as layers  # type: ignore[no-redef]

    module = layers.FeedForward(replace(config, bias_stddev=0.5), dim=DIM, dtype=torch.float32)
    out, bias = module(torch.tensor(x), dropout_rate=1.0).detach(), module.linear2.bias.detach()
  assert np.asarray(bias).std() > 0.1
  np.testing.assert_array_equal(np.asarray(out), np.broadcast_to(bias, x.shape))


# Caches.


IN_PARTS = pytest.param([4, 2], marks=pytest.mark.slow)


@pytest.mark.parametrize('parts', [[1] * LENGTH, IN_PARTS], ids=['tokens', 'parts'])
@pytest.mark.parametrize('name', ['decoder', 'translation'])
@each_framework
def test_a_cache_gives_what_the_whole_sequence_gives(framework, name, parts):
  pytest.importorskip('jax')  # it names the parameters
  case = replace(CASES[name], mask=None)
  whole = twin.block(
    case.config,
    case.jax_names,
    case.params,
    case.x,
    case.context,
    masks=(None, case.context_mask),
    theta=THETA if case.is_rotary else None,
  )
  found = np.concatenate(globals()[f'cached_in_{framework}'](case, parts), axis=1)
  np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-10)


def cached_in_torch(case: Case, parts: list[int]) -> list[np.ndarray]:
  torch = pytest.importorskip('torch')
  block = torch_block(case)
  x, context, context_mask, table = tensors(case.x, case.context, case.context_mask, case.table)
  found = []
  with torch.no_grad():
    cache = block.start_cache(x, LENGTH + 2, context)
    for part in x.split(parts, dim=1):
      out, cache = block(part, context_mask=context_mask, table=table, cache=cache)
      found.append(out.numpy())
  return found


def cached_in_jax(case: Case, parts: list[int]) -> list[np.ndarray]:
  import jax

  from algorithmic_efficiency.layers import jax as layers

  module = layers.Block(case.config, case.jax_names, np.float64)
  variables = {'params': case.params}
  options = {'context_mask': case.context_mask}
  found = []
  with jax.enable_x64(True):
    if case.table is not None:
      options['table'] = jax.numpy.asarray(case.table)
    step = jax.jit(lambda x, cache: module.apply(variables, x, cache=cache, **options))
    x = jax.numpy.asarray(case.x)
    cache = module.apply(variables, x, LENGTH + 2, case.context, method='start_cache')
    for part in np.split(case.x, np.cumsum(parts)[:-1], axis=1):
      out, cache = step(part, cache)
      found.append(np.asarray(out))
  return found


@each_framework
def test_rows_may_share_a_memory(framework):
  """As the beams of a sentence do; without copies of what they attend to."""
  pytest.importorskip('jax')  # it names the parameters
  case, per_memory = CASES['translation'], 3
  x = draw(per_memory * BATCH, 1, DIM, seed=4)
  context, mask = (np.repeat(one, per_memory, 0) for one in (case.context, case.context_mask))
  masks = (None, mask)
  expected = twin.block(case.config, case.jax_names, case.params, x, context, masks=masks)
  found = globals()[f'shared_in_{framework}'](case, x)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


def shared_in_torch(case: Case, x: np.ndarray) -> np.ndarray:
  torch = pytest.importorskip('torch')
  block = torch_block(case)
  x, context, context_mask = tensors(x, case.context, case.context_mask)
  with torch.no_grad():
    cache = block.start_cache(x, 2, context)
    return block(x, context_mask=context_mask, cache=cache)[0].numpy()


def shared_in_jax(case: Case, x: np.ndarray) -> np.ndarray:
  import jax

  from algorithmic_efficiency.layers import jax as layers

  module = layers.Block(case.config, case.jax_names, np.float64)
  with jax.enable_x64(True):
    variables = {'params': case.params}
    cache = module.apply(variables, jax.numpy.asarray(x), 2, case.context, method='start_cache')
    out, _ = module.apply(variables, x, context_mask=case.context_mask, cache=cache)
    return np.asarray(out)


# Types, names, initial values.


@pytest.mark.parametrize('name', CASES)
@each_framework
def test_blocks_compute_in_their_type_and_keep_parameters_wide(framework, name):
  pytest.importorskip(framework)
  case = CASES[name]
  if framework == 'jax':
    import jax

    from algorithmic_efficiency.layers import jax as layers

    module = layers.Block(case.config, case.jax_names, jax.numpy.bfloat16)
    x, context = (
      None if one is None else jax.numpy.asarray(one, 'bfloat16') for one in (case.x, case.context)
    )
    run = functools.partial(module.init_with_output, jax.random.key(0))
    out, variables = jax.eval_shape(run, x, context)
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(variables)}
    assert (out.dtype.name, out.shape) == ('bfloat16', case.x.shape)
  else:
    import torch

    from algorithmic_efficiency.layers import torch as layers  # type: ignore[no-redef]

    block = layers.Block(case.config, case.torch_names, dtype=torch.bfloat16)
    x, context = (None if one is None else one.bfloat16() for one in tensors(case.x, case.context))
    out = block(x, context)
    assert (out.dtype, out.shape) == (torch.bfloat16, case.x.shape)
    kinds = {str(one.dtype).removeprefix('torch.') for one in block.parameters()}
  assert kinds == {'float32'}


def translation_block(part: str) -> tuple[BlockConfig, BlockNames, BlockNames]:
  """A block of WMT's encoder or decoder, at full size, with its GLU."""
  attention = AttentionConfig(num_heads=16, head_dim=64, init='xavier_uniform')
  config = BlockConfig(
    dim=1024,
    self_attention=attention,
    cross_attention=attention if part == 'decoder' else None,
    feed_forward=FeedForwardConfig(
      hidden_dim=1024, activation='tanh', gate='input', bias_stddev=1e-6
    ),
  )
  names = CASES['translation'].jax_names, CASES['translation'].torch_names
  num_norms = 3 if part == 'decoder' else 2
  return config, *(replace(one, norms=one.norms[:num_norms]) for one in names)


def named(parts: dict[str, dict[str, list[int]]], separator: str) -> dict[str, list[int]]:
  """Shapes of parameters by their full names."""
  return {
    f'{part}{separator}{leaf}': shape
    for part, leaves in parts.items()
    for leaf, shape in leaves.items()
  }


@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_the_parameters_of_translation_have_their_usual_names_and_shapes_in_flax(part):
  jax = pytest.importorskip('jax')
  from algorithmic_efficiency.layers import jax as layers

  config, names, _ = translation_block(part)
  x = jax.ShapeDtypeStruct((1, 2, 1024), np.float32)
  block = layers.Block(config, names, np.float32)
  context = x if part == 'decoder' else None
  shapes = jax.eval_shape(block.init, jax.random.key(0), x, context)['params']
  found = {
    jax.tree_util.keystr(path, simple=True, separator='/'): list(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
  }
  vector, num_attentions = [1024], 2 if part == 'decoder' else 1
  expected = {f'LayerNorm_{i}': dict.fromkeys(('bias', 'scale'), vector) for i in range(2)}
  if part == 'decoder':
    expected['LayerNorm_2'] = expected['LayerNorm_0']
  for i in range(num_attentions):
    name = f'MultiHeadDotProductAttention_{i}'
    expected |= {f'{name}/{one}': {'kernel': [1024, 16, 64]} for one in ('query', 'key', 'value')}
    expected[f'{name}/out'] = {'kernel': [16, 64, 1024]}
  for i in range(3):
    expected[f'MlpBlock_0/Dense_{i}'] = {'bias': vector, 'kernel': [1024, 1024]}
  assert found == named(expected, '/')


@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_the_parameters_of_translation_have_their_usual_names_and_shapes_in_pytorch(part):
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import torch as layers

  config, _, names = translation_block(part)
  with torch.device('meta'):
    module = layers.Block(config, names, dtype=torch.float32)
  square, vector = [1024, 1024], [1024]
  expected = {
    'self_attn.in_proj': {'weight': [3072, 1024]},
    'self_attn.out_proj': {'weight': square},
    **{key: {'weight': square, 'bias': vector} for key in ('linear1', 'linear_glu', 'linear2')},
    **{key: {'weight': vector, 'bias': vector} for key in ('norm1', 'norm2')},
  }
  if part == 'decoder':
    expected |= {
      'multihead_attn.q_proj': {'weight': square},
      'multihead_attn.kv_proj': {'weight': [2048, 1024]},
      'multihead_attn.out_proj': {'weight': square},
      'norm3': {'weight': vector, 'bias': vector},
    }
  found = {name: list(one.shape) for name, one in module.named_parameters()}
  assert found == named(expected, '.')


def test_shared_projections_begin_one_by_one():
  """The fan-out is that of a projection, as in flax."""
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import torch as layers

  torch.manual_seed(0)
  names = AttentionNames(query='w', key='w', value='w')
  config = AttentionConfig(num_heads=4, head_dim=32, num_kv_heads=1, init='xavier_uniform')
  layer = layers.MultiHeadAttention(config, dim=64, dtype=torch.float32, names=names)
  for part in layer.w.weight.detach().split([128, 32, 32]):
    bound = np.sqrt(6 / (64 + len(part)))
    assert 0.99 * bound < part.abs().max() <= bound
    assert part.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


# What is refused.


def test_heads_and_scales_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='6 heads do not divide into 4'):
    AttentionConfig(num_heads=6, head_dim=2, num_kv_heads=4)
  norm = QueryKeyNorm(initial_scale=1.0)
  with pytest.raises(ValueError, match='not both'):
    AttentionConfig(num_heads=2, head_dim=2, scale=1.0, query_key_norm=norm)


def test_cross_attention_refuses_a_query_that_shares_its_layer():
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import torch as layers

  names = AttentionNames(query='w', key='w', value='w')
  config = AttentionConfig(num_heads=2, head_dim=2)
  layer = layers.MultiHeadAttention(config, dim=4, dtype=torch.float32, names=names)
  with pytest.raises(ValueError, match="'w' makes query, key, value"):
    layer(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))
