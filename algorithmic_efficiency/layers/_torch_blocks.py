"""The parts of Transformers that surround attention: feed-forward layers, blocks and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_attention import Cache, MultiHeadAttention, start_cache
from algorithmic_efficiency.layers._torch_linear import ACTIVATIONS, Conv2d, Linear
from algorithmic_efficiency.layers._torch_norms import LayerNorm, RMSNorm
from algorithmic_efficiency.layers.configs import (
  BlockConfig,
  BlockNames,
  FeedForwardConfig,
  FeedForwardNames,
)

_NORMS = {'layer': LayerNorm, 'rms': RMSNorm}


class FeedForward(nn.Module):
  """Linear layers with an activation and optionally a gate; see `FeedForwardConfig`."""

  def __init__(
    self,
    config: FeedForwardConfig,
    *,
    dim: int,
    dtype: torch.dtype,
    names: FeedForwardNames | None = None,
  ):
    super().__init__()
    self.config = config
    self.names = names or FeedForwardNames()
    add_feed_forward(self, config, dim=dim, dtype=dtype, names=self.names)

  def forward(self, x: torch.Tensor, *, dropout_rate: float = 0.0) -> torch.Tensor:
    """Returns [..., dim]; dropout is that of the hidden units."""
    return feed_forward(self, x, self.config, self.names, dropout_rate=dropout_rate)


def add_feed_forward(
  module: nn.Module,
  config: FeedForwardConfig,
  *,
  dim: int,
  dtype: torch.dtype,
  names: FeedForwardNames,
) -> None:
  """Gives a module the linear layers that `feed_forward` applies."""

  def add(name: str, in_dim: int, out_dim: int, init: Any) -> None:
    layer = Linear(
      in_dim,
      out_dim,
      bias=config.use_bias,
      init=init,
      bias_stddev=config.bias_stddev,
      dtype=dtype,
    )
    module.add_module(name, layer)

  add(names.first, dim, config.first_dim, config.init)
  if config.gate != 'none':
    in_dim = dim if config.gate == 'input' else config.hidden_dim
    add(names.gate, in_dim, config.hidden_dim, config.init)
  add(names.last, config.hidden_dim, dim, config.out_init)


def feed_forward(
  module: nn.Module,
  x: torch.Tensor,
  config: FeedForwardConfig,
  names: FeedForwardNames,
  *,
  dropout_rate: float = 0.0,
) -> torch.Tensor:
  """Applies the layers that `add_feed_forward` gave a module."""
  hidden = ACTIVATIONS[config.activation](getattr(module, names.first)(x))
  if config.gate != 'none':
    gate = getattr(module, names.gate)
    hidden = hidden * gate(x if config.gate == 'input' else hidden)
  return getattr(module, names.last)(F.dropout(hidden, dropout_rate))


def residual(
  x: torch.Tensor, part: Callable[[torch.Tensor], torch.Tensor], norm: nn.Module, position: str
) -> torch.Tensor:
  """Adds a part of the input to the input.

  Args:
    norm: of the part's input if `position` is 'pre', of the sum if it is 'post'.
  """
  return x + part(norm(x)) if position == 'pre' else norm(x + part(x))


class Block(nn.Module):
  """Self attention, optional cross attention and a feed-forward layer, each with a residual sum.

  Args:
    config: the parts and where the norms stand.
    names: the names of the parts.
    dtype: type of the computation.
  """

  def __init__(self, config: BlockConfig, names: BlockNames, *, dtype: torch.dtype):
    super().__init__()
    self.config = config
    self.names = names
    sizes: dict[str, Any] = {'dim': config.dim, 'dtype': dtype}
    parts = [(names.self_attention, config.self_attention, names.self_projections)]
    if config.cross_attention is not None:
      parts.append((names.cross_attention, config.cross_attention, names.cross_projections))
    norm = _NORMS[config.norm]
    for norm_name, (name, attention, projections) in zip(names.norms, parts, strict=False):
      self.add_module(name, MultiHeadAttention(attention, names=projections, **sizes))
      self.add_module(norm_name, norm(config.dim, epsilon=config.norm_epsilon, dtype=dtype))
    if names.feed_forward:
      layer = FeedForward(config.feed_forward, names=names.feed_forward_layers, **sizes)
      self.add_module(names.feed_forward, layer)
    else:
      add_feed_forward(self, config.feed_forward, names=names.feed_forward_layers, **sizes)
    self.add_module(names.norms[-1], norm(config.dim, epsilon=config.norm_epsilon, dtype=dtype))

  def forward(
    self,
    x: torch.Tensor,
    context: torch.Tensor | None = None,
    *,
    mask: torch.Tensor | None = None,
    context_mask: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    cache: dict[str, Cache] | None = None,
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
  ) -> Any:
    """Transforms x [batch, length, dim].

    Args:
      context: what cross attention attends to, [batch, context_length, dim]; the cache can hold it.
      mask: mask of self attention; see `attention`.
      context_mask: mask of cross attention.
      table, positions: rotary positions of self attention; see `rotate`.
      cache: of `start_cache`; see `MultiHeadAttention`.
      dropout_rate: probability with which hidden units and outputs of the parts are zeroed.
      attention_dropout_rate: that of the weights of attention.

    Returns:
      [batch, length, dim]; with a cache, this and the new cache.
    """
    new_cache = {} if cache is None else dict(cache)

    def attend(kind: str, name: str, *inputs: Any, **options: Any) -> torch.Tensor:
      options['dropout_rate'] = attention_dropout_rate
      if cache is None:
        out = getattr(self, name)(*inputs, **options)
      else:
        out, new_cache[kind] = getattr(self, name)(*inputs, cache=cache[kind], **options)
      return F.dropout(out, dropout_rate)

    def add(x: torch.Tensor, part: Callable[[torch.Tensor], torch.Tensor], norm: str) -> Any:
      return residual(x, part, getattr(self, norm), self.config.norm_position)

    names = self.names
    options = {'mask': mask, 'table': table, 'positions': positions}
    x = add(x, lambda x: attend('self', names.self_attention, x, **options), names.norms[0])
    if self.config.cross_attention is not None:
      options = {'mask': context_mask}
      x = add(
        x, lambda x: attend('cross', names.cross_attention, x, context, **options), names.norms[1]
      )
    x = add(
      x, lambda x: F.dropout(self._feed_forward(x, dropout_rate), dropout_rate), names.norms[-1]
    )
    return x if cache is None else (x, new_cache)

  def _feed_forward(self, x: torch.Tensor, dropout_rate: float) -> torch.Tensor:
    names = self.names
    if names.feed_forward:
      return getattr(self, names.feed_forward)(x, dropout_rate=dropout_rate)
    config = self.config.feed_forward
    return feed_forward(self, x, config, names.feed_forward_layers, dropout_rate=dropout_rate)

  def start_cache(
    self, x: torch.Tensor, max_length: int, context: torch.Tensor | None = None
  ) -> dict[str, Cache]:
    """Returns the empty cache of at most `max_length` tokens.

    Args:
      x: any array of the batch size, the type and the device of the inputs.
      context: what cross attention attends to, [batch, context_length, dim].
    """
    config = self.config.self_attention
    cache = start_cache(config, len(x), max_length, dtype=x.dtype, device=x.device)
    if context is None:
      return {'self': cache}
    return {'self': cache, 'cross': getattr(self, self.names.cross_attention).memory(context)}


class PatchEmbedding(Conv2d):
  """A linear function of each patch of an image, as a convolution whose stride is its size."""

  def __init__(
    self, channels: int, dim: int, *, patch_size: int, dtype: torch.dtype, bias: bool = True
  ):
    super().__init__(channels, dim, patch_size, stride=patch_size, bias=bias, dtype=dtype)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Returns [batch, patches, dim] of images [batch, channels, height, width], row by row.

    Raises:
      ValueError: patches do not divide the images.
    """
    size = self.kernel_size[0]
    if x.shape[2] % size or x.shape[3] % size:
      raise ValueError(
        f'Patches of {size} pixels must divide an image; it has {x.shape[2]} x {x.shape[3]}. '
        'Resize the images.'
      )
    return super().forward(x).flatten(2).transpose(1, 2)
