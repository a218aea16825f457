"""Mixtures: proportions, exact passes and positions, and weights that are refused."""

from __future__ import annotations

import data_examples
import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.mixture import Mixed, Mixture, OneAfterTheOther
from algorithmic_efficiency.data.pipeline import Batches
from algorithmic_efficiency.data.sources import Mapped

SIZES = {'a': 100, 'b': 7, 'c': 1000}
WEIGHTS = {'a': 1, 'b': 0.02, 'c': 3}


def mixture(weights=WEIGHTS):
  sources = {name: data_examples.Numbers(size) for name, size in SIZES.items()}
  return Mixture(sources, weights, name='toy, train')


def joined(order, num_batches):
  rows = [order.rows(batch) for batch in range(num_batches)]
  return [
    np.concatenate([getattr(one, name) for one in rows]) for name in ('parts', 'epochs', 'indices')
  ]


def test_proportions_hold_all_along():
  parts, _, _ = joined(Mixed(mixture(), batch_size=64, seed=3), 200)
  shares = np.array(list(mixture().weights.values()))
  for end in (256, 2_560, len(parts)):
    counts = np.bincount(parts[:end], minlength=3)
    assert np.abs(counts - end * shares).max() <= end / 256  # a rounding in each block of 256


def test_each_source_is_passed_over_whole():
  parts, epochs, indices = joined(Mixed(mixture(), batch_size=60, seed=3), 200)
  for part, size in enumerate(SIZES.values()):
    own = list(zip(epochs[parts == part].tolist(), indices[parts == part].tolist(), strict=True))
    assert len(set(own)) == len(own)
    for epoch in range(own[-1][0]):
      assert sorted(index for one, index in own if one == epoch) == list(range(size))


def test_a_batch_is_a_function_of_its_number_for_any_number_of_shards():
  whole = Mixed(mixture(), batch_size=60, seed=3)
  for batch in (0, 150, 5_000):
    expected = whole.rows(batch)
    fresh = [Mixed(mixture(), batch_size=60, seed=3, shard=(i, 4)).rows(batch) for i in range(4)]
    for name in ('indices', 'epochs', 'parts'):
      found = np.concatenate([getattr(one, name) for one in fresh])
      np.testing.assert_array_equal(found, getattr(expected, name))
  assert not np.array_equal(
    whole.rows(1).parts, Mixed(mixture(), batch_size=60, seed=4).rows(1).parts
  )


def test_a_position_continues_only_the_same_mixture():
  def stream(weights=WEIGHTS):
    order = Mixed(mixture(weights), batch_size=10, seed=1)
    return Batches(
      order, Mapped(mixture().sources, data_examples.jitter, None, seed=5, name='toy, train')
    )

  first, again = stream(), stream()
  taken = [next(first) for _ in range(3)]
  again.restore({**first.state(), 'num_batches': 2})
  np.testing.assert_array_equal(next(again)['inputs'], taken[2]['inputs'])
  with pytest.raises(ValueError, match='position of the same order'):
    stream({**WEIGHTS, 'a': 2}).restore(first.state())


def test_equal_positions_of_two_sources_have_other_random_numbers():
  sources = {name: data_examples.Numbers(5) for name in 'ab'}
  load = Mapped(sources, data_examples.jitter, None, seed=5, name='toy, train')
  order = OneAfterTheOther(Mixture(sources, {'a': 1, 'b': 1}, name=''), 10, batch_size=10)
  noise = load(order.rows(0)._replace(weights=None))['inputs'][:, 0]
  assert not np.isclose(noise[:5], noise[5:]).any()


def test_evaluation_passes_over_the_sources_in_their_order_and_pads():
  order = OneAfterTheOther(mixture(), 1107, batch_size=600)
  rows = [order.rows(batch) for batch in range(order.num_batches)]
  parts, indices = (
    np.concatenate([getattr(one, name) for one in rows]) for name in ('parts', 'indices')
  )
  weights = np.concatenate([one.weights for one in rows])
  assert weights.sum() == 1107 and (weights[:1107] == 1).all()
  assert np.bincount(parts[:1107]).tolist() == [100, 7, 1000]
  assert len({*zip(parts.tolist(), indices.tolist(), strict=True)}) == 1107
  after = list(zip(parts[600:1107].tolist(), indices[600:1107].tolist(), strict=True))
  assert after == sorted(after)


def test_the_first_batch_of_an_evaluation_is_a_fair_sample():
  """A partial evaluation looks at it alone."""
  rows = OneAfterTheOther(mixture(), 1107, batch_size=111).rows(0)
  assert np.abs(np.bincount(rows.parts) - np.array([10, 0.7, 100])).max() <= 1
  assert np.ptp(rows.indices[rows.parts == 2]) > 980


def test_a_part_of_an_evaluation_has_the_same_share_of_each_source():
  rows = OneAfterTheOther(mixture(), 111, batch_size=120).rows(0)
  assert np.bincount(rows.parts[:111]).tolist() == [11, 0, 100]
  places = {*zip(rows.parts[:111].tolist(), rows.indices[:111].tolist(), strict=True)}
  assert len(places) == 111 and rows.weights.sum() == 111


def test_a_batch_of_many_sources_costs_what_it_draws_of():
  """As many epochs are shuffled as sources are drawn from: here 64 of 1,000 at most."""
  sources = {f's{number}': data_examples.Numbers(50) for number in range(1000)}
  order = Mixed(Mixture(sources, dict.fromkeys(sources, 1), name=''), batch_size=64, seed=1)
  rows = order.rows(3)
  shuffled = [part for part, passes in enumerate(order._passes) if passes._permutations]
  assert shuffled == sorted(set(rows.parts.tolist()))


@pytest.mark.parametrize('weight', [0, -1, float('nan'), float('inf'), 1e301, '1', None])
def test_a_weight_that_is_not_positive_is_named(weight):
  with pytest.raises(
    errors.UserError, match='toy, train: the weight of a source must be a positive'
  ):
    mixture({**WEIGHTS, 'b': weight})


def test_weights_may_be_numbers_of_numpy():
  exact, single = (mixture({**WEIGHTS, 'b': kind(2)}).weights for kind in (int, np.float32))
  assert exact == single and all(type(weight) is float for weight in single.values())


@pytest.mark.parametrize('source', [data_examples.Numbers(0), None, iter([])])
def test_a_source_that_is_none_or_empty_is_named(source):
  sources = {'a': data_examples.Numbers(2), 'b': source}
  with pytest.raises(errors.UserError, match=r'toy, train: each source .* at least; b does not'):
    Mixture(sources, {'a': 1, 'b': 1}, name='toy, train')


def test_sources_and_weights_come_by_name():
  for sources, weights in (([data_examples.Numbers(2)], [1]), ({'a': []}, [1]), ([], {'a': 1})):
    with pytest.raises(errors.UserError, match=r'toy, train: .* sources and its weights by name'):
      Mixture(sources, weights, name='toy, train')


@pytest.mark.parametrize('weights', [{}, {'a': 1, 'b': 1}, {**WEIGHTS, 'd': 1}])
def test_weights_and_sources_have_the_same_names(weights):
  with pytest.raises(
    errors.UserError, match='a weight for each of its sources; the sources are a, b, c'
  ):
    mixture(weights)
