"""The encoder-decoder Transformer in flax.

Shapes: source and target tokens [batch, length], hidden states [batch, length, dim], kernel
[vocab, dim], logits [batch, length, vocab]. Token 0 is padding, and begins each target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import jax as layers
from algorithmic_efficiency.layers.configs import BlockConfig
from algorithmic_efficiency.layers.positions import sinusoidal_table

from .blocks import JAX_DECODER, JAX_ENCODER, StackNames, decoder_block, encoder_block
from .data_records import EOS_ID
from .definition import Transformer

_Cache = list[dict[str, Any]]  # of each block


class _Stack(nn.Module):
  """The blocks of an encoder or a decoder, and the norm after the last."""

  config: BlockConfig
  names: StackNames
  num_layers: int
  dtype: Any

  def setup(self) -> None:
    config, names = self.config, self.names
    self._blocks = [
      layers.Block(config, names.parts, self.dtype, name=f'{names.block}{index}')
      for index in range(self.num_layers)
    ]
    if config.norm_position == 'pre':
      options = {'epsilon': config.norm_epsilon, **layers.types(self.dtype)}
      self._norm = layers.LayerNorm(name=names.norm, **options)

  def __call__(self, x: jax.Array, context: jax.Array | None = None, **options: Any) -> jax.Array:
    """Transforms x [batch, length, dim]; the options are those of `layers.Block`."""
    for block in self._blocks:
      x = block(x, context, **options)
    return self._normalized(x)

  def next(
    self, x: jax.Array, cache: _Cache, memory: _Cache, mask: jax.Array
  ) -> tuple[jax.Array, _Cache]:
    """Transforms the next token of each row, x [rows, 1, dim].

    Args:
      cache: keys and values of the tokens before; its rows are those of x.
      memory: keys and values of the sources; a source may serve several rows.
      mask: which tokens of a source there are, [sources, 1, 1, length].

    Returns:
      Hidden states [rows, 1, dim] and the new cache.
    """
    new_cache = []
    for block, own, of_source in zip(self._blocks, cache, memory, strict=True):
      x, held = block(x, context_mask=mask, cache={**own, **of_source})
      new_cache.append({'self': held['self']})
    return self._normalized(x), new_cache

  def start(self, context: jax.Array, max_length: int) -> tuple[_Cache, _Cache]:
    """Returns the empty cache of at most `max_length` tokens, and the memory of the sources."""
    held = [block.start_cache(context, max_length, context) for block in self._blocks]
    return tuple([{name: one[name]} for one in held] for name in ('self', 'cross'))

  def _normalized(self, x: jax.Array) -> jax.Array:
    return self._norm(x) if self.config.norm_position == 'pre' else x


class _Transformer(nn.Module):
  config: Transformer
  vocab_size: int
  max_length: int
  dtype: Any

  def setup(self) -> None:
    config = self.config
    self.shared_embedding = nn.Embed(
      self.vocab_size,
      config.dim,
      embedding_init=nn.initializers.normal(1.0),
      param_dtype=layers.types(self.dtype)['param_dtype'],
    )
    sizes = {'num_layers': config.num_layers, 'dtype': self.dtype}
    self.encoder = _Stack(encoder_block(config), JAX_ENCODER, **sizes)
    self.decoder = _Stack(decoder_block(config), JAX_DECODER, **sizes)
    self._dropout = layers.Dropout()

  def __call__(self, batch: Mapping[str, jax.Array], **options: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the last hidden states and the kernel whose product are the logits.

    Options are `train`, `dropout_rate` and `attention_dropout_rate`, as of `layers.Block`.
    """
    encoded = self.encode(batch, **options)
    return self.decode(encoded, batch, **options), self.shared_embedding.embedding

  def encode(self, batch: Mapping[str, jax.Array], **options: Any) -> jax.Array:
    """Returns the hidden states of the sources."""
    sources, segments = batch['inputs'], batch.get('inputs_segmentation')
    x = self._embedded(sources, batch.get('inputs_position'), **options)
    if segments is None:
      return self.encoder(x, mask=layers.padding_mask(sources > 0), **options)
    return self.encoder(x, mask=layers.segment_mask(segments), **options)

  def decode(self, encoded: jax.Array, batch: Mapping[str, jax.Array], **options: Any) -> jax.Array:
    """Returns the last hidden states of targets that are known, [batch, length, dim]."""
    targets, segments = batch['targets'], batch.get('targets_segmentation')
    if segments is None:
      mask, context_mask = (layers.padding_mask(batch[one] > 0) for one in ('targets', 'inputs'))
    else:
      mask = layers.segment_mask(segments)
      context_mask = layers.segment_mask(segments, batch['inputs_segmentation'])
    starts = segments if self.config.packed_start == 'zero' else None
    x = self._embedded(_shifted(targets, starts), batch.get('targets_position'), **options)
    return self._scaled(self.decoder(x, encoded, mask=mask, context_mask=context_mask, **options))

  def start(self, sources: jax.Array) -> tuple[_Cache, _Cache]:
    """Returns an empty cache and the memory of the sources, for `next`."""
    return self.decoder.start(self.encode({'inputs': sources}), self.max_length)

  def next(
    self, tokens: jax.Array, cache: _Cache, sources: jax.Array, memory: _Cache
  ) -> tuple[jax.Array, _Cache]:
    """Returns log-probabilities of what follows `tokens` [rows], and the new cache."""
    positions = cache[0]['self']['index'][:, None]
    x = self._embedded(tokens[:, None], positions)
    x, cache = self.decoder.next(x, cache, memory, layers.padding_mask(sources > 0))
    logits = layers.vocab_logits(self._scaled(x), self.shared_embedding.embedding)
    log_probs = jax.nn.log_softmax(logits[:, 0].astype(layers.types(self.dtype)['param_dtype']))
    # A row without a source fills up a batch. It ends at once, so that no search waits for it.
    is_empty = jnp.repeat(~jnp.any(sources > 0, axis=1), len(tokens) // len(sources))
    ends = jnp.where(jnp.arange(self.vocab_size) == EOS_ID, 0.0, -jnp.inf)
    return jnp.where(is_empty[:, None], ends.astype(log_probs.dtype), log_probs), cache

  def _embedded(
    self,
    tokens: jax.Array,
    positions: jax.Array | None,
    *,
    train: bool = False,
    dropout_rate: float = 0.0,
    **of_blocks: Any,
  ) -> jax.Array:
    """Embeds tokens [batch, length] at these positions, or at 0, 1, 2, ..."""
    x = self.shared_embedding(tokens)
    table = jnp.asarray(sinusoidal_table(self.max_length, self.config.dim), x.dtype)
    x += table[: tokens.shape[1]] if positions is None else table[positions]
    return self._dropout(x, dropout_rate, train=train).astype(self.dtype)

  def _scaled(self, hidden: jax.Array) -> jax.Array:
    """Scales hidden states, as the table that makes the logits has elements of variance 1."""
    return hidden * jnp.asarray(self.config.dim**-0.5, hidden.dtype)


def _shifted(targets: jax.Array, segments: jax.Array | None) -> jax.Array:
  """Shifts targets to the right; each row begins with 0, and so does each segment that is given."""
  shifted = _shift(targets)
  return shifted if segments is None else jnp.where(segments == _shift(segments), shifted, 0)


def _shift(tokens: jax.Array) -> jax.Array:
  return jnp.pad(tokens[:, :-1], [(0, 0), (1, 0)])


def build(definition: WorkloadDefinition, *, dtype: Any = jnp.float32) -> nn.Module:
  """The definition's model, which computes in `dtype`; see `Transformer` for how it begins."""
  data = definition.data
  return _Transformer(definition.model, data.vocab_size, data.max_length, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
  aux_dropout_rate: float = 0.0,
) -> jax.Array:
  """Logits of a bound model, of rows that hold one pair, or several with their segments.

  Args:
    aux_dropout_rate: dropout rate of the weights of attention.
  """
  hidden, kernel = model(
    batch, train=train, dropout_rate=dropout_rate, attention_dropout_rate=aux_dropout_rate
  )
  return layers.vocab_logits(hidden, kernel)


def loss(
  definition: WorkloadDefinition,
  targets: jax.Array,
  logits: jax.Array,
  mask: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, jax.Array]:
  """Cross entropy of tokens; a mask weighs rows [batch] or tokens [batch, length]."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition,
  batch: Mapping[str, jax.Array],
  logits: jax.Array,
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], dict[str, jax.Array]]:
  """Sum and weight of loss and accuracy over the tokens that count, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  return layers.token_sums(targets, logits, weights), {}


def generate(
  definition: WorkloadDefinition,
  model: nn.Module,
  batch: Mapping[str, jax.Array],
  *,
  is_last: bool,
) -> dict[str, jax.Array]:
  """Translations of the first source of each row: `tokens`, int32 [batch, max_length].

  The end token follows a translation, unless it is cut; 0 follows the end token.
  """
  data, search = definition.data, definition.model.search
  sources = batch['inputs'][:, : data.max_length]  # a packed row may be longer than a sentence
  if 'inputs_segmentation' in batch:
    sources = jnp.where(batch['inputs_segmentation'][:, : data.max_length] == 1, sources, 0)
  model, variables = model.unbind()  # a bound one cannot be called within a loop of JAX
  cache, memory = model.apply(variables, sources, method='start')

  def step(tokens: jax.Array, cache: _Cache) -> tuple[jax.Array, _Cache]:
    return model.apply(variables, tokens, cache, sources, memory, method='next')

  options = {
    'start_tokens': jnp.zeros(len(sources), jnp.int32),
    'end_token': EOS_ID,
    'max_length': data.max_length,
  }
  if search.is_greedy(is_last=is_last):
    return {'tokens': layers.greedy_search(step, cache, **options)}
  beams = layers.beam_search(
    step, cache, num_beams=search.num_beams, length_penalty=search.length_penalty, **options
  )
  return {'tokens': beams.tokens[:, 0]}
