"""Attention: the operation, its masks and positions, and the layer with its projections."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithmic_efficiency.layers._torch_linear import Linear, param_dtype
from algorithmic_efficiency.layers._torch_norms import normalize
from algorithmic_efficiency.layers._torch_plain import is_plain
from algorithmic_efficiency.layers.configs import AttentionConfig, AttentionNames

Cache = dict[str, torch.Tensor]


def attention(
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  *,
  scale: float,
  causal: bool = False,
  mask: torch.Tensor | None = None,
  bias: torch.Tensor | None = None,
  dropout_rate: float = 0.0,
) -> torch.Tensor:
  """Computes scaled dot-product attention, with the softmax in float32 or wider.

  PyTorch chooses a fused kernel if there is one for the device, the type and the mask; within
  `plain_kernels` it uses none.

  Args:
    query: [batch, query_length, heads, head_dim].
    key: [batch, key_length, kv_heads, head_dim]; each head serves heads / kv_heads of the query.
    value: [batch, key_length, kv_heads, head_dim].
    scale: factor of the dot products.
    causal: True if a position attends only to itself and to earlier positions.
    mask: bool, broadcastable to [batch, heads, query_length, key_length]; True where a query may
      attend to a key. A query that may attend to none gets zeros.
    bias: added to the scaled products; broadcastable to the same shape.
    dropout_rate: probability with which a weight of the attention is zeroed.

  Returns:
    Array of the shape of `query`.
  """
  query, key, value = (x.transpose(1, 2) for x in (query, key, value))
  attends = None
  if mask is not None:
    mask = mask & _causal_mask(query, key) if causal else mask
    attends = mask.any(-1, keepdim=True)
    mask = mask | ~attends  # no row is empty, so that all gradients are finite
  if causal and (mask is not None or bias is not None or is_plain()):
    mask = _causal_mask(query, key) if mask is None else mask
    causal = False  # PyTorch accepts either a mask or this
  if is_plain():
    out = _plain_attention(query, key, value, scale, mask, bias, dropout_rate)
  else:
    out = F.scaled_dot_product_attention(
      query,
      key,
      value,
      attn_mask=_added(mask, bias, query.dtype),
      is_causal=causal,
      dropout_p=dropout_rate,
      scale=scale,
      enable_gqa=query.shape[1] != key.shape[1],
    )
  if attends is not None:
    out = out.masked_fill(~attends, 0)
  return out.transpose(1, 2)


def _causal_mask(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
  shape = (query.shape[2], key.shape[2])
  return torch.ones(shape, dtype=torch.bool, device=query.device).tril()


def _added(
  mask: torch.Tensor | None, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor | None:
  """What PyTorch takes as a mask: the boolean one, or what is added to the products."""
  if bias is None:
    return mask
  bias = bias.to(dtype)
  return bias if mask is None else torch.where(mask, bias, -torch.inf)


def _plain_attention(
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  scale: float,
  mask: torch.Tensor | None,
  bias: torch.Tensor | None,
  dropout_rate: float,
) -> torch.Tensor:
  """Attention of [batch, heads, length, head_dim], of operations that have all derivatives."""
  wide = param_dtype(query.dtype)
  groups = query.shape[1] // key.shape[1]
  key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
  scores = scale * (query.to(wide) @ key.to(wide).mT)
  if bias is not None:
    scores = scores + bias
  if mask is not None:
    scores = scores.masked_fill(~mask, torch.finfo(wide).min)
  weights = F.dropout(scores.softmax(-1), dropout_rate)
  return weights.to(value.dtype) @ value


def rotate(
  x: torch.Tensor, table: torch.Tensor, positions: torch.Tensor | None = None
) -> torch.Tensor:
  """Rotates adjacent pairs of elements of x [batch, length, heads, head_dim] by position.

  Args:
    x: queries or keys.
    table: `positions.rotary_table`, [2, positions, head_dim / 2], in the type of the parameters.
    positions: int [batch, length]; None: 0, 1, 2, ...
  """
  first, second = x.to(table.dtype).unflatten(-1, (-1, 2)).unbind(-1)
  table = table[:, : x.shape[1]] if positions is None else table[:, positions]
  cos, sin = table.unsqueeze(-2).unbind(0)
  turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
  return turned.flatten(-2).to(x.dtype)


class MultiHeadAttention(nn.Module):
  """Attention between projections of one input, or of an input and a context.

  Args:
    config: heads, norm, scale and initial kernels.
    dim: width of the inputs and the output.
    dtype: type of the computation.
    names: names of the layers; projections of one name share a layer.
  """

  def __init__(
    self,
    config: AttentionConfig,
    *,
    dim: int,
    dtype: torch.dtype,
    names: AttentionNames | None = None,
  ):
    super().__init__()
    self.config = config
    self.names = names = names or AttentionNames()
    kv_width = config.kv_heads * config.head_dim
    width = config.num_heads * config.head_dim
    self.widths = {'query': width, 'key': kv_width, 'value': kv_width}
    for name, projections in names.layers.items():
      widths = [self.widths[projection] for projection in projections]
      layer = Linear(
        dim, sum(widths), bias=config.use_bias, init=config.init, widths=widths, dtype=dtype
      )
      self.add_module(name, layer)
    out = Linear(width, dim, bias=config.use_bias, init=config.out_init, dtype=dtype)
    self.add_module(names.out, out)
    if config.query_key_norm is not None:
      scale = torch.tensor(config.query_key_norm.initial_scale, dtype=param_dtype(dtype))
      self.register_parameter(names.scale, nn.Parameter(scale))

  def forward(
    self,
    x: torch.Tensor,
    context: torch.Tensor | None = None,
    *,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    cache: Cache | None = None,
    dropout_rate: float = 0.0,
  ) -> Any:
    """Attends from x [batch, length, dim] to the context, or to x itself.

    Args:
      context: [batch, context_length, dim]; None for self attention.
      mask, bias: those of `attention`.
      table: rotary positions of self attention; see `rotate`.
      positions: positions of x, int [batch, length]; None: those after what the cache holds.
      cache: of `start_cache`, or the `memory` of a context. Write tokens into it in their order.
        The returned cache takes the place of this one, whose arrays are changed in place. A row of
        a memory may serve several rows of x, which follow each other; the mask is then [memory
        rows, heads or 1, 1, context_length].
      dropout_rate: probability with which a weight of the attention is zeroed.

    Returns:
      The output [batch, length, dim]; with a cache, the output and the new cache.
    """
    options: dict[str, Any] = {'mask': mask, 'bias': bias, 'dropout_rate': dropout_rate}
    if cache is not None and 'index' not in cache:
      return self._attend_shared(self._query(x), cache, **options), cache
    if context is not None:
      return self._attend(self._query(x), self.memory(context), **options)
    query, key, value = self._project(x, 'query', 'key', 'value')
    if cache is not None and positions is None:
      positions = _positions(cache, x.shape[1])
    if table is not None:
      query, key = rotate(query, table, positions), rotate(key, table, positions)
    query, held = self._scaled(query), {'key': self._normalized(key), 'value': value}
    if cache is None:
      return self._attend(query, held, causal=self.config.causal, **options)
    cache, seen = extend_cache(cache, held)
    options['mask'] = seen if mask is None else mask & seen
    return self._attend(query, cache, **options), cache

  def memory(self, context: torch.Tensor) -> Cache:
    """Returns the keys and values of a context, which can be given as the cache of later calls."""
    key, value = self._project(context, 'key', 'value')
    return {'key': self._normalized(key), 'value': value}

  def _project(self, x: torch.Tensor, *wanted: str) -> list[torch.Tensor]:
    """The projections [batch, length, heads, head_dim]."""
    found: dict[str, torch.Tensor] = {}
    for name, projections in self.names.layers.items():
      if set(projections) <= set(wanted):
        parts = getattr(self, name)(x).split([self.widths[one] for one in projections], dim=-1)
        found.update(zip(projections, parts, strict=True))
      elif set(projections) & set(wanted):
        raise ValueError(
          f'Cross attention needs a query of its own; {name!r} makes {", ".join(projections)}. '
          'Give the query another name.'
        )
    return [found[name].unflatten(-1, (-1, self.config.head_dim)) for name in wanted]

  def _query(self, x: torch.Tensor) -> torch.Tensor:
    (query,) = self._project(x, 'query')
    return self._scaled(query)

  def _scaled(self, query: torch.Tensor) -> torch.Tensor:
    norm = self.config.query_key_norm
    if norm is None:
      return query
    return (normalize(query, norm.epsilon) * getattr(self, self.names.scale)).to(query.dtype)

  def _normalized(self, key: torch.Tensor) -> torch.Tensor:
    norm = self.config.query_key_norm
    return key if norm is None else normalize(key, norm.epsilon).to(key.dtype)

  def _attend_shared(self, query: torch.Tensor, held: Cache, **options: Any) -> torch.Tensor:
    """Attends to a memory, of which each row serves as many rows of the query."""
    together = query.reshape(len(held['key']), -1, *query.shape[2:])
    return self._attend(together, held, **options).view(*query.shape[:2], -1)

  def _attend(self, query: torch.Tensor, held: Cache, **options: Any) -> torch.Tensor:
    out = attention(query, held['key'], held['value'], scale=self.config.factor, **options)
    return getattr(self, self.names.out)(out.flatten(2))


def start_cache(
  config: AttentionConfig,
  batch_size: int,
  max_length: int,
  *,
  dtype: torch.dtype,
  device: torch.device | str | None = None,
) -> Cache:
  """Returns an empty cache of the keys and values of self attention.

  Returns:
    `key` and `value` [batch, max_length, kv_heads, head_dim], and `index` int [batch], the number
    of tokens that each row holds.
  """
  shape = (batch_size, max_length, config.kv_heads, config.head_dim)
  return {
    'key': torch.zeros(shape, dtype=dtype, device=device),
    'value': torch.zeros(shape, dtype=dtype, device=device),
    'index': torch.zeros(batch_size, dtype=torch.int64, device=device),
  }


def extend_cache(cache: Cache, new: Cache) -> tuple[Cache, torch.Tensor]:
  """Writes keys and values after those that the cache holds, in place.

  Args:
    cache: of `start_cache`.
    new: `key` and `value` [batch, length, kv_heads, head_dim].

  Returns:
    The new cache, and the mask [batch, 1, length, max_length] of what each new token may see.
  """
  length, max_length = new['key'].shape[1], cache['key'].shape[1]
  positions = _positions(cache, length)
  rows = torch.arange(len(positions), device=positions.device)[:, None]
  for name in ('key', 'value'):
    cache[name][rows, positions] = new[name].to(cache[name].dtype)
  seen = torch.arange(max_length, device=positions.device) <= positions[:, None, :, None]
  return {**cache, 'index': cache['index'] + length}, seen


def _positions(cache: Cache, length: int) -> torch.Tensor:
  """Positions [batch, length] of the tokens after those that a cache holds."""
  index = cache['index']
  return index[:, None] + torch.arange(length, device=index.device)
