"""Translations: by caches and fused searches as by a plain search without caches."""

from __future__ import annotations

from dataclasses import replace

import layer_twin as twin
import nmt_batches
import numpy as np
import pytest
from nmt_models import Model, pairs, small

NUM_SENTENCES = 6


def plain(model: Model, pair: nmt_batches.Pair, *, num_beams: int) -> list[tuple[list[int], float]]:
  """The beam search of one sentence, where each step runs the whole model on a sequence."""
  length = model.definition.data.max_length

  def step(token: int, tokens: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    tokens = (*tokens, int(token))  # the first is the start
    target = np.append(tokens[1:], nmt_batches.FIRST).astype(np.int32)  # the last is not seen
    batch = nmt_batches.one_a_row([replace(pair, target=target)], length)
    return model.log_probs(batch)[0, len(tokens) - 1], tokens

  return twin.beams(
    step,
    (),
    start=0,
    end=nmt_batches.EOS,
    num_beams=num_beams,
    max_length=length,
    exponent=model.definition.model.search.length_penalty,
  )


@pytest.fixture(scope='module')
def searched():
  """Sentences, and their translations by the plain search, by number of beams."""
  model = Model(small(), 'pytorch')
  rows = pairs(model.definition, NUM_SENTENCES)
  return rows, {beams: [plain(model, row, num_beams=beams) for row in rows] for beams in (1, 4)}


def padded(tokens: tuple[int, ...], length: int) -> list[int]:
  return [*tokens, *[0] * (length - len(tokens))]


@pytest.mark.parametrize(
  ('framework', 'is_last'),
  [
    pytest.param('jax', False, marks=pytest.mark.slow),
    ('jax', True),
    ('pytorch', False),
    ('pytorch', True),
  ],
)
def test_translations_are_those_of_a_plain_search(searched, framework, is_last):
  rows, expected = searched
  definition = small()
  search = replace(definition.model.search, greedy_until_last=True)
  definition = replace(definition, model=replace(definition.model, search=search))
  length = definition.data.max_length
  batch = nmt_batches.one_a_row(rows, length)
  batch = {name: np.pad(array, [(0, 1), (0, 0)]) for name, array in batch.items()}
  found = Model(definition, framework).generate(batch, is_last=is_last)
  assert found.dtype == np.int32
  found, of_no_source = found[:-1], found[-1]
  assert of_no_source.tolist() == padded((nmt_batches.EOS,), length)
  best = [beams[0][0] for beams in expected[4 if is_last else 1]]
  np.testing.assert_array_equal(found, [padded(one, length) for one in best])
  ended = [nmt_batches.EOS in one for one in best]
  assert any(ended) and len({len(one) for one in best}) > 2


def test_both_searches_differ(searched):
  _, expected = searched
  assert [one[0][0] for one in expected[1]] != [one[0][0] for one in expected[4]]


@pytest.mark.parametrize('num_sentences', [1, 2])
@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.slow), 'pytorch'])
def test_of_a_packed_row_the_first_source_is_translated(framework, num_sentences):
  """The row is as long as one sentence or as two."""
  model = Model(small(search=replace(small().model.search, num_beams=1)), framework)
  half = replace(model.definition.data, max_length=6)
  rows = pairs(replace(model.definition, data=half), 4)
  length = model.definition.data.max_length
  packed = nmt_batches.packed([rows[:2], rows[2:]], num_sentences * length)
  alone = nmt_batches.one_a_row([rows[0], rows[2]], length)
  found, expected = (model.generate(batch, is_last=True) for batch in (packed, alone))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('is_last', [False, True], ids=['greedy', 'beams'])
def test_no_search_waits_for_a_row_without_a_source(monkeypatch, is_last):
  definition = small()
  search = replace(definition.model.search, greedy_until_last=True)
  model = Model(replace(definition, model=replace(definition.model, search=search)), 'pytorch')
  length = definition.data.max_length
  calls = []
  step = type(model.module).next
  monkeypatch.setattr(type(model.module), 'next', lambda *a: calls.append(1) or step(*a))
  model.generate({'inputs': np.zeros((3, length), np.int32)}, is_last=is_last)
  assert len(calls) == 1
