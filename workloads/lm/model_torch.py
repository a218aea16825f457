"""The decoder-only Transformer in PyTorch.

Shapes: tokens [batch, length], hidden states [batch, length, dim], kernel [vocab, dim], logits
[batch, length, vocab].
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import nn

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers.positions import rotary_table

from .blocks import TORCH_NAMES, block_config
from .definition import Decoder, TokenWindows


class _Decoder(nn.Module):
  def __init__(self, config: Decoder, data: TokenWindows, dtype: torch.dtype):
    super().__init__()
    self.config = config
    self.embed_tokens = layers.Embedding(
      data.vocab_size, config.dim, stddev=config.init_stddev, dtype=dtype
    )
    block = block_config(config, data.sequence_length)
    self.layers = nn.ModuleList(
      layers.Block(block, TORCH_NAMES, dtype=dtype) for _ in range(config.num_layers)
    )
    if config.norm_position == 'pre':
      self.out_norm = _norm(config, dtype)
    # A tied weight is not drawn twice, so that none is allocated before it is tied.
    with torch.device('meta') if config.tied_embeddings else contextlib.nullcontext():
      self.lm_head = layers.Linear(
        config.dim, data.vocab_size, bias=False, init=config.init_stddev, dtype=dtype
      )
    if config.tied_embeddings:
      self.lm_head.weight = self.embed_tokens.weight
    table = rotary_table(data.sequence_length, config.head_dim, config.rope_theta)
    table = torch.tensor(table, dtype=layers.param_dtype(dtype))
    self.register_buffer('rotary_table', table, persistent=False)

  def forward(
    self, tokens: torch.Tensor, segments: torch.Tensor | None = None
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the last hidden states and the kernel whose product are the logits."""
    mask = None if segments is None else layers.segment_mask(segments)
    x = self.embed_tokens(tokens)
    for layer in self.layers:
      x = layer(x, table=self.rotary_table, mask=mask)
    if self.config.norm_position == 'pre':
      x = self.out_norm(x)
    return x, self.lm_head.weight


def _norm(config: Decoder, dtype: torch.dtype) -> nn.Module:
  return layers.RMSNorm(config.dim, epsilon=config.rms_norm_epsilon, dtype=dtype)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """The definition's model, which computes in `dtype`; see `Decoder` for how it begins."""
  return _Decoder(definition.model, definition.data, dtype)


def forward(
  model: nn.Module,
  batch: Mapping[str, torch.Tensor],
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> torch.Tensor:
  """Logits; the model has no dropout. Attention stays within `segments`, if given."""
  return layers.vocab_logits(*model(batch['inputs'], batch.get('segments')))


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, torch.Tensor]:
  """Cross entropy of tokens; a mask weighs sequences [batch] or tokens [batch, length]."""
  return layers.token_loss(targets, logits, mask, label_smoothing)


def eval_step(
  definition: WorkloadDefinition,
  batch: Mapping[str, torch.Tensor],
  logits: torch.Tensor,
) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], dict[str, torch.Tensor]]:
  """Sum and weight of every metric over the tokens that count, and no outputs."""
  targets = batch['targets']
  weights = layers.spread_weights(batch['weights'], targets)
  return layers.token_sums(targets, logits, weights, batch['target_bytes']), {}
