"""Greedy and beam search, in both frameworks, against a twin that keeps lists."""

from __future__ import annotations

import functools
from typing import Any

import layer_twin as twin
import numpy as np
import pytest

from algorithmic_efficiency.layers.search import length_penalties

FRAMEWORKS = ['jax', 'torch']
VOCAB, DIM, END, BATCH, MAX_LENGTH = 7, 5, 1, 6, 9

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


class Toy:
  """A recurrent model: what comes next depends on all tokens so far, through the cache.

  Log-probabilities are multiples of 1/8, so that sums are exact and many of them tie. Rows differ
  in how soon they end.
  """

  def __init__(self, seed: int):
    random = np.random.default_rng(seed)
    self.embedding = random.integers(-2, 3, (VOCAB, DIM)).astype(np.float32)
    self.output = random.integers(-2, 3, (DIM, VOCAB)).astype(np.float32)
    self.state = random.integers(-2, 3, (BATCH, DIM)).astype(np.float32)
    self.end_bias = np.arange(BATCH, dtype=np.float32)[:, None] - 3
    self.start = random.integers(0, VOCAB, BATCH)

  def step(self, np_or_jnp: Any, token: Any, cache: Any) -> Any:
    """As numpy and JAX write it."""
    history = (3 * cache['history'] + np_or_jnp.asarray(self.embedding)[token]) % 5
    scores = (history @ np_or_jnp.asarray(self.output)) % 11
    scores = scores + cache['end_bias'] * (np.arange(VOCAB) == END)
    return -abs(scores - 9) / 8, {**cache, 'history': history}

  def torch_step(self, token: Any, cache: Any) -> Any:
    import torch

    history = (3 * cache['history'] + torch.tensor(self.embedding)[token]) % 5
    scores = (history @ torch.tensor(self.output)) % 11
    scores = scores + cache['end_bias'] * (torch.arange(VOCAB) == END)
    return -abs(scores - 9) / 8, {**cache, 'history': history}

  def of_row(self, row: int) -> Toy:
    """The model of a batch that holds one row many times."""
    toy = Toy(0)
    toy.__dict__.update(vars(self))
    rows = np.full(BATCH, row)
    toy.state, toy.end_bias, toy.start = self.state[rows], self.end_bias[rows], self.start[rows]
    return toy

  @property
  def cache(self) -> dict[str, np.ndarray]:
    return {'history': self.state, 'end_bias': self.end_bias}

  def search(self, framework: str, name: str, **options: Any) -> Any:
    pytest.importorskip(framework)
    options |= {'end_token': END, 'max_length': MAX_LENGTH}
    if framework == 'jax':
      return jitted(name, tuple(sorted(options.items())))(self)
    import torch

    from algorithmic_efficiency.layers import torch as layers

    cache = {key: torch.tensor(array) for key, array in self.cache.items()}
    start = torch.tensor(self.start)
    return getattr(layers, name)(self.torch_step, cache, start_tokens=start, **options)


