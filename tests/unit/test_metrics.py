"""Metrics alone: means, what follows from them, and what is a function of a whole split."""

from __future__ import annotations

import itertools
import math
import sys

import metric_toys
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithmic_efficiency import errors
from algorithmic_efficiency.metrics import derived
from algorithmic_efficiency.metrics.bleu import Bleu
from algorithmic_efficiency.metrics.chrf import ChrF
from algorithmic_efficiency.metrics.exact_match import ExactMatch
from algorithmic_efficiency.metrics.means import ByDomain, Mean
from algorithmic_efficiency.metrics.metric import MetricError, Totals, check_rows


class TestDerived:
  @pytest.mark.parametrize(
    ('loss', 'expected'), [(0.0, 1.0), (1.0, math.e), (math.log(32), 32.0), (-1.0, 1 / math.e)]
  )
  def test_perplexity_is_the_exponential_of_a_loss_in_nats(self, loss, expected):
    assert derived.perplexity(loss) == pytest.approx(expected, rel=1e-12)

  def test_a_perplexity_beyond_floats_is_infinite(self):
    largest = math.log(1.7976931348623157e308)
    assert math.isfinite(derived.perplexity(largest))
    assert derived.perplexity(largest + 1e-9) == math.inf
    assert derived.perplexity(math.inf) == math.inf
    assert math.isnan(derived.perplexity(math.nan))

  def test_a_model_sums_what_does_not_follow_from_others(self):
    assert derived.summed(('loss', 'ppl', 'accuracy')) == ('loss', 'accuracy')

  def test_what_follows_is_taken_from_the_mean_of_its_source(self):
    assert derived.DERIVED['ppl'].compute({'loss': (6.0, 3.0)}, None) == {'ppl': math.exp(2.0)}


class TestMeans:
  def test_a_mean_is_the_sum_over_the_weight_and_of_nothing_it_is_nan(self):
    assert Mean('loss').compute({'loss': (6.0, 4.0)}, None) == {'loss': 1.5}
    assert math.isnan(Mean('loss').compute({'loss': (0.0, 0.0)}, None)['loss'])

  def test_parts_have_means_of_their_own_and_the_split_weighs_examples_alike(self):
    sums = {'accuracy': (np.array([3.0, 0.0, 1.0]), np.array([4.0, 0.0, 12.0]))}
    found = ByDomain('accuracy', ('de', 'fr', 'ja')).compute(sums, None)
    assert found == {'accuracy': 0.25, 'accuracy/de': 0.75, 'accuracy/ja': 1 / 12}

  def test_an_empty_part_is_left_out_and_an_empty_split_is_nan(self):
    sums = {'m': (np.zeros(2), np.zeros(2))}
    found = ByDomain('m', ('a', 'b')).compute(sums, None)
    assert [*found] == ['m'] and math.isnan(found['m'])

  @pytest.mark.parametrize(
    ('one', 'sums', 'said'),
    [
      (Mean('m'), (np.zeros(2), np.ones(2)), r'of scalars; their shapes are: \[2\] and \[2\]'),
      (Mean('m'), 1.0, 'no pair'),
      (Mean('m'), {'sum': 1.0, 'weight': 1.0}, 'no pair'),
      (Mean('m'), (1.0, 2.0, 3.0), r'\[\] and \[\] and \[\]'),
      (ByDomain('m', ('a', 'b')), (1.0, 2.0), r'of arrays \[2\]'),
      (ByDomain('m', ('a', 'b')), (np.zeros(3), np.ones(3)), r'\[3\] and \[3\]'),
    ],
  )
  def test_sums_of_another_form_are_refused(self, one, sums, said):
    with pytest.raises(MetricError, match=f"The sums of 'm' must be a pair.*{said}"):
      one.compute({'m': sums}, None)

  def test_sums_that_are_missing_are_named_with_those_that_are_there(self):
    with pytest.raises(MetricError, match="'wer' takes its sums from eval_step, which gives loss"):
      Mean('wer').compute(Totals({'loss': (1.0, 1.0)}), None)


HYPOTHESES = [
  'The cat sat on the mat .',
  'It is a "test", really: 1,000 words.',
  '',
  'a b c d e f g',
  'The the the the',
  "Don't stop & go on",
]
REFERENCES = [
  'The cat sat on a mat.',
  'it is a "test" , really : 1,000 words!',
  'nothing was said',
  'a b c d e f',
  'the The the',
  "Don't stop &amp; go on now",
]
TEXTS = [*zip(HYPOTHESES, REFERENCES, strict=True)]


