"""The input queue: what it counts, and single sources of a mixture."""

from __future__ import annotations

import pytest
from fake_trial import FakeClock
from test_data_streams import assert_equal, train

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.pipeline import Batches, InOrder
from algorithmic_efficiency.trial import inputs
from algorithmic_efficiency.trial.inputs import InputQueue


def queue(kind='mixture', **options):
  return InputQueue(train(kind, **options), lambda batch: {**batch, 'placed': batch['drawn']})


def test_batches_of_a_source_are_placed_and_count_as_drawn():
  drawn = queue()
  source = drawn.source('b')
  assert 'placed' in next(source) and iter(source) is source
  next(drawn)
  next(drawn.source('a'))
  assert drawn.num_drawn == 3


def test_positions_of_sources_are_saved_with_the_queue():
  first, again = queue(), queue()
  next(first.source('a'))
  next(first)
  state = first.state()
  expected = [next(first.source('a')), next(first), next(first.source('b'))]
  again.restore(state)
  for one, other in zip(
    expected, [next(again.source('a')), next(again), next(again.source('b'))], strict=True
  ):
    assert_equal(one, other)
  assert again.state()['wait_sec'] >= state['wait_sec'] > 0


def test_an_unknown_source_is_told_when_it_is_asked_for():
  with pytest.raises(errors.UserError, match='Known: a, b'):
    queue().source('c')
  with pytest.raises(errors.UserError, match='only a mixture'):
    queue('single').source('a')


def test_waiting_is_the_time_in_which_a_batch_is_made_and_not_that_of_placing(monkeypatch):
  clock = FakeClock()
  monkeypatch.setattr(inputs, 'perf_counter', clock)

  def load(rows):
    clock.spend(2.0)
    return {'inputs': rows.indices}

  def place(batch):
    clock.spend(5.0)
    return batch

  drawn = InputQueue(Batches(InOrder(num_examples=3, batch_size=1), load), place)
  for number in (1, 2):
    next(drawn)
    assert drawn.wait_sec == 2.0 * number
