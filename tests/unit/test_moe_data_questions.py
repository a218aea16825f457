"""Questions about images of digits: right answers, held-out images and pairs, rows of a batch."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import pickle
from pathlib import Path

import moe_examples
import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import digit_images, records, streams
from algorithmic_efficiency.data.packing import Packed
from workloads.multimodal_moe import digit_kinds, digit_questions_data, digits, questions, words
from workloads.multimodal_moe.data_records import (
  AUDIO,
  IMAGE,
  PADDING,
  TEXT,
  DigitQuestions,
  RowForm,
  SpokenDigitQuestions,
)

NOWHERE = Path('/nonexistent')
NUMBERS = {word: number for number, word in enumerate(words.NUMBERS)}

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('sklearn') is None, reason='scikit-learn has the images of digits'
)


def media(form, seed=0, num_each=2, max_frames=12):
  """Generated images and recordings, some of each digit."""
  random = np.random.default_rng(seed)
  number = num_each * 10
  of_digits = np.arange(number) % 10
  lengths = random.integers(1, max_frames + 1, size=number) * max(1, form.num_mels)
  return digits.Media(
    patches=random.integers(256, size=(number, form.num_patches, form.patch_dim), dtype=np.uint8),
    image_digits=of_digits,
    frames=records.Ragged(
      random.standard_normal(lengths.sum(), np.float32), np.cumsum([0, *lengths])
    ),
    recording_digits=of_digits,
  )


SPOKEN = SpokenDigitQuestions(row_length=72, patch_size=14)
EVERY_KIND = dataclasses.replace(SPOKEN, weights=tuple((kind, 1.0) for kind in digit_kinds.KINDS))


def answers_of(split):
  """For each question of a split: its kind, operands and answer, read back from the batches.

  Operands are read from the words, or found among the images by their pixels.
  """
  definition = moe_examples.definition()
  form = definition.data
  labels = {}
  for name, (images, of_images) in digit_images.digits().items():
    for image, digit in zip(questions.patches_of(form, images), of_images, strict=True):
      labels[image.tobytes()] = (name, int(digit))
  for batch in streams.eval_stream(digit_questions_data, definition, NOWHERE, split, 16):
    for row in np.flatnonzero(batch['weights'].any(axis=1)):
      given = batch['segments'][row] > 0
      modality, text = batch['modality'][row][given], batch['inputs'][row][given]
      is_target = batch['weights'][row][given] > 0
      operands, sources, image = [], set(), []
      for place in range(np.flatnonzero(is_target)[0] + 1):
        if modality[place] == IMAGE:
          image.append(batch['patches'][row, place])
          if len(image) == form.num_patches:
            source, digit = labels[np.stack(image).tobytes()]
            sources.add(source)
            operands.append(digit)
            image = []
        elif words.WORDS[text[place]] in NUMBERS:
          operands.append(NUMBERS[words.WORDS[text[place]]])
      answer = moe_examples.spoken(batch['targets'][row][given][is_target])
      yield form.kinds[batch['task'][row, 0]], operands, answer, sources


RIGHT = {
  'read_image': lambda a: [words.NUMBERS[a]],
  'read_two_images': lambda a, b: [words.NUMBERS[a], words.NUMBERS[b]],
  'add_words': lambda a, b: [words.NUMBERS[a + b]],
  'add_image_and_word': lambda a, b: [words.NUMBERS[a + b]],
  'add_images': lambda a, b: [words.NUMBERS[a + b]],
  'compare_images': lambda a, b: ['yes' if a > b else 'no'],
}


@pytest.mark.parametrize('split', ['eval_train', 'validation', 'test', 'held_out_pairs'])
def test_answers_are_right_for_images_of_the_split_and_pairs_are_held_out(split):
  found = list(answers_of(split))
  assert len(found) == {'eval_train': 60, 'validation': 120, 'test': 121}.get(split, 60)
  images = {'eval_train': 'train', 'held_out_pairs': 'validation'}.get(split, split)
  is_probe = split == 'held_out_pairs'
  for kind, operands, answer, sources in found:
    assert answer == [*RIGHT[kind](*operands), words.END]
    assert sources <= {images}
    if kind.startswith('add'):
      assert ((operands[0] + 3 * operands[1]) % 10 == 7) == is_probe
  kinds = {kind for kind, *_ in found}
  assert kinds == {kind for kind in RIGHT if not is_probe or kind.startswith('add')}
  assert len({answer[0] for kind, _, answer, _ in found}) > 6


def test_ten_of_a_hundred_pairs_are_held_out_one_for_each_digit():
  first, second = np.divmod(np.arange(100), 10)
  held_out = digit_kinds.is_held_out(first, second)
  assert sorted(first[held_out]) == sorted(second[held_out]) == list(range(10))
  sums = set((first + second)[~held_out])
  assert set((first + second)[held_out]) <= sums == set(range(19))


@pytest.mark.parametrize('kind', digit_kinds.KINDS)
def test_a_question_begins_with_text_and_has_text_between_recordings(kind):
  """So the audio of a row can be convolved at once, and no two recordings touch."""
  template = [TEXT if isinstance(one, str) else one for one in digit_kinds.KINDS[kind].template]
  assert template[0] == TEXT and template[-1] == TEXT
  assert (AUDIO, AUDIO) not in list(itertools.pairwise(template))


def test_the_spoken_image_is_among_three_different_ones():
  drawn = digit_kinds.KINDS['find_spoken_image'].draw(np.random.default_rng(0), 500)
  kind = digit_kinds.KINDS['find_spoken_image']
  places = []
  for wanted, *shown in drawn.tolist():
    assert len(set(shown)) == 3
    (word,) = kind.answer(wanted, *shown)
    place = ('first', 'second', 'third').index(word)
    assert shown[place] == wanted
    places.append(place)
  assert min(np.bincount(places)) > 100


def test_images_of_a_digit_come_equally_often():
  form = DigitQuestions()
  of_media = media(form, num_each=7)
  source = digits.DigitSource(form, 'read_image', 'train', 1_000, lambda: of_media)
  counts = np.bincount(source._images[:, 0], minlength=70)
  by_digit = counts.reshape(7, 10)
  assert (by_digit.max(axis=0) - by_digit.min(axis=0) <= 1).all() and counts.min() > 0


@pytest.mark.parametrize('kind', digit_kinds.KINDS)
def test_lengths_are_those_of_the_questions_and_pickling_keeps_both(kind):
  make = functools.partial(media, EVERY_KIND)
  source = digits.DigitSource(EVERY_KIND, kind, 'train', 40, make)
  copy = pickle.loads(pickle.dumps(source))
  for index, length in enumerate(source.lengths):
    one, same = source[index], copy[index]
    assert len(one['modality']) == length
    assert one.keys() == same.keys()
    assert all(np.array_equal(one[name], same[name]) for name in one)
  other = digits.DigitSource(EVERY_KIND, kind, 'validation', 40, make)
  assert any(not np.array_equal(source[i]['text'], other[i]['text']) for i in range(40))


def packed_rows(form=EVERY_KIND, num_rows=9):
  of_media = media(form)
  sources = [digits.DigitSource(form, kind, 'train', 10, lambda: of_media) for kind in form.kinds]
  endless = (source[i] for i in range(10) for source in sources)
  return questions.filled(form, endless, num_rows)


def test_a_batch_of_rows_is_that_of_a_plain_loop():
  rows = packed_rows()
  assert max(len(row['questions']) for row in rows) > 2
  batch, expected = questions.Rows(EVERY_KIND)(rows), moe_examples.plain_rows(EVERY_KIND, rows)
  assert batch.keys() == expected.keys()
  for name, array in expected.items():
    assert batch[name].dtype == array.dtype
    np.testing.assert_array_equal(batch[name], array, err_msg=name)


def test_questions_that_have_a_row_each_are_those_of_packed_rows():
  """A packed question differs from the same one alone in its place and number only."""
  (row,) = packed_rows(num_rows=1)
  make = questions.Rows(EVERY_KIND)
  packed, alone = make([row]), make(row['questions'])
  start = 0
  for number, one in enumerate(row['questions']):
    length = len(one['modality'])
    for name in packed:
      mine, others = packed[name][0, start : start + length], alone[name][number, :length]
      if name == 'segments':
        mine, others = mine - number, others
      np.testing.assert_array_equal(mine, others, err_msg=name)
      assert not alone[name][number, length:].any()
    start += length


@pytest.mark.parametrize(('multiple', 'expected'), [(1, 13), (5, 15), (16, 16), (100, 72)])
def test_an_evaluation_batch_is_as_long_as_its_longest_question_rounded_up(multiple, expected):
  form = dataclasses.replace(EVERY_KIND, eval_multiple=multiple)
  of_media = media(form)
  source = digits.DigitSource(form, 'read_two_images', 'validation', 8, lambda: of_media)
  short = digits.DigitSource(form, 'add_words', 'validation', 8, lambda: of_media)
  examples = [short[0], source[0], short[1]]
  assert max(len(one['modality']) for one in examples) == 13
  batch = questions.Rows(form)(examples)
  whole = questions.Rows(form, form.row_length)(examples)
  assert batch.keys() == whole.keys()
  for name, array in batch.items():
    assert array.shape[:2] == (3, expected)
    np.testing.assert_array_equal(array, whole[name][:, :expected])
    assert not whole[name][:, expected:].any()


def test_only_answers_have_targets_and_they_are_the_next_tokens():
  batch = questions.Rows(EVERY_KIND)(packed_rows())
  is_target = batch['weights'] > 0
  assert not batch['targets'][~is_target].any()
  follows = is_target[:, :-1] & (batch['segments'][:, :-1] == batch['segments'][:, 1:])
  np.testing.assert_array_equal(batch['targets'][:, :-1][follows], batch['inputs'][:, 1:][follows])
  last = is_target[:, :-1] & ~follows
  assert set(moe_examples.spoken(batch['targets'][:, :-1][last])) == {words.END}
  assert (batch['modality'][batch['segments'] == 0] == PADDING).all()
  assert (batch['modality'][batch['segments'] > 0] != PADDING).all()


def test_patches_are_cut_row_by_row():
  form = RowForm(
    row_length=8, vocab_size=4, image_size=6, patch_size=3, channels=2, weights=(('text', 1.0),)
  )
  images = np.arange(2 * 6 * 6 * 2, dtype=np.uint8).reshape(2, 6, 6, 2)
  patches = questions.patches_of(form, images)
  assert patches.shape == (2, 4, 18)
  np.testing.assert_array_equal(patches[1, 2].reshape(3, 3, 2), images[1, 3:, :3])


def test_a_question_that_is_longer_than_a_row_is_refused_where_it_is_made():
  form = dataclasses.replace(EVERY_KIND, row_length=15)
  with pytest.raises(errors.UserError, match=r'a row of 15 positions; one of the kind .* has \d+'):
    digits.source(moe_examples.definition(form), 'validation', functools.partial(media, form))


def test_a_row_of_questions_that_is_too_long_is_refused_with_its_row():
  short = dataclasses.replace(EVERY_KIND, row_length=10)
  short_row = {'questions': packed_rows(num_rows=1)[0]['questions'][:1]}
  rows = packed_rows(num_rows=2)
  with pytest.raises(ValueError, match='must fit in a row of 10 positions') as caught:
    questions.Rows(short)([short_row, *rows])
  assert caught.value.row == 1
  with pytest.raises(ValueError, match='must have 10 positions at most; they have'):
    questions.together(list(rows[0]['questions']), row_length=10)


def with_weights(*weights):
  form = dataclasses.replace(DigitQuestions(), weights=weights)
  definition = moe_examples.definition(form)
  return digit_questions_data.source(definition, NOWHERE, 'train')


@pytest.mark.parametrize('weight', [0.0, -1.0, float('nan'), float('inf'), 'much'])
def test_a_weight_must_be_positive(weight):
  with pytest.raises(errors.UserError, match='weight of a source must be a positive number'):
    with_weights(('read_image', 1.0), ('add_words', weight))


def test_a_kind_that_does_not_exist_is_named_with_the_nearest():
  with pytest.raises(errors.UserError, match=r"kind of question .*'read_images'.*'read_image'"):
    with_weights(('read_images', 1.0))


def test_audio_in_a_workload_without_recordings_is_refused():
  with pytest.raises(errors.UserError, match='A question with audio needs recordings'):
    with_weights(('read_image', 1.0), ('transcribe', 1.0))


def test_a_kind_that_comes_twice_is_refused():
  with pytest.raises(ValueError, match='names each source once'):
    dataclasses.replace(DigitQuestions(), weights=(('add_words', 1.0), ('add_words', 2.0)))


def test_kinds_come_in_training_as_often_as_their_weights_say():
  weights = (('add_words', 3.0), ('read_image', 1.0))
  form = dataclasses.replace(DigitQuestions(), weights=weights)
  stream = streams.train_stream(
    digit_questions_data, moe_examples.definition(form), NOWHERE, 64, seed=1
  )
  counts = np.zeros(2)
  for _ in range(8):
    batch = next(stream)
    begins = (batch['positions'] == 0) & (batch['segments'] > 0)
    counts += np.bincount(batch['task'][begins], minlength=2)
  assert counts[0] / counts.sum() == pytest.approx(0.75, abs=0.02)


def test_rows_of_training_are_well_filled():
  definition = moe_examples.definition(splits=None)
  stream = streams.train_stream(digit_questions_data, definition, NOWHERE, 64, seed=1)
  filled = np.mean([(next(stream)['segments'] > 0).mean() for _ in range(8)])
  assert filled > 0.85


def test_training_rows_are_packed_and_others_are_not():
  definition = moe_examples.definition()
  assert isinstance(digit_questions_data.source(definition, NOWHERE, 'train'), Packed)
  for split in ('eval_train', 'validation'):
    batch = next(streams.eval_stream(digit_questions_data, definition, NOWHERE, split, 16))
    assert batch['segments'].max() == 1


@pytest.mark.parametrize('num_turns', [1, 4])
@pytest.mark.parametrize('batch_size', [4, 6, 16])
def test_the_shards_of_an_evaluation_batch_are_as_long_as_the_whole_batch(batch_size, num_turns):
  """A batch of two kinds has short questions in one shard, long ones in another."""
  form = dataclasses.replace(
    DigitQuestions(), row_length=24 * num_turns, num_turns=num_turns, eval_multiple=1
  )
  definition = moe_examples.definition(form)
  arguments = (digit_questions_data, definition, NOWHERE, 'validation', batch_size)
  shards = [streams.eval_stream(*arguments, shard=(index, 2)) for index in range(2)]
  widths = set()
  for whole, *parts in zip(streams.eval_stream(*arguments), *shards, strict=True):
    for name, array in whole.items():
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
    widths.add(whole['inputs'].shape[1])
  assert len(widths) > 1


def test_generated_batches_have_every_kind_and_fit_the_smallest_rows():
  form = EVERY_KIND
  definition = moe_examples.definition(form)
  from workloads.multimodal_moe import spoken_digit_questions_data

  batch = spoken_digit_questions_data.fake_batch(definition, 16, 0)
  assert set(batch['task'][batch['segments'] > 0]) == set(range(len(form.kinds)))
  assert set(batch['modality'].ravel()) == {PADDING, TEXT, IMAGE, AUDIO}
  smallest = digits.longest_without_audio(form) + 2
  small = dataclasses.replace(form, row_length=smallest)
  batch = spoken_digit_questions_data.fake_batch(moe_examples.definition(small), 16, 0)
  assert batch['inputs'].shape == (16, smallest)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'patch_size': 3}, 'do not tile 8'),
    ({'row_length': 0}, 'row_length must be at least 1; it is 0'),
    ({'eval_multiple': 0}, 'eval_multiple must be at least 1; it is 0'),
    ({'num_mels': 40}, 'they are 40 and 0'),
  ],
)
def test_the_form_of_a_row_is_checked(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(DigitQuestions(), **change)


def test_rows_and_features_have_the_same_mel_bands():
  with pytest.raises(ValueError, match='the mel bands of their features, 40; they have 80'):
    dataclasses.replace(SpokenDigitQuestions(), num_mels=80)