@functools.cache
def jitted(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
  """The search as a jitted function of the model, compiled once."""
  import jax

  from algorithmic_efficiency.layers import jax as layers

  @jax.jit
  def run(weights: Any, start: Any) -> Any:
    toy = Toy(0)
    toy.__dict__.update(weights)
    step = functools.partial(toy.step, jax.numpy)
    return getattr(layers, name)(step, toy.cache, start_tokens=start, **dict(options))

  def call(toy: Toy) -> Any:
    weights = {key: one for key, one in vars(toy).items() if key != 'start'}
    return run(weights, toy.start.astype(np.int32))

  return call


def plain(toy: Toy, **options: Any) -> list[list[tuple[tuple[int, ...], float]]]:
  step = functools.partial(toy.step, np)
  return [
    twin.beams(
      lambda token, state: step(token, state),
      {'history': toy.state[row], 'end_bias': toy.end_bias[row]},
      start=toy.start[row],
      end=END,
      max_length=MAX_LENGTH,
      **options,
    )
    for row in range(BATCH)
  ]


def padded(tokens: Any) -> list[int]:
  return [*tokens, *[0] * (MAX_LENGTH - len(tokens))]


OTHER_BEAMS = [pytest.param(*one, marks=pytest.mark.slow) for one in ((3, 0.0), (1, 0.6))]


@pytest.mark.parametrize(('num_beams', 'exponent'), [(4, 0.6), *OTHER_BEAMS])
@each_framework
def test_beams_are_those_of_the_twin(framework, num_beams, exponent):
  """Ties included, with beams that end early, late and not at all."""
  lengths = set()
  for seed in range(2):
    toy = Toy(seed)
    found = toy.search(framework, 'beam_search', num_beams=num_beams, length_penalty=exponent)
    for row, expected in enumerate(plain(toy, num_beams=num_beams, exponent=exponent)):
      tokens = [padded(one) for one, _ in expected]
      np.testing.assert_array_equal(np.asarray(found.tokens[row]), tokens)
      scores = [score for _, score in expected]
      np.testing.assert_allclose(np.asarray(found.scores[row]), scores, rtol=1e-6)
      lengths |= {len(one) if END in one else 'unfinished' for one, _ in expected}
  assert {1, 2, 'unfinished'} <= lengths or num_beams == 1


@each_framework
def test_a_search_does_not_depend_on_other_rows(framework):
  """Which may end sooner, so that the search stops, or later."""
  toy, options = Toy(0), {'num_beams': 4, 'length_penalty': 0.6}
  together = toy.search(framework, 'beam_search', **options)
  for row in range(BATCH):
    alone = toy.of_row(row).search(framework, 'beam_search', **options)
    for found, expected in zip(alone, together, strict=True):
      np.testing.assert_array_equal(np.asarray(found)[0], np.asarray(expected)[row])


@each_framework
def test_greedy_search_takes_the_first_of_the_likeliest(framework):
  toy = Toy(1)
  found = toy.search(framework, 'greedy_search')
  for row in range(BATCH):
    state = {'history': toy.state[row], 'end_bias': toy.end_bias[row]}
    token, tokens = toy.start[row], []
    while not tokens or (token != END and len(tokens) < MAX_LENGTH):
      log_probs, state = toy.step(np, token, state)
      token = int(np.argmax(log_probs))
      tokens.append(token)
    np.testing.assert_array_equal(np.asarray(found[row]), padded(tokens))


def test_the_search_stops_when_nothing_can_become_better():
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import torch as layers

  calls = []

  def step(tokens, cache):
    calls.append(len(tokens))
    log_probs = torch.full((len(tokens), VOCAB), -50.0)
    log_probs[:, END] = -0.01
    log_probs[:, 2] = -5.0
    return log_probs, cache

  options = {'start_tokens': torch.zeros(3, dtype=torch.int64), 'end_token': END}
  found = layers.beam_search(step, {}, num_beams=2, max_length=50, length_penalty=0.6, **options)
  # Two sequences have ended after two steps, the second with -4.6. The best unfinished one could
  # still get -15 / (55 / 6)^0.6 = -4.0 after three steps, and at most -5.3 after four.
  assert calls == [6] * 4
  assert found.tokens[0, :, :3].tolist() == [[END, 0, 0], [2, END, 0]]
  calls.clear()
  assert layers.greedy_search(step, {}, max_length=50, **options)[0, 0] == END
  assert calls == [3]


@each_framework
def test_the_search_stops_when_no_number_is_left(framework):
  toy = Toy(0)
  toy.end_bias = toy.end_bias * np.nan
  found = toy.search(framework, 'beam_search', num_beams=4, length_penalty=0.6)
  assert not np.asarray(found.tokens)[..., 1:].any()


def test_length_penalties_are_those_of_the_paper():
  assert length_penalties(7, 0.6)[6] == pytest.approx(2**0.6)
  assert length_penalties(3, 0) == [1, 1, 1]
  with pytest.raises(ValueError, match='must not be negative; it is -1'):
    length_penalties(3, -1)
