"""Batches of sentence pairs: packed and padded, subsets, and the vocabulary that is shipped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_translation as small
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.data.pipeline import InOrder, ShardRows
from algorithmic_efficiency.data.records import Ragged
from workloads.nmt import batches, parallel_text_data, vocabulary
from workloads.nmt.data_records import (
  EOS_ID,
  PADDING_ID,
  ParallelText,
  SpelledNumbers,
  bucket_lengths,
  packed_length,
)

pytest.importorskip('sentencepiece')

DATA = SpelledNumbers(vocab_size=40, max_length=12, row_length=16, bucket=5)
SHIPPED_SHA256 = '8ab0d62ce20637ce5c4daf81792ee6da5324b55a68591352ffff6418499c2514'


def ragged(sentences):
  values = np.array([token for one in sentences for token in one], np.uint16)
  return Ragged(values, np.cumsum([0, *map(len, sentences)]))


def drawn_pairs(number, seed=0):
  """Source and target sentences of 2 to 12 tokens."""
  random = np.random.default_rng(seed)
  return tuple(
    [[*random.integers(3, 40, random.integers(1, 12)).tolist(), EOS_ID] for _ in range(number)]
    for _ in range(2)
  )


def pairs(source, target, **options):
  options = {'num_evaluated': len(source), **options}
  return batches.Pairs(ragged(source), ragged(target), data=DATA, **options)


def sentences_of(row, segmentation):
  """The sentences of a packed row, by segment."""
  return [row[segmentation == number].tolist() for number in range(1, segmentation.max() + 1)]


class TestPackedRows:
  def test_a_row_by_hand(self):
    """Two pairs: (5 6 2 | 7 2) and (8 2 | 9 10 11 2)."""
    found = pairs([[5, 6, 2], [8, 2]], [[7, 2], [9, 10, 11, 2]])
    rows = ShardRows(np.array([1, 0]), np.zeros(2, int), None, None, np.array([0, 2]))
    batch = {key: value.tolist()[0] for key, value in found(rows).items()}
    rest = 16 - 5
    assert batch['inputs'] == [8, 2, 5, 6, 2, *[0] * rest]
    assert batch['inputs_segmentation'] == [1, 1, 2, 2, 2, *[0] * rest]
    assert batch['inputs_position'] == [0, 1, 0, 1, 2, *[0] * rest]
    assert batch['targets'] == [9, 10, 11, 2, 7, 2, *[0] * 10]
    assert batch['targets_segmentation'] == [1, 1, 1, 1, 2, 2, *[0] * 10]
    assert batch['targets_position'] == [0, 1, 2, 3, 0, 1, *[0] * 10]
    assert batch['weights'] == [1.0] * 6 + [0.0] * 10

  def test_a_token_0_within_a_sentence_is_padding_as_in_algoperf(self):
    found = pairs([[5, 0, 6, 2]], [[7, 0, 2]])
    batch = found(ShardRows(np.array([0]), np.array([0]), None, None, np.array([0, 1])))
    assert batch['inputs_segmentation'][0, :5].tolist() == [1, 0, 1, 1, 0]
    assert batch['inputs_position'][0, :5].tolist() == [0, 1, 2, 3, 0]
    assert batch['weights'][0, :4].tolist() == [1, 0, 1, 0]

  @settings(max_examples=12, deadline=None)
  @given(number=st.integers(1, 60), seed=st.integers(0, 99), size=st.integers(1, 5))
  def test_each_pair_is_once_in_an_epoch_with_both_its_sides_in_one_segment(
    self, number, seed, size
  ):
    source, target = drawn_pairs(number, seed)
    packed = pairs(source, target).packed()
    stream = stream_of(packed, size)
    found = []
    while len(found) < 2 * number:
      batch = next(stream)
      for row in range(size):
        sides = (
          sentences_of(batch[side][row], batch[f'{side}_segmentation'][row])
          for side in batches.SIDES
        )
        found += zip(*sides, strict=True)
    expected = sorted(zip(source, target, strict=True))
    assert sorted(found[:number]) == expected
    assert sorted(found[number : 2 * number]) == expected


def stream_of(packed, batch_size, **changes):
  """The training stream of a loader that is given."""
  size = len(packed.source)
  definition = replace(
    small.wmt(),
    splits=replace(small.SPLITS, train=size, eval_train=1),
    data=DATA,
    **changes,
  )
  data = type('Data', (), {'loader': staticmethod(lambda *_: packed)})
  return streams.train_stream(data, definition, Path('.'), batch_size, 3)


class TestEvaluation:
  @settings(max_examples=15, deadline=None)
  @given(
    number=st.integers(1, 70),
    seed=st.integers(0, 99),
    own=st.integers(1, 9),
    count=st.integers(1, 3),
  )
  def test_each_pair_comes_once_and_the_shards_of_a_batch_have_one_width(
    self, number, seed, own, count
  ):
    """For any size of a batch, on any number of processes."""
    source, target = drawn_pairs(number, seed)
    found = pairs(source, target, first_number=1_000)
    sizes = {'num_examples': number, 'batch_size': own * count}
    orders = [InOrder(**sizes, shard=(index, count)) for index in range(count)]
    seen = []
    for number_of_batch in range(orders[0].num_batches):
      rows = [order.rows(number_of_batch) for order in orders]
      shards = [found(one) for one in rows]
      assert len({shard['inputs'].shape for shard in shards}) == 1
      batch = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
      assert batch.keys() == {'inputs', 'targets', 'weights', 'pair'}
      width = batch['inputs'].shape[1]
      assert batch['targets'].shape == batch['weights'].shape == (own * count, width)
      longest = max(np.count_nonzero(batch[side], axis=1).max() for side in batches.SIDES)
      assert width == min(one for one in bucket_lengths(DATA) if one >= longest)
      np.testing.assert_array_equal(batch['weights'], batch['targets'] != PADDING_ID)
      counts = np.concatenate([one.weights for one in rows]) > 0
      for row in np.flatnonzero(counts):
        pair = batch['pair'][row] - 1_000
        assert np.trim_zeros(batch['inputs'][row]).tolist() == source[pair]
        assert np.trim_zeros(batch['targets'][row]).tolist() == target[pair]
        seen.append(pair)
    assert sorted(seen) == list(range(number))

  @pytest.mark.parametrize(('size', 'number'), [(64, 1_014), (128, 3_000), (7, 1_014), (128, 512)])
  def test_the_first_batch_is_a_fair_sample(self, size, number):
    """Its lengths are distributed as those of all pairs, and so are those of its first part."""
    lengths = np.random.default_rng(0).geometric(0.1, number)
    order = batches.evaluation_order(lengths, size)
    for part in (size, max(4, size // 4)):
      first = lengths[order[:part]]
      # No share of pairs up to a length differs by more than one pair, or two of an uneven part.
      for length in np.unique(lengths):
        shares = (first <= length).mean(), (lengths <= length).mean()
        assert abs(np.diff(shares)) <= (1 if part == size else 2) / part

  def test_any_other_first_batches_are_spread_over_all_lengths(self):
    lengths = np.random.default_rng(0).permutation(np.arange(650))
    rest = lengths[batches.evaluation_order(lengths, 10)][10:].reshape(64, 10)
    assert (np.ptp(rest, axis=1) <= 10).all()
    for number in (3, 7, 15, 31, 64):
      assert abs(rest[:number].mean() - lengths.mean()) <= 11
      assert np.ptp(np.diff(np.sort(rest[:number].mean(axis=1)))) < 2

  @pytest.mark.parametrize('size', [1, 3, 64, 100])
  def test_the_longest_pairs_that_fill_no_batch_come_last(self, size):
    lengths = np.arange(165)
    order = batches.evaluation_order(lengths, size)
    assert sorted(order.tolist()) == lengths.tolist()
    assert (np.diff(order[165 - 165 % size :]) > 0).all()
    assert order[: len(order) - 165 % size].size % size == 0

  def test_only_the_evaluated_part_of_training_is_sorted(self):
    source, target = drawn_pairs(12)
    found = pairs(source, target, num_evaluated=5, first_number=0)
    batch = found(ShardRows(np.arange(5), np.zeros(5, int), np.ones(5)))
    assert sorted(batch['pair'].tolist()) == [0, 1, 2, 3, 4]


class TestLeftOutPairs:
  """Pairs that are too long are empty on both sides."""

  def test_training_never_sees_them(self):
    source, target = drawn_pairs(9)
    source[4], target[4] = [], []
    stream = stream_of(pairs(source, target).packed(), 2)
    seen = set()
    for _ in range(12):
      batch = next(stream)
      for row in range(2):
        segments = sentences_of(batch['inputs'][row], batch['inputs_segmentation'][row])
        assert all(segments)
        seen |= set(map(tuple, segments))
    assert seen == {tuple(one) for one in source if one}

  def test_evaluation_gives_them_no_weight(self):
    source, target = drawn_pairs(4)
    source[1], target[1] = [], []
    found = pairs(source, target, first_number=0)
    batch = found(ShardRows(np.arange(4), np.zeros(4, int), np.ones(4)))
    row = batch['pair'].tolist().index(1)
    assert batch['weights'][row].sum() == batch['inputs'][row].sum() == 0
    assert (batch['weights'].sum(axis=1) > 0).sum() == 3


class TestGeneratedBatches:
  @pytest.mark.parametrize('max_length', [2, 3, 12, 40])
  @pytest.mark.parametrize('row_length', [None, 64])
  def test_they_are_packed_as_real_ones_are(self, max_length, row_length):
    data = replace(DATA, max_length=max_length, row_length=row_length)
    batch = batches.fake_packed(data, 32, 1)
    most = 0
    for side in batches.SIDES:
      assert batch[side].shape == (32, packed_length(data))
      for row in range(32):
        segments = sentences_of(batch[side][row], batch[f'{side}_segmentation'][row])
        most = max(most, len(segments))
        assert all(2 <= len(one) <= max_length and one[-1] == EOS_ID for one in segments)
        assert all(EOS_ID < token < data.vocab_size for one in segments for token in one[:-1])
      np.testing.assert_array_equal(batch[side] == 0, batch[f'{side}_segmentation'] == 0)
    counts = [batch[f'{side}_segmentation'].max(axis=1) for side in batches.SIDES]
    np.testing.assert_array_equal(*counts)
    assert most == (1 if packed_length(data) < 4 else 2 if packed_length(data) < 6 else 3)

  def test_those_of_evaluation_have_one_pair_a_row_at_the_greatest_width(self):
    batch = batches.fake_padded(DATA, 16, 1)
    assert batch.keys() == {'inputs', 'targets', 'weights'}
    assert batch['inputs'].shape == (16, DATA.max_length)
    ends = (batch['targets'] == EOS_ID).sum(axis=1)
    assert ends.tolist() == [1] * 16


class TestRecords:
  def test_buckets_end_with_the_greatest_length(self):
    assert bucket_lengths(replace(DATA, bucket=5)) == (5, 10, 12)
    assert bucket_lengths(replace(DATA, bucket=6)) == (6, 12)
    assert bucket_lengths(replace(DATA, bucket=None)) == bucket_lengths(replace(DATA, bucket=20))

  @pytest.mark.parametrize(
    ('changes', 'said'),
    [
      ({'row_length': 11}, 'must hold a sentence of 12 tokens; row_length is 11'),
      ({'max_length': 1}, 'max_length must be at least 2'),
      ({'vocab_size': 3}, 'vocab_size must be more than 3'),
      ({'bucket': 0}, 'bucket must be at least 1'),
    ],
  )
  def test_lengths_that_do_not_fit_are_refused(self, changes, said):
    with pytest.raises(ValueError, match=said):
      replace(DATA, **changes)

  def test_a_rate_is_a_share(self):
    data = ParallelText(source_language='a', target_language='b', vocab_size=9, max_length=9)
    with pytest.raises(ValueError, match='noise_rate must be between 0 and 1'):
      replace(data, noise_rate=1.5)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('translation')
  source = small.write_all(folder / 'source')
  return small.prepare(small.multi30k(), folder, source)


def evaluated(definition, prepared, split):
  data = registry.module_of(definition, 'data')
  stream = streams.eval_stream(data, definition, prepared.root, split, 4)
  return [
    dict(zip(batch, rows, strict=True))
    for batch in stream
    for rows in zip(*batch.values(), strict=True)
  ]


class TestPreparedPairs:
  def test_tokens_decode_to_the_text(self, prepared):
    definition = small.multi30k()
    found = vocabulary.shipped('multi30k', definition.data)
    for seed, (split, size) in enumerate((('train', 60), ('validation', 9), ('test', 7))):
      for side, text in zip(batches.SIDES, small.sentences(size, seed), strict=True):
        tokens = prepared.field(f'{split}/{side}')
        assert found.decode([tokens[number] for number in range(size)]) == text
        assert all(tokens[number][-1] == EOS_ID for number in range(size))

  @pytest.mark.parametrize(('split', 'first'), [('validation', 0), ('test', 9), ('eval_train', 16)])
  def test_each_pair_of_an_evaluated_split_has_its_number(self, prepared, split, first):
    rows = [row for row in evaluated(small.multi30k(), prepared, split) if row['weights'].any()]
    assert sorted(row['pair'] - first for row in rows) == list(range(len(rows)))
    stored = 'train' if split == 'eval_train' else split
    for row in rows:
      tokens = prepared.field(f'{stored}/inputs')[row['pair'] - first]
      np.testing.assert_array_equal(np.trim_zeros(row['inputs']), tokens)

  def test_a_smaller_subset_is_a_part_of_each_larger_one(self, prepared):
    def train_pairs(size):
      definition = replace(
        small.multi30k(nested_subset=True), splits=replace(small.SPLITS, train=size)
      )
      found = parallel_text_data.loader(definition, prepared.root, 'train')
      assert len(found.source) == size
      rows = ShardRows(np.arange(size), np.zeros(size, int), None, None, np.arange(size + 1))
      return {tuple(row) for row in found.source(rows)['inputs'].tolist()}

    subsets = [train_pairs(size) for size in (10, 20, 40)]
    assert subsets[0] < subsets[1] < subsets[2]
    assert subsets[0] != {
      (*prepared.field('train/inputs')[number], *[0] * 64)[:64] for number in range(10)
    }

  def test_more_pairs_than_a_definition_has_are_a_subset_or_an_error(self, prepared):
    fewer = replace(small.SPLITS, train=20)
    data = registry.module_of(small.multi30k(), 'data')
    with pytest.raises(errors.UserError, match=r'must hold 20 examples, .* have 60'):
      streams.train_stream(data, replace(small.multi30k(), splits=fewer), prepared.root, 2, 0)

  def test_a_set_that_was_prepared_with_other_settings_is_refused(self, prepared):
    other = small.multi30k(noise_rate=0.1, noise_seed=3)
    said = r'prepared with noise_rate=0.1, noise_seed=3; it was with noise_rate=0.0, noise_seed=0'
    with pytest.raises(errors.UserError, match=said):
      parallel_text_data.loader(other, prepared.root, 'train')

  def test_a_set_with_another_vocabulary_is_refused(self, prepared):
    other = small.multi30k(vocab_size=4_001)
    with pytest.raises(errors.UserError, match='of 4,001 pieces; it has 4,000'):
      parallel_text_data.loader(other, prepared.root, 'train')


class TestShippedVocabulary:
  def test_it_is_the_one_that_the_target_is_defined_on(self):
    definition = small.multi30k(vocabulary_sha256=SHIPPED_SHA256)
    found = vocabulary.shipped('multi30k', definition.data)
    assert hashlib.sha256(found.content).hexdigest() == SHIPPED_SHA256

  @pytest.mark.parametrize('text', ['Zwei Männer.', 'naïve „日本“ 🙂', 'A\tB', 'x' * 70])
  def test_decoding_the_tokens_of_any_text_gives_the_text(self, text):
    found = vocabulary.shipped('multi30k', small.multi30k().data)
    (tokens,) = found.encode([text])
    assert found.decode([tokens]) == [text]
    assert tokens[-1] == EOS_ID and (tokens[:-1] > EOS_ID).all()

  @pytest.mark.slow
  @pytest.mark.data
  def test_training_again_gives_the_same_pieces(self, test_data):
    """The file itself may differ between versions of the library; the pieces may not."""
    pieces = train_on(test_data / 'multi30k')
    shipped = vocabulary.shipped('multi30k', small.multi30k().data)
    assert pieces == pieces_of(shipped.content)


def train_on(folder):
  from workloads.nmt import places
  from workloads.nmt.text_files import TextFolder

  text = TextFolder(folder, small.multi30k().data, places.names('multi30k'))
  sentences = (side for pair in text.pairs('train') for side in (pair.source, pair.target))
  return pieces_of(vocabulary.train(sentences, folder, 4_000, vocabulary.SHIPPED_OPTIONS))


def pieces_of(content):
  import sentencepiece

  processor = sentencepiece.SentencePieceProcessor(model_proto=content)
  return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def test_the_settings_of_a_set_are_stored(prepared):
  found = json.loads((prepared.root / 'settings.json').read_text())
  assert found['source_language'] == 'en' and found['max_length'] == 64
