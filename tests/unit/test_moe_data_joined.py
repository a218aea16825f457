"""Questions of several turns, which see each other, in every kind of data."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
from pathlib import Path

import moe_examples
import moe_web
import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import records, streams
from workloads.multimodal_moe import digit_questions_data, joined, questions, web_mixture_data
from workloads.multimodal_moe.data_records import (
  AUDIO,
  IMAGE,
  TEXT,
  DigitQuestions,
  SpokenDigitQuestions,
)

NOWHERE = Path('/nonexistent')
SPOKEN = SpokenDigitQuestions(row_length=32)


class Stored:
  """Questions by their number: question i gives a word and i + 1 positions of audio."""

  def __len__(self):
    return 9

  def __getitem__(self, index):
    return {
      'task': np.int32(2),
      'modality': np.array([TEXT, *[AUDIO] * (index + 1), TEXT, TEXT], np.int8),
      'text': np.array([0, 30 + index, 20 + index, 1], np.int32),
      'num_targets': np.int32(2),
      'frames': np.full((index + 1, SPOKEN.frames_dim), index, np.float32),
    }

  @property
  def lengths(self):
    return np.arange(9) + 4


@pytest.mark.parametrize(('apart', 'turns'), [(False, (2, 3)), (True, (1, 5))])
def test_turns_are_questions_of_the_source_in_one_context(apart, turns):
  source = joined.Joined(Stored(), 2, apart=apart)
  one = pickle.loads(pickle.dumps(source))[1]
  assert [len(turn['frames']) for turn in one['turns']] == [index + 1 for index in turns]
  assert len(source) == 4
  lengths = [sum(len(turn['modality']) for turn in source[i]['turns']) for i in range(4)]
  assert source.lengths.tolist() == lengths


def test_a_question_of_one_turn_is_the_question():
  source = Stored()
  assert joined.joined(source, DigitQuestions()) is source


def test_turns_share_a_segment_and_count_their_positions_on():
  source = joined.Joined(Stored(), 2)
  row = questions.together([source[0], source[1]], row_length=32)
  batch = questions.Rows(SPOKEN)([row])
  first, second = source.lengths[:2]
  padding = [0] * (32 - first - second)
  assert batch['segments'][0].tolist() == [1] * first + [2] * second + padding
  assert batch['positions'][0].tolist() == [*range(first), *range(second), *padding]
  # Each turn ends in its own answer, of two tokens.
  is_answer = np.flatnonzero(batch['weights'][0])
  stops = np.cumsum([len(Stored()[index]['modality']) for index in range(4)])
  assert is_answer.tolist() == np.sort([*(stops - 2), *(stops - 1)]).tolist()
  expected = [token for index in range(4) for token in (20 + index, 1)]
  assert batch['targets'][0][is_answer].tolist() == expected
  assert batch['inputs'][0][is_answer].tolist() == [
    token for index in range(4) for token in (30 + index, 20 + index)
  ]


@pytest.mark.skipif(
  importlib.util.find_spec('sklearn') is None, reason='scikit-learn has the images of digits'
)
@pytest.mark.parametrize('split', ['train', 'validation', 'held_out_pairs'])
def test_the_turns_of_a_question_are_questions_of_one_turn(split):
  form = DigitQuestions(row_length=96, num_turns=4)
  short = moe_examples.definition(splits=Splits(train=1_200, eval_train=60, validation=480, test=1))
  long = moe_examples.definition(form, Splits(train=300, eval_train=60, validation=120, test=1))
  probe = dataclasses.replace(short.probes['held_out_pairs'], num_examples=240)
  short = dataclasses.replace(short, probes={'held_out_pairs': probe})
  of_short, of_long = (digit_questions_data.source(one, NOWHERE, split) for one in (short, long))
  if split == 'train':
    of_short, of_long = of_short.source, of_long.source
  assert of_short.sources.keys() == of_long.sources.keys()
  for kind, found in of_long.sources.items():
    single = of_short.sources[kind]
    assert 4 * len(found) == len(single)
    for index in (0, len(found) - 1):
      for turn, one in enumerate(found[index]['turns']):
        expected = single[4 * index + turn]
        assert one.keys() == expected.keys()
        assert all(np.array_equal(one[name], expected[name]) for name in one)


@pytest.mark.parametrize('base', ['quick_moe', 'digits_moe', 'multimodal_moe'])
def test_long_variants_have_longer_questions_and_as_many_answers(base):
  plain, long = registry.workload(base), registry.workload(f'{base}_long')
  module = registry.module_of(long, 'data')
  assert long.data.num_turns == 4 and long.batch_sizes.eval % 8 == 0
  assert long.splits.validation == pytest.approx(plain.splits.validation / 4, abs=3)
  batches = [module.fake_eval_batch(one.for_smoke(), 12, 0) for one in (plain, long)]
  asked = [(batch['weights'] > 0).sum(axis=1).mean() for batch in batches]
  assert asked[1] > 2 * asked[0] and batches[1]['segments'].max() == 1
  assert batches[1]['positions'].max() > plain.smoke.data.row_length


def web(num_turns, splits):
  form = dataclasses.replace(
    moe_web.DATA, row_length=64 * num_turns, num_turns=num_turns, eval_multiple=1
  )
  options = {'dataset': 'web_mixture', 'bundled': False, 'probes': {}}
  return moe_examples.definition(form, splits, **options)


def test_web_examples_join_pieces_images_and_recordings_of_the_same_prepared_set(tmp_path):
  """Text is one longer piece, and the images of an example are different ones."""
  for package in ('pyarrow', 'tiktoken', 'PIL', 'soundfile'):
    pytest.importorskip(package)
  short = web(1, Splits(train=44, eval_train=22, validation=10, test=10))
  long = web(2, Splits(train=22, eval_train=11, validation=4, test=5))
  root = moe_web.prepare(short, tmp_path, moe_web.write(tmp_path / 'raw'))
  prepared = records.open_prepared(root)
  sources = web_mixture_data.source(long, root, 'train').source.sources
  text, caption, speech = (sources[kind] for kind in ('text', 'caption', 'transcript'))
  pieces = prepared.field('text-train/tokens')
  assert len(text) == len(pieces) // 2
  np.testing.assert_array_equal(text[3]['text'][1:], np.concatenate([pieces[6], pieces[7]]))
  assert len(text[3]['modality']) == text.lengths[3] == text[3]['num_targets']
  images, owner = prepared.field('images-train/patches'), prepared.field('captions-train/image')
  shown = [turn['patches'] for turn in caption[1]['turns']]
  assert owner[1] != owner[1 + len(caption)]
  for found, number in zip(shown, (1, 1 + len(caption)), strict=True):
    np.testing.assert_array_equal(found, images[owner[number]])
  tokens = prepared.field('speech-train/tokens')
  for turn, number in zip(speech[1]['turns'], (2, 3), strict=True):
    np.testing.assert_array_equal(turn['text'][1:], tokens[number])
  batch = next(streams.train_stream(web_mixture_data, long, root, 4, seed=0))
  assert set(batch['modality'].ravel()) == {0, TEXT, IMAGE, AUDIO}
