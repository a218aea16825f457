"""Decoding token by token: greedily, or by beam search.

A step takes the last token of each row and a cache, and gives the log-probabilities of the next
token and the new cache: `step(tokens [rows], cache) -> (log_probs [rows, vocab], cache)`. All
leaves of the cache have the rows as their first axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree

from algorithmic_efficiency.layers.search import length_penalties

Step = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]


class Beams(NamedTuple):
  """The best sequences of a beam search, the best first.

  Attributes:
    tokens: int [batch, beams, max_length], with the end token, and 0 after it.
    scores: log-probability divided by the length penalty, [batch, beams].
  """

  tokens: torch.Tensor
  scores: torch.Tensor


@torch.no_grad()
def greedy_search(
  step: Step, cache: Any, *, start_tokens: torch.Tensor, end_token: int, max_length: int
) -> torch.Tensor:
  """Returns the likeliest token at each step, int [batch, max_length], and 0 after the end token.

  Args:
    step: see the module.
    cache: what the first step gets; the rows are the batch.
    start_tokens: what the first step gets, int [batch]; not a part of the result.
    end_token: ends a sequence.
    max_length: most tokens of a sequence. The search stops when all have ended.
  """
  tokens = start_tokens
  found = torch.zeros((len(tokens), max_length), dtype=tokens.dtype, device=tokens.device)
  has_ended = torch.zeros_like(tokens, dtype=torch.bool)
  for position in range(max_length):
    log_probs, cache = step(tokens, cache)
    tokens = log_probs.argmax(-1).to(tokens.dtype)
    found[:, position] = tokens.masked_fill(has_ended, 0)
    has_ended = has_ended | (tokens == end_token)
    if has_ended.all():
      break
  return found


@torch.no_grad()
def beam_search(
  step: Step,
  cache: Any,
  *,
  start_tokens: torch.Tensor,
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
  batch_size, device = len(start_tokens), start_tokens.device
  cache = _pytree.tree_map(lambda x: x.repeat_interleave(num_beams, dim=0), cache)
  tokens = start_tokens.repeat_interleave(num_beams)
  live = torch.zeros((batch_size, num_beams, max_length), dtype=tokens.dtype, device=device)
  ended = live.clone()
  live_scores = torch.full((batch_size, num_beams), -torch.inf, device=device)
  ended_scores = live_scores.clone()
  live_scores[:, 0] = 0  # all beams are equal at first, so that one counts
  penalties = length_penalties(max_length, length_penalty)
  rows = torch.arange(batch_size, device=device)[:, None]
  for position in range(max_length):
    log_probs, cache = step(tokens, cache)
    vocab_size = log_probs.shape[-1]
    scores = (live_scores[..., None] + log_probs.view(batch_size, num_beams, -1)).flatten(1)
    # Even if as many as there are beams end here, as many go on.
    scores, choices = _best(scores, 2 * num_beams)
    beams, new_tokens = choices // vocab_size, (choices % vocab_size).to(tokens.dtype)
    sequences = live[rows, beams]
    sequences[..., position] = new_tokens
    ends = new_tokens == end_token

    ended_now = scores.masked_fill(~ends, -torch.inf) / penalties[position]
    ended_scores, kept = _best_of_few(torch.cat([ended_scores, ended_now], 1), num_beams)
    ended = torch.cat([ended, sequences], 1)[rows, kept]

    live_scores, kept = _best_of_few(scores.masked_fill(ends, -torch.inf), num_beams)
    live, beams = sequences[rows, kept], beams[rows, kept]
    tokens = live[..., position].flatten()
    if not (ended_scores[:, -1] < live_scores[:, 0] / penalties[-1]).any():  # nor if it is NaN
      break
    order = (rows * num_beams + beams).flatten()
    cache = _pytree.tree_map(lambda x, order=order: x.index_select(0, order), cache)
  live_scores = live_scores / penalties[-1]
  num_ended = (ended_scores > -torch.inf).sum(1, keepdim=True)
  places = torch.arange(num_beams, device=device)
  order = torch.where(places < num_ended, places, num_beams + places - num_ended)
  return Beams(
    torch.cat([ended, live], 1)[rows, order], torch.cat([ended_scores, live_scores], 1)[rows, order]
  )


def _best(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
  """The highest scores [batch, count] and their indices; of equal ones the first comes first.

  torch.topk promises no order of equal ones, so its order counts where none are equal.
  """
  highest, indices = scores.topk(count + 1)
  if (highest[:, 1:] < highest[:, :-1]).all():
    return highest[:, :count], indices[:, :count]
  return _best_of_few(scores, count)


def _best_of_few(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
  """The same by looking for one after the other, which is slow for a vocabulary."""
  rest = scores.clamp(min=torch.finfo(scores.dtype).min)
  indices = []
  for _ in range(count):
    index = rest.argmax(-1, keepdim=True)
    rest.scatter_(-1, index, -torch.inf)
    indices.append(index)
  order = torch.cat(indices, -1)
  return scores.gather(-1, order), order
