"""Metrics that follow from the means of others."""

from __future__ import annotations

import math

import pytest

from algorithmic_efficiency.metrics import derived


@pytest.mark.parametrize(
  ('loss', 'expected'), [(0.0, 1.0), (1.0, math.e), (math.log(32), 32.0), (-1.0, 1 / math.e)]
)
def test_perplexity_is_the_exponential_of_a_loss_in_nats(loss, expected):
  assert derived.perplexity(loss) == pytest.approx(expected, rel=1e-12)


def test_a_perplexity_beyond_floats_is_infinite():
  largest = math.log(1.7976931348623157e308)
  assert math.isfinite(derived.perplexity(largest))
  assert derived.perplexity(largest + 1e-9) == math.inf
  assert derived.perplexity(math.inf) == math.inf
  assert math.isnan(derived.perplexity(math.nan))


def test_a_model_sums_what_does_not_follow_from_others():
  assert derived.summed(('loss', 'ppl', 'accuracy')) == ('loss', 'accuracy')
  assert derived.from_means(('loss', 'accuracy'), {'loss': 1.0, 'accuracy': 0.5}) == {}


def test_what_follows_is_taken_from_the_mean_of_its_source_and_only_where_it_is_asked_for():
  means = {'loss': 2.0, 'accuracy': 0.5}
  assert derived.from_means(('loss', 'ppl', 'accuracy'), means) == {'ppl': math.exp(2.0)}
