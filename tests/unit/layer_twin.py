"""The layers of Transformers in plain numpy: a position, a head, a token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from algorithmic_efficiency.layers.configs import AttentionConfig, BlockConfig, FeedForwardConfig


def attention(query, key, value, *, scale, causal=False, mask=None, bias=0.0):
  """[batch, length, heads, head_dim]; a query that sees nothing gets zeros."""
  out = np.zeros((*query.shape[:3], value.shape[-1]))
  groups = query.shape[2] // key.shape[2]
  shape = (len(query), query.shape[2], query.shape[1], key.shape[1])
  bias = np.broadcast_to(bias, shape)
  for batch, position, head in np.ndindex(*query.shape[:3]):
    scores = scale * key[batch, :, head // groups] @ query[batch, position, head]
    scores += bias[batch, head, position]
    sees = np.ones(key.shape[1], bool)
    if causal:
      sees &= np.arange(key.shape[1]) <= position
    if mask is not None:
      sees &= np.broadcast_to(mask, shape)[batch, head, position]
    if sees.any():
      weights = np.where(sees, np.exp(scores - scores[sees].max()), 0)
      out[batch, position, head] = weights @ value[batch, :, head // groups] / weights.sum()
  return out


def rotation(x, theta):
  out = np.zeros_like(x)
  for batch, position, head in np.ndindex(*x.shape[:3]):
    for pair in range(x.shape[-1] // 2):
      turn = np.exp(1j * position * theta ** (-2 * pair / x.shape[-1]))
      here = (batch, position, head, slice(2 * pair, 2 * pair + 2))
      turned = turn * complex(*x[here])
      out[here] = turned.real, turned.imag
  return out


ACTIVATIONS: dict[str, Callable[[float], float]] = {
  'gelu': lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
  'gelu_tanh': lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
  'relu': lambda x: max(x, 0),
  'relu2': lambda x: max(x, 0) ** 2,
  'sigmoid': lambda x: 1 / (1 + math.exp(-x)),
  'silu': lambda x: x / (1 + math.exp(-x)),
  'tanh': math.tanh,
}


def activation(name, x):
  if name == 'glu':
    value, gate = np.split(x, 2, axis=-1)
    return value * activation('sigmoid', gate)
  return np.vectorize(ACTIVATIONS[name], otypes=[float])(x)


def norm(kind, params, x, epsilon):
  if kind == 'layer':
    x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * params['scale']
  return x + params['bias'] if kind == 'layer' else x


def project(params, x, num_axes=1):
  """A layer of flax whose kernel contracts the last axes of x."""
  return np.tensordot(x, params['kernel'], num_axes) + params.get('bias', 0)


def multi_head(config: AttentionConfig, names, params, x, context, *, mask, theta):
  query, key, value = (
    project(params[name], source)
    for name, source in ((names.query, x), (names.key, context), (names.value, context))
  )
  if theta is not None:
    query, key = rotation(query, theta), rotation(key, theta)
  scale = 1 / math.sqrt(config.head_dim) if config.scale is None else config.scale
  if config.query_key_norm is not None:
    scale = params[names.scale]
    query, key = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (query, key))
  out = attention(query, key, value, scale=scale, causal=config.causal, mask=mask)
  if config.out_by_heads:
    return project(params[names.out], out, 2)
  return project(params[names.out], out.reshape(*x.shape[:2], -1))


def feed_forward(config: FeedForwardConfig, params, x):
  hidden = activation(config.activation, project(params['Dense_0'], x))
  if config.gate == 'none':
    return project(params['Dense_1'], hidden)
  hidden = hidden * project(params['Dense_1'], {'input': x, 'hidden': hidden}[config.gate])
  return project(params['Dense_2'], hidden)


def block(config: BlockConfig, names, params, x, context=None, *, masks=(None, None), theta=None):
  parts: list[Any] = [
    lambda x: multi_head(
      config.self_attention,
      names.self_projections,
      params[names.self_attention],
      x,
      x,
      mask=masks[0],
      theta=theta,
    )
  ]
  if config.cross_attention is not None:
    parts.append(
      lambda x: multi_head(
        config.cross_attention,
        names.cross_projections,
        params[names.cross_attention],
        x,
        context,
        mask=masks[1],
        theta=None,
      )
    )
  parts.append(lambda x: feed_forward(config.feed_forward, params[names.feed_forward], x))
  for part, name in zip(parts, names.norms, strict=True):
    if config.norm_position == 'pre':
      x = x + part(norm(config.norm, params[name], x, config.norm_epsilon))
    else:
      x = norm(config.norm, params[name], x + part(x), config.norm_epsilon)
  return x


def beams(step, state, *, start, end, num_beams, max_length, exponent):
  """The beam search of one sequence, with lists: [(tokens, score)], the best first.

  Args:
    step: (token, state) -> (log-probabilities, state), of one row.
  """

  def penalty(length):
    return ((5 + length) / 6) ** exponent

  live, ended = [((), 0.0, state)], []
  for _ in range(max_length):
    choices = []
    for tokens, score, state in live:
      log_probs, state = step(tokens[-1] if tokens else start, state)
      # No beam can give more than all do together.
      likeliest = np.sort(np.argsort(-log_probs, kind='stable')[: 2 * num_beams]).tolist()
      choices += [((*tokens, token), score + log_probs[token], state) for token in likeliest]
    choices = sorted(choices, key=lambda one: -one[1])[: 2 * num_beams]  # stable
    ended += [(one[0], one[1] / penalty(len(one[0]))) for one in choices if one[0][-1] == end]
    ended = sorted(ended, key=lambda one: -one[1])[:num_beams]
    live = [one for one in choices if one[0][-1] != end][:num_beams]
    if not live:
      break
    # The best that an unfinished one can still get; it stays the same and the length grows.
    if len(ended) == num_beams and ended[-1][1] >= live[0][1] / penalty(max_length):
      break
  return (ended + [(one[0], one[1] / penalty(max_length)) for one in live])[:num_beams]