def texts(outputs, batch):
  return [TEXTS[i][0] for i in outputs['index']], [TEXTS[i][1] for i in batch['index']]


def bleu(pieces) -> float:
  """BLEU of examples, given to as many ranks as there are pieces, one by one in batches of two."""
  pytest.importorskip('sacrebleu')
  one = Bleu(texts=texts, outputs=('index',))
  states = []
  for piece in pieces:
    state = None
    for start in range(0, len(piece), 2):
      rows = {'index': np.array(piece[start : start + 2])}
      state = one.update(state, rows, rows)
    states += [] if state is None else [state]
  return one.compute({}, one.merge(states) if states else None)['bleu']


class TestBleu:
  @given(
    order=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
  )
  def test_it_is_that_of_the_whole_corpus_however_that_is_cut(self, order, cuts):
    sacrebleu = pytest.importorskip('sacrebleu')
    ends = [0, *sorted(min(cut, len(order)) for cut in cuts), len(order)]
    pieces = [order[start:end] for start, end in itertools.pairwise(ends)]
    expected = sacrebleu.corpus_bleu(
      [TEXTS[i][0] for i in order],
      [[TEXTS[i][1] for i in order]],
      smooth_method='exp',
      tokenize='13a',
      lowercase=False,
      use_effective_order=False,
    )
    assert bleu(pieces) == expected.score

  def test_of_nothing_it_is_nan(self):
    assert math.isnan(bleu([[]]))

  def test_without_its_package_it_says_what_to_install(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sacrebleu.metrics', None)
    with pytest.raises(errors.UserError, match=r"sacrebleu.*pip install '.*\[text\]'"):
      bleu([[0]])


class TestWholeSplits:
  def test_a_metric_of_all_rows_is_exact_however_they_are_cut(self):
    """The mean of average precisions of two halves is not that of the whole."""
    one = metric_toys.AveragePrecision()
    scores, targets = np.array([0.9, 0.1, 0.8, 0.2, 0.7]), np.array([0, 1, 2, 0, 0])

    def state(rows, start=None):
      return one.update(start, {'scores': scores[rows]}, {'targets': targets[rows]})

    whole = one.compute({}, state(slice(None)))['average_precision']
    assert whole == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    cut = one.merge([state(slice(0, 2)), state(slice(3, 5), state(slice(2, 3)))])
    assert one.compute({}, cut)['average_precision'] == whole


@pytest.mark.parametrize('shape', [(), (3,), (3, 4), (1, 4)])
def test_an_output_without_a_row_for_each_example_is_refused(shape):
  check_rows({'fine': np.zeros((4, 2)), 'also': np.zeros(4)}, 4)
  with pytest.raises(MetricError, match="of 4 rows; the shape of 'bad' is") as refused:
    check_rows({'fine': np.zeros(4), 'bad': np.zeros(shape)}, 4)
  assert refused.value.output == 'bad'


def of_texts(kind, pieces) -> float:
  """A metric of texts on examples, given to as many ranks as there are pieces."""
  one = kind(texts=texts, outputs=('index',))
  states = []
  for piece in pieces:
    state = None
    for start in range(0, len(piece), 2):
      rows = {'index': np.array(piece[start : start + 2])}
      state = one.update(state, rows, rows)
    states += [] if state is None else [state]
  return one.compute({}, one.merge(states) if states else None)[one.name]


class TestChrF:
  @pytest.mark.parametrize('pieces', [[[0, 1, 2, 3, 4, 5]], [[5, 1], [3], [0, 2, 4]]])
  def test_it_is_that_of_the_whole_corpus_however_that_is_cut(self, pieces):
    sacrebleu = pytest.importorskip('sacrebleu')
    expected = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES])
    assert of_texts(ChrF, pieces) == pytest.approx(expected.score, abs=1e-12)

  def test_of_nothing_it_is_nan(self):
    pytest.importorskip('sacrebleu')
    assert math.isnan(of_texts(ChrF, [[]]))

  def test_without_its_package_it_says_what_to_install(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sacrebleu.metrics', None)
    with pytest.raises(errors.UserError, match=r"sacrebleu.*pip install '.*\[text\]'"):
      of_texts(ChrF, [[0]])


class TestExactMatch:
  @pytest.mark.parametrize('pieces', [[[0, 1, 2, 6]], [[6], [2, 0], [1]]])
  def test_it_is_the_share_of_texts_that_are_the_same(self, pieces, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], 'TEXTS', [*TEXTS, ('same Text', 'same Text')])
    assert of_texts(ExactMatch, pieces) == 0.25

  def test_of_nothing_it_is_nan(self):
    assert math.isnan(of_texts(ExactMatch, [[]]))
