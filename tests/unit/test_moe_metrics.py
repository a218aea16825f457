"""Loss and exact match by kind and modality, and the health of the router, from sums."""

from __future__ import annotations

import math

import moe_examples
import numpy as np
import pytest

from algorithmic_efficiency.metrics.metric import MetricError, Totals
from workloads.multimodal_moe import digit_kinds, metrics, of_modality
from workloads.multimodal_moe.data_records import SpokenDigitQuestions, WebMixture

KINDS = ('read_image', 'transcribe', 'add_spoken_and_image', 'add_words', 'compare_images')
RIGHT, ASKED = np.array([3.0, 1, 2, 0, 4]), np.array([4.0, 2, 8, 0, 5])


METRICS = metrics.metrics(moe_examples.definition(), None)


def numbers(capacity_factor=None, **sums):
  weights = tuple((kind, 1.0) for kind in KINDS)
  definition = moe_examples.definition(
    SpokenDigitQuestions(weights=weights),
    model=moe_examples.NoModel(capacity_factor=capacity_factor),
  )
  found = {}
  for name, metric in metrics.metrics(definition, None).items():
    of_router = not name.startswith(('exact_match', 'loss'))
    of_kinds = name.startswith(tuple(one.removesuffix('_of_kind') for one in sums))
    if of_kinds or (of_router and 'router_load' in sums):
      found |= metric.compute(Totals(sums), None)
  return found


def test_exact_match_has_a_number_for_each_kind_that_was_asked():
  found = numbers(exact_match=(RIGHT, ASKED))
  assert found['exact_match'] == pytest.approx(10 / 19)
  by_kind = {
    name.partition('/')[2]: value
    for name, value in found.items()
    if name.startswith('exact_match/')
  }
  assert by_kind == {
    'read_image': 0.75,
    'transcribe': 0.5,
    'add_spoken_and_image': 0.25,
    'compare_images': 0.8,
  }


def test_exact_match_of_modalities_joins_their_kinds():
  found = numbers(exact_match=(RIGHT, ASKED))
  name = 'exact_match_of_modality'
  assert {key: found[key] for key in found if key.startswith(name)} == {
    name: pytest.approx(10 / 19),
    f'{name}/image': pytest.approx(7 / 9),
    f'{name}/audio': 0.5,
    f'{name}/audio_and_image': 0.25,
  }


def test_the_loss_of_modalities_weighs_each_modality_alike():
  losses, tokens = np.array([3.0, 8, 1, 0, 2]), np.array([6.0, 4, 1, 0, 4])
  found = numbers(loss_of_kind=(losses, tokens))
  assert found == pytest.approx(
    {
      'loss_of_kind': 14 / 15,
      'loss_of_kind/read_image': 0.5,
      'loss_of_kind/transcribe': 2.0,
      'loss_of_kind/add_spoken_and_image': 1.0,
      'loss_of_kind/compare_images': 0.5,
      'loss_of_modality': (0.5 + 2 + 1) / 3,
      'loss_of_modality/image': 0.5,
      'loss_of_modality/audio': 2.0,
      'loss_of_modality/audio_and_image': 1.0,
    }
  )


@pytest.mark.parametrize('kind', [*digit_kinds.KINDS, *WebMixture().kinds])
def test_every_kind_has_modalities(kind):
  found = of_modality.modalities(kind)
  for word, medium in (
    ('image', 'image'),
    ('caption', 'image'),
    ('spoken', 'audio'),
    ('transcri', 'audio'),
  ):
    assert (medium in found) or word not in kind
  if 'word' in kind and 'image' not in kind:
    assert found == 'text'


def test_nothing_asked_is_no_number():
  empty = np.zeros(5), np.zeros(5)
  found = numbers(exact_match=empty, loss_of_kind=empty)
  names = ('exact_match', 'exact_match_of_modality', 'loss_of_kind', 'loss_of_modality')
  assert found.keys() == set(names)
  assert all(math.isnan(value) for value in found.values())


LOAD = np.array([[4.0, 2, 2, 0], [1, 1, 1, 1]])  # of two layers


def of_load(load=LOAD, **settings):
  return {
    name: value
    for name, value in numbers(exact_match=(RIGHT, ASKED), router_load=load, **settings).items()
    if 'exact' not in name
  }


def test_the_load_of_two_layers():
  found = of_load(capacity_factor=1.25)
  assert found == pytest.approx(
    {
      # The first layer has a mean of 2 and a variance of (4 + 0 + 0 + 4) / 4.
      'load_variation': math.sqrt(2) / 2 / 2,
      'largest_share': 0.5,
      # In the first layer, one expert has 0.5 of the assignments and a capacity of 1.25 / 4.
      'drop_rate': (0.5 - 1.25 / 4) / 2,
    }
  )


def test_nothing_is_dropped_without_a_capacity_or_below_it():
  assert of_load()['drop_rate'] == 0
  assert of_load(capacity_factor=2.0)['drop_rate'] == 0


def test_the_order_of_experts_and_the_size_of_the_split_change_nothing():
  expected = of_load(capacity_factor=1.0)
  assert of_load(LOAD[:, ::-1] * 7, capacity_factor=1.0) == pytest.approx(expected)


def test_one_expert_that_takes_all_is_the_worst_load():
  found = of_load(np.eye(4)[:1] * 9, capacity_factor=1.0)
  assert found == pytest.approx(
    {'load_variation': math.sqrt(3), 'largest_share': 1.0, 'drop_rate': 0.75}
  )


@pytest.mark.parametrize('load', [np.zeros((2, 4)), np.array([[1.0, 1], [0, 0]]), np.zeros((0, 4))])
def test_a_layer_without_assignments_has_no_numbers(load):
  assert all(math.isnan(value) for value in of_load(load).values())


def test_sums_of_another_form_are_refused():
  with pytest.raises(
    MetricError, match=r"'router_load' must be an array \[layers, experts\]; .* \[4\]"
  ):
    of_load(np.ones(4))
  with pytest.raises(MetricError, match="'router_load'"):
    METRICS['largest_share'].compute(Totals(loss=(1, 1)), None)
  with pytest.raises(MetricError, match='pair'):
    numbers(exact_match=np.ones(5))
