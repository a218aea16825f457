"""Decoding token by token: greedily, or by beam search.

A step takes the last token of each row and a cache, and gives the log-probabilities of the next
token and the new cache: `step(tokens [rows], cache) -> (log_probs [rows, vocab], cache)`. All
leaves of the cache have the rows as their first axis, and keep their shapes and types. Both
searches can be jitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from algorithmic_efficiency.layers.search import length_penalties

Step = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class Beams(NamedTuple):
  """The best sequences of a beam search, the best first.

  Attributes:
    tokens: int [batch, beams, max_length], with the end token, and 0 after it.
    scores: log-probability divided by the length penalty, [batch, beams].
  """

  tokens: jax.Array
  scores: jax.Array


class _State(NamedTuple):
  """What a step of the search changes; sequences are [batch, beams, max_length]."""

  position: jax.Array
  tokens: jax.Array
  live: jax.Array
  live_scores: jax.Array
  ended: jax.Array
  ended_scores: jax.Array
  cache: Any


def greedy_search(
  step: Step, cache: Any, *, start_tokens: jax.Array, end_token: int, max_length: int
) -> jax.Array:
  """Returns the likeliest token at each step, int [batch, max_length], and 0 after the end token.

  Args:
    step: see the module.
    cache: what the first step gets; the rows are the batch.
    start_tokens: what the first step gets, int [batch]; not a part of the result.
    end_token: ends a sequence.
    max_length: most tokens of a sequence. The search stops when all have ended.
  """

  def goes_on(state: Any) -> jax.Array:
    position, _, _, has_ended, _ = state
    return (position < max_length) & ~jnp.all(has_ended)

  def advance(state: Any) -> Any:
    position, tokens, found, has_ended, cache = state
    log_probs, cache = step(tokens, cache)
    tokens = jnp.argmax(log_probs, axis=-1).astype(tokens.dtype)
    found = found.at[:, position].set(jnp.where(has_ended, 0, tokens))
    return position + 1, tokens, found, has_ended | (tokens == end_token), cache

  found = jnp.zeros((len(start_tokens), max_length), start_tokens.dtype)
  has_ended = jnp.zeros(start_tokens.shape, bool)
  start = jnp.zeros((), jnp.int32), start_tokens, found, has_ended, cache
  return jax.lax.while_loop(goes_on, advance, start)[2]


def beam_search(
  step: Step,
  cache: Any,
  *,
  start_tokens: jax.Array,
  end_token: int,
  num_beams: int,
  max_length: int,
  length_penalty: float,
) -> Beams:
  """Searches for the sequences with the highest log-probability, divided by a length penalty.

  The penalty is ((5 + length) / 6) ^ length_penalty, and the length includes the end token (Wu et
  al., 2016). A sequence that has ended is kept aside, and others continue in its place. The search
  stops when no unfinished sequence could enter the best ones. Of equal scores, the one of the
  better beam and the lower token comes first. Sequences without an end token stand after the
  finished ones.

  Args:
    step: see the module; its rows are batch * beams.
    cache: what the first step gets, before it is repeated for each beam; its rows are the batch.
    start_tokens: what the first step gets, int [batch]; not a part of the result.
    end_token: ends a sequence.
    num_beams: number of sequences that are followed at once.
    max_length: most tokens of a sequence.
    length_penalty: 0 compares log-probabilities as they are; larger values favor longer sequences.
  """
  batch_size = len(start_tokens)
  cache = jax.tree.map(lambda x: jnp.repeat(x, num_beams, axis=0), cache)
  tokens = jnp.repeat(start_tokens, num_beams)
  log_probs, _ = jax.eval_shape(step, tokens, cache)
  dtype = jnp.promote_types(log_probs.dtype, jnp.float32)
  vocab_size = log_probs.shape[-1]
  penalties = jnp.asarray(length_penalties(max_length, length_penalty), dtype)
  rows = jnp.arange(batch_size)[:, None]

  def goes_on(state: _State) -> jax.Array:
    bound = state.live_scores[:, 0] / penalties[-1]
    return (state.position < max_length) & jnp.any(state.ended_scores[:, -1] < bound)

  def advance(state: _State) -> _State:
    log_probs, cache = step(state.tokens, state.cache)
    log_probs = log_probs.astype(dtype).reshape(batch_size, num_beams, vocab_size)
    scores = (state.live_scores[..., None] + log_probs).reshape(batch_size, -1)
    # Even if as many as there are beams end here, as many go on.
    scores, choices = jax.lax.top_k(scores, 2 * num_beams)
    beams, new_tokens = choices // vocab_size, (choices % vocab_size).astype(tokens.dtype)
    sequences = state.live[rows, beams].at[:, :, state.position].set(new_tokens)
    ends = new_tokens == end_token

    ended_now = jnp.where(ends, scores, -jnp.inf) / penalties[state.position]
    ended_scores = jnp.concatenate([state.ended_scores, ended_now], axis=1)
    ended_scores, kept = jax.lax.top_k(ended_scores, num_beams)
    ended = jnp.concatenate([state.ended, sequences], axis=1)[rows, kept]

    live_scores, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, scores), num_beams)
    live, beams = sequences[rows, kept], beams[rows, kept]
    order = (rows * num_beams + beams).reshape(-1)
    return _State(
      position=state.position + 1,
      tokens=live[:, :, state.position].reshape(-1),
      live=live,
      live_scores=live_scores,
      ended=ended,
      ended_scores=ended_scores,
      cache=jax.tree.map(lambda x: x[order], cache),
    )

  empty = jnp.zeros((batch_size, num_beams, max_length), tokens.dtype)
  nothing = jnp.full((batch_size, num_beams), -jnp.inf, dtype)
  start = _State(
    position=jnp.zeros((), jnp.int32),
    tokens=tokens,
    live=empty,
    live_scores=nothing.at[:, 0].set(0),  # all beams are equal at first, so that one counts
    ended=empty,
    ended_scores=nothing,
    cache=cache,
  )
  last = jax.lax.while_loop(goes_on, advance, start)
  live_scores = last.live_scores / penalties[-1]
  num_ended = jnp.sum(last.ended_scores > -jnp.inf, axis=1, keepdims=True)
  places = jnp.arange(num_beams)
  order = jnp.where(places < num_ended, places, num_beams + places - num_ended)
  return Beams(
    jnp.concatenate([last.ended, last.live], axis=1)[rows, order],
    jnp.concatenate([last.ended_scores, live_scores], axis=1)[rows, order],
  )
