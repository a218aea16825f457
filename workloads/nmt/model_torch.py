"""The encoder-decoder Transformer in PyTorch.

Shapes: source and target tokens [batch, length], hidden states [batch, length, dim], kernel
[vocab, dim], logits [batch, length, vocab]. Token 0 is padding, and begins each target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers.configs import BlockConfig
from algorithmic_efficiency.layers.positions import sinusoidal_table

from .blocks import TORCH_DECODER, TORCH_ENCODER, StackNames, decoder_block, encoder_block
from .data_records import EOS_ID
from .definition import Transformer

_Cache = list[dict[str, Any]]  # of each block


class _Stack(nn.Module):
  """The blocks of an encoder or a decoder, and the norm after the last."""

  def __init__(
    self, config: BlockConfig, names: StackNames, *, num_layers: int, dtype: torch.dtype
  ):
    super().__init__()
    self.layers = nn.ModuleList(
      layers.Block(config, names.parts, dtype=dtype) for _ in range(num_layers)
    )
    self.norm: nn.Module = nn.Identity()
    if config.norm_position == 'pre':
      self.norm = layers.LayerNorm(config.dim, epsilon=config.norm_epsilon, dtype=dtype)

  def forward(
    self, x: torch.Tensor, context: torch.Tensor | None = None, **options: Any
  ) -> torch.Tensor:
    """Transforms x [batch, length, dim]; the options are those of `layers.Block`."""
    for block in self.layers:
      x = block(x, context, **options)
    return self.norm(x)

  def next(
    self, x: torch.Tensor, cache: _Cache, memory: _Cache, mask: torch.Tensor
  ) -> tuple[torch.Tensor, _Cache]:
    """Transforms the next token of each row, x [rows, 1, dim].

    Args:
      cache: keys and values of the tokens before; its rows are those of x.
      memory: keys and values of the sources; a source may serve several rows.
      mask: which tokens of a source there are, [sources, 1, 1, length].

    Returns:
      Hidden states [rows, 1, dim] and the new cache.
    """
    new_cache = []
    for block, own, of_source in zip(self.layers, cache, memory, strict=True):
      x, held = block(x, context_mask=mask, cache={**own, **of_source})
      new_cache.append({'self': held['self']})
    return self.norm(x), new_cache

  def start(self, context: torch.Tensor, max_length: int) -> tuple[_Cache, _Cache]:
    """Returns the empty cache of at most `max_length` tokens, and the memory of the sources."""
    held = [block.start_cache(context, max_length, context) for block in self.layers]
    return tuple([{name: one[name]} for one in held] for name in ('self', 'cross'))


class _Transformer(nn.Module):
  def __init__(self, config: Transformer, *, vocab_size: int, max_length: int, dtype: torch.dtype):
    super().__init__()
    self.dtype = dtype
    self.max_length = max_length
    self.packed_start = config.packed_start
    self.scale = config.dim**-0.5  # the table that makes the logits has elements of variance 1
    wide = layers.param_dtype(dtype)
    self.shared_embedding = layers.Embedding(vocab_size, config.dim, stddev=1.0, dtype=wide)
    sizes = {'num_layers': config.num_layers, 'dtype': dtype}
    encoder = _Stack(encoder_block(config), TORCH_ENCODER, **sizes)
    decoder = _Stack(decoder_block(config), TORCH_DECODER, **sizes)
    # Parameters are called encoder.encoder.layers.0 and so on, as in AlgoPerf.
    self.encoder = nn.ModuleDict({'encoder': encoder})
    self.decoder = nn.ModuleDict({'decoder': decoder})
    table = torch.tensor(sinusoidal_table(max_length, config.dim), dtype=wide)
    self.register_buffer('table', table, persistent=False)

  def forward(
    self, batch: Mapping[str, torch.Tensor], **options: Any
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the last hidden states and the kernel whose product are the logits.

    Options are `dropout_rate` and `attention_dropout_rate`, as of `layers.Block`.
    """
    encoded = self.encode(batch, **options)
    return self.decode(encoded, batch, **options), self.shared_embedding.weight

  def encode(self, batch: Mapping[str, torch.Tensor], **options: Any) -> torch.Tensor:
    """Returns the hidden states of the sources."""
    sources, segments = batch['inputs'], batch.get('inputs_segmentation')
    x = self._embedded(sources, batch.get('inputs_position'), **options)
    if segments is None:
      return self.encoder['encoder'](x, mask=layers.padding_mask(sources > 0), **options)
    return self.encoder['encoder'](x, mask=layers.segment_mask(segments), **options)

  def decode(
    self, encoded: torch.Tensor, batch: Mapping[str, torch.Tensor], **options: Any
  ) -> torch.Tensor:
    """Returns the last hidden states of targets that are known, [batch, length, dim]."""
    targets, segments = batch['targets'], batch.get('targets_segmentation')
    if segments is None:
      mask, context_mask = (layers.padding_mask(batch[one] > 0) for one in ('targets', 'inputs'))
    else:
      mask = layers.segment_mask(segments)
      context_mask = layers.segment_mask(segments, batch['inputs_segmentation'])
    starts = segments if self.packed_start == 'zero' else None
    x = self._embedded(_shifted(targets, starts), batch.get('targets_position'), **options)
    decoder = self.decoder['decoder']
    return self.scale * decoder(x, encoded, mask=mask, context_mask=context_mask, **options)

  def start(self, sources: torch.Tensor) -> tuple[_Cache, _Cache]:
    """Returns an empty cache and the memory of the sources, for `next`."""
    return self.decoder['decoder'].start(self.encode({'inputs': sources}), self.max_length)

  def next(
    self, tokens: torch.Tensor, cache: _Cache, sources: torch.Tensor, memory: _Cache
  ) -> tuple[torch.Tensor, _Cache]:
    """Returns log-probabilities of what follows `tokens` [rows], and the new cache."""
    x = self._embedded(tokens[:, None], cache[0]['self']['index'][:, None])
    mask = layers.padding_mask(sources > 0)
    x, cache = self.decoder['decoder'].next(x, cache, memory, mask)
    logits = layers.vocab_logits(self.scale * x, self.shared_embedding.weight)
    log_probs = logits[:, 0].log_softmax(-1, dtype=layers.param_dtype(self.dtype))
    # A row without a source fills up a batch. It ends at once, so that no search waits for it.
    is_empty = ~(sources > 0).any(1).repeat_interleave(len(tokens) // len(sources))
    ends = torch.full_like(log_probs[:1], -torch.inf)
    ends[:, EOS_ID] = 0
    return torch.where(is_empty[:, None], ends, log_probs), cache

  def _embedded(
    self,
    tokens: torch.Tensor,
    positions: torch.Tensor | None,
    *,
    dropout_rate: float = 0.0,
    **of_blocks: Any,
  ) -> torch.Tensor:
    """Embeds tokens [batch, length] at these positions, or at 0, 1, 2, ..."""
    table = self.table[: tokens.shape[1]] if positions is None else self.table[positions]
    return F.dropout(self.shared_embedding(tokens) + table, dropout_rate).to(self.dtype)


def _shifted(targets: torch.Tensor, segments: torch.Tensor | None) -> torch.Tensor:
  """Shifts targets to the right; each row begins with 0, and so does each segment that is given."""
  shifted = _shift(targets)
  return shifted if segments is None else shifted.masked_fill(segments != _shift(segments), 0)


def _shift(tokens: torch.Tensor) -> torch.Tensor:
  return F.pad(tokens[:, :-1], (1, 0))


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """The definition's model, which computes in `dtype`; see `Transformer` for how it begins."""
  data = definition.data
  return _Transformer(
    definition.model, vocab_size=data.vocab_size, max_length=data.max_length, dtype=dtype
  )


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
  aux_dropout_rate: float = 0.0,
) -> torch.Tensor:
  """Logits, of rows that hold one pair, or several with their segments.

  Args:
    aux_dropout_rate: dropout rate of the weights of attention.
  """
  dropout = {'dropout_rate': dropout_rate, 'attention_dropout_rate': aux_dropout_rate}
  return layers.vocab_logits(*model(batch, **(dropout if train else {})))


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
  """Cross entropy of tokens; a mask weighs rows [batch] or tokens [batch, length]."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition,
  batch: Mapping[str, torch.Tensor],
  logits: torch.Tensor,
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
  """Sum and weight of loss and accuracy over the tokens that count, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  return layers.token_sums(targets, logits, weights), {}


def generate(
  definition: WorkloadDefinition,
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  is_last: bool,
) -> dict[str, torch.Tensor]:
  """Translations of the first source of each row: `tokens`, int32 [batch, max_length].

  The end token follows a translation, unless it is cut; 0 follows the end token.
  """
  data, search = definition.data, definition.model.search
  sources = batch['inputs'][:, : data.max_length]  # a packed row may be longer than a sentence
  if 'inputs_segmentation' in batch:
    sources = sources.masked_fill(batch['inputs_segmentation'][:, : data.max_length] != 1, 0)
  cache, memory = model.start(sources)

  def step(tokens: torch.Tensor, cache: _Cache) -> tuple[torch.Tensor, _Cache]:
    return model.next(tokens, cache, sources, memory)

  options = {
    'start_tokens': torch.zeros(len(sources), dtype=torch.int32, device=sources.device),
    'end_token': EOS_ID,
    'max_length': data.max_length,
  }
  if search.is_greedy(is_last=is_last):
    return {'tokens': layers.greedy_search(step, cache, **options)}
  beams = layers.beam_search(
    step, cache, num_beams=search.num_beams, length_penalty=search.length_penalty, **options
  )
  return {'tokens': beams.tokens[:, 0]}
