"""The decoder over text, images and audio in PyTorch.

Shapes: B batch, L positions, D width, V vocabulary, R frames of a position, M mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers.losses import add_auxiliary
from algorithmic_efficiency.layers.positions import rotary_table

from . import architecture
from .data_records import AUDIO, IMAGE, PADDING, TEXT, RowForm
from .definition import SparseDecoder

_Batch = Mapping[str, torch.Tensor]


class _Audio(nn.Module):
  """Two convolutions over time, the second of which joins the frames of a position."""

  def __init__(self, config: SparseDecoder, data: RowForm, dtype: torch.dtype):
    super().__init__()
    self.data = data
    size = data.frames_per_position
    self.conv_0 = layers.Conv1d(data.num_mels, config.audio_dim, 3, padding=1, dtype=dtype)
    self.conv_1 = layers.Conv1d(config.audio_dim, config.dim, size, stride=size, dtype=dtype)

  def forward(self, frames: torch.Tensor, is_audio: torch.Tensor) -> torch.Tensor:
    """Transforms frames [B, L, R * M] to [B, L, D]; clips apart do not see each other."""
    is_frame = is_audio.repeat_interleave(self.data.frames_per_position, dim=1)[:, None]
    frames = frames.reshape(len(frames), -1, self.data.num_mels).transpose(1, 2)
    x = self.conv_0(frames * is_frame)
    return self.conv_1(F.gelu(x) * is_frame).transpose(1, 2)


class _Block(nn.Module):
  def __init__(self, config: SparseDecoder, layer: int, dtype: torch.dtype):
    super().__init__()
    sizes: dict[str, Any] = {'dim': config.dim, 'dtype': dtype}
    self.attn_norm = _norm(config, dtype)
    self.attn = layers.MultiHeadAttention(
      architecture.attention_config(config), names=architecture.TORCH_ATTENTION, **sizes
    )
    self.mlp_norm = _norm(config, dtype)
    experts = architecture.experts_config(config, layer)
    self.has_experts = experts is not None
    if experts is None:
      mlp, names = architecture.mlp_config(config, layer), architecture.TORCH_FEED_FORWARD
      self.mlp = layers.FeedForward(mlp, names=names, **sizes)
    else:
      self.moe = layers.Experts(experts, **sizes)

  def forward(
    self, x: torch.Tensor, is_token: torch.Tensor, *, train: bool, **attention: Any
  ) -> tuple[torch.Tensor, layers.Routes | None]:
    """Transforms x [B, L, D]; a block with one MLP has no routes."""
    x = x + self.attn(self.attn_norm(x), **attention)
    hidden = self.mlp_norm(x)
    if not self.has_experts:
      return x + self.mlp(hidden), None
    out, routes = self.moe(hidden, is_token, train=train)
    return x + out, routes


def _norm(config: SparseDecoder, dtype: torch.dtype) -> nn.Module:
  return layers.RMSNorm(config.dim, epsilon=config.rms_norm_epsilon, dtype=dtype)


class _Model(nn.Module):
  def __init__(self, definition: WorkloadDefinition, dtype: torch.dtype):
    super().__init__()
    config, data = definition.model, definition.data
    self.data = data
    self.compute_dtype = dtype
    self.embed_tokens = layers.Embedding(
      data.vocab_size, config.dim, stddev=config.init_stddev, dtype=dtype
    )
    self.patches = layers.Linear(data.patch_dim, config.dim, bias=False, dtype=dtype)
    if data.has_audio:
      self.audio = _Audio(config, data, dtype)
    self.layers = nn.ModuleList(_Block(config, layer, dtype) for layer in range(config.num_layers))
    self.out_norm = _norm(config, dtype)
    self._add_table('rotary', rotary_table(data.row_length, config.head_dim, config.rope_theta))
    self._add_table('pixel_statistics', architecture.pixel_statistics(definition))
    self._add_table('patch_table', architecture.patch_table(config, data))

  def _add_table(self, name: str, table: Any) -> None:
    table = torch.tensor(table, dtype=layers.param_dtype(self.compute_dtype))
    self.register_buffer(name, table, persistent=False)

  def forward(self, batch: _Batch, *, train: bool) -> layers.Outputs | torch.Tensor:
    modality = batch['modality']
    is_token = modality != PADDING
    attention = {
      'mask': layers.segment_mask(batch['segments']),
      'table': self.rotary,
      'positions': batch['positions'],
    }
    x, routes = self._inputs(batch, modality), []
    for layer in self.layers:
      x, chosen = layer(x, is_token, train=train, **attention)
      routes += [] if chosen is None else [chosen]
    logits = layers.vocab_logits(self.out_norm(x), self.embed_tokens.weight)
    if not routes:
      return logits
    statistics = {} if train else layers.router_statistics(routes, len(x))
    return layers.Outputs(logits, layers.router_losses(routes), statistics)

  def _inputs(self, batch: _Batch, modality: torch.Tensor) -> torch.Tensor:
    """Embeds what each position holds, [B, L, D]; padding is 0."""
    x = torch.where((modality == TEXT)[..., None], self.embed_tokens(batch['inputs']), 0)
    x = x + torch.where((modality == IMAGE)[..., None], self._images(batch), 0)
    if self.data.has_audio:
      is_audio = modality == AUDIO
      x = x + torch.where(is_audio[..., None], self.audio(batch['frames'], is_audio), 0)
    return x

  def _images(self, batch: _Batch) -> torch.Tensor:
    mean, stddev = self.pixel_statistics
    rows, columns = batch['patch_positions'].unbind(-1)
    places = self.patch_table[rows * self.data.patches_per_side + columns]
    return self.patches((batch['patches'] - mean) / stddev) + places.to(self.compute_dtype)


def build(definition: WorkloadDefinition, *, dtype: torch.dtype = torch.float32) -> nn.Module:
  """Returns the model of the definition, which computes in `dtype`, its routers in float32.

  Raises:
    UserError: an expert has no room for a token.
  """
  architecture.check_capacity(definition)
  return _Model(definition, dtype)


def forward(
  model: nn.Module,
  batch: _Batch,
  *,
  train: bool,
  use_running_average: bool,
  dropout_rate: float,
) -> layers.Outputs | torch.Tensor:
  """Returns the logits [B, L, V], with auxiliary losses if the model has routers."""
  return model(batch, train=train)


def loss(
  definition: WorkloadDefinition,
  targets: torch.Tensor,
  logits: layers.Outputs | torch.Tensor,
  mask: torch.Tensor | None = None,
  label_smoothing: float = 0.0,
) -> dict[str, Any]:
  """Computes the cross entropy of tokens, and adds the losses of the routers to the sum.

  Args:
    mask: weight of each sequence [B] or token [B, L]; answers have weight 1 in batches.
  """
  if not isinstance(logits, layers.Outputs):
    return layers.token_loss(targets, logits, mask, label_smoothing)
  losses = layers.token_loss(targets, logits.logits, mask, label_smoothing)
  weights = architecture.auxiliary_weights(definition.model)
  return add_auxiliary(losses, logits.auxiliary, weights)


def eval_step(
  definition: WorkloadDefinition, batch: _Batch, logits: layers.Outputs | torch.Tensor
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
  """Returns the sums of every metric, and no outputs; the kind of a row is its first task's.

  `router_load` counts the assignments of each layer to each expert, [layers, experts].
  """
  outputs = logits if isinstance(logits, layers.Outputs) else layers.Outputs(logits, {})
  targets = batch['targets']
  losses, is_correct = layers.token_results(targets, outputs.logits)
  weights = layers.spread_weights(batch['weights'], targets).to(losses.dtype)
  counts = (weights != 0).any(1).to(losses.dtype)  # [B], 0 for padding
  is_exact = (is_correct | (weights == 0)).all(1)
  kinds = F.one_hot(batch['task'][:, 0], len(definition.task_names)).to(losses.dtype)
  sums = {
    'accuracy': ((is_correct * weights).sum(), weights.sum()),
    'loss': ((losses * weights).sum(), weights.sum()),
    'loss_of_kind': ((losses * weights).sum(1) @ kinds, weights.sum(1) @ kinds),
    'exact_match': ((counts * is_exact) @ kinds, counts @ kinds),
  }
  return sums | _router_sums(outputs.statistics, counts), {}


def _router_sums(statistics: Mapping[str, torch.Tensor], counts: torch.Tensor) -> dict[str, Any]:
  """The sums of the rows that count."""
  if not statistics:
    return {}
  entropy, num_tokens = statistics['entropy'], statistics['num_tokens']
  return {
    'router_load': torch.einsum('b,ble->le', counts, statistics['load'].to(counts.dtype)),
    'router_entropy': ((counts @ entropy).sum(), entropy.shape[1] * (counts @ num_tokens)),
  }
