"""Questions that ask several at once: all that is given first, then the answers, in every task."""

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
from workloads.multimodal_moe import digit_questions_data, joined, web_mixture_data, words
from workloads.multimodal_moe.data_records import AUDIO, IMAGE, TEXT, DigitQuestions

NOWHERE = Path('/nonexistent')
FORM = DigitQuestions(row_length=96, num_joined=4)


class Stored:
  """Questions by their number; question i gives a word and i + 1 positions of audio."""

  def __len__(self):
    return 9

  def __getitem__(self, index):
    return {
      'task': np.int32(2),
      'modality': np.array([TEXT, *[AUDIO] * (index + 1), TEXT, TEXT], np.int8),
      'text': np.array([0, 100 + index, 200 + index, 1], np.int32),
      'num_targets': np.int32(2),
      'frames': np.full((index + 1, 3), index, np.float32),
    }

  @property
  def lengths(self):
    return np.arange(9) + 4


@pytest.mark.parametrize(('apart', 'parts'), [(False, (2, 3)), (True, (1, 5))])
def test_answers_follow_all_that_is_given(apart, parts):
  source = joined.Joined(Stored(), 2, apart=apart)
  one = pickle.loads(pickle.dumps(source))[1]
  first, second = parts
  given = [part for index in parts for part in (TEXT, *[AUDIO] * (index + 1), TEXT)]
  assert one['modality'].tolist() == [*given, TEXT, TEXT, TEXT]
  assert one['text'].tolist() == [
    *(0, 100 + first, 0, 100 + second),
    *(200 + first, 1, 200 + second, 1),
  ]
  assert one['num_targets'] == 4 and one['task'] == 2
  assert one['frames'][:, 0].tolist() == [index for index in parts for _ in range(index + 1)]
  assert len(source) == 4
  assert source.lengths.tolist() == [len(source[i]['modality']) for i in range(4)]


def test_one_question_at_once_is_the_question():
  source = Stored()
  assert joined.joined(source, DigitQuestions()) is source


@pytest.mark.skipif(
  importlib.util.find_spec('sklearn') is None, reason='scikit-learn has the images'
)
@pytest.mark.parametrize('split', ['train', 'validation', 'held_out_pairs'])
def test_the_parts_of_a_question_are_those_of_shorter_ones(split):
  """Each answer is that of its part, as the source of single questions has it."""
  short = moe_examples.definition(splits=Splits(train=1_200, eval_train=60, validation=480, test=1))
  long = moe_examples.definition(FORM, Splits(train=300, eval_train=60, validation=120, test=1))
  probe = dataclasses.replace(short.probes['held_out_pairs'], num_examples=240)
  short = dataclasses.replace(short, probes={'held_out_pairs': probe})
  of_short, of_long = (digit_questions_data.source(one, NOWHERE, split) for one in (short, long))
  if split == 'train':
    of_short, of_long = of_short.source, of_long.source
  assert of_short.sources.keys() == of_long.sources.keys()
  for kind, found in of_long.sources.items():
    base = of_short.sources[kind]
    assert 4 * len(found) == len(base)
    for index in (0, len(found) - 1):
      parts = [base[4 * index + part] for part in range(4)]
      answers = np.concatenate([part['text'][-part['num_targets'] :] for part in parts])
      one = found[index]
      assert moe_examples.spoken(one['text'][-one['num_targets'] :]) == moe_examples.spoken(answers)
      assert (answers == words.WORDS.index(words.END)).sum() == 4
      assert len(one['modality']) == sum(len(part['modality']) for part in parts) + 3
      assert (one['modality'] == IMAGE).sum() == sum((p['modality'] == IMAGE).sum() for p in parts)
      if 'patches' in one:
        expected = np.concatenate([part['patches'] for part in parts])
        np.testing.assert_array_equal(one['patches'], expected)


@pytest.mark.parametrize('base', ['quick_moe', 'digits_moe', 'multimodal_moe'])
def test_long_variants_have_longer_questions_and_as_many_positions_and_answers(base):
  plain, long = registry.workload(base), registry.workload(f'{base}_long')
  module = registry.module_of(long, 'data')
  assert long.data.num_joined == 4 and long.batch_sizes.eval % 8 == 0
  assert long.splits.validation == pytest.approx(plain.splits.validation / 4, abs=3)
  batch = module.fake_eval_batch(long.for_smoke(), 12, 0)
  asked = (batch['weights'] > 0).sum(axis=1)
  longest = batch['positions'].max()
  plain_batch = module.fake_eval_batch(plain.for_smoke(), 12, 0)
  assert asked.mean() > 2 * (plain_batch['weights'] > 0).sum(axis=1).mean()
  assert longest > plain.smoke.data.row_length


def web(tmp_path, num_joined):
  for package in ('pyarrow', 'tiktoken', 'PIL', 'soundfile'):
    pytest.importorskip(package)
  form = dataclasses.replace(
    moe_web.DATA, row_length=64 * num_joined, num_joined=num_joined, eval_multiple=1
  )
  splits = Splits(train=44, eval_train=22, validation=10, test=10)
  if num_joined > 1:
    splits = Splits(train=22, eval_train=11, validation=4, test=5)
  options = {'dataset': 'web_mixture', 'bundled': False, 'probes': {}}
  return moe_examples.definition(form, splits, **options)


def test_web_examples_join_pieces_images_and_recordings_of_the_same_prepared_set(tmp_path):
  """Text is one longer piece; captions follow their images, which are different ones."""
  short, long = web(tmp_path, 1), web(tmp_path, 2)
  root = moe_web.prepare(short, tmp_path, moe_web.write(tmp_path / 'raw'))
  prepared = records.open_prepared(root)
  sources = web_mixture_data.source(long, root, 'train').source.sources
  text, caption, speech = (sources[kind] for kind in ('text', 'caption', 'transcript'))
  pieces = prepared.field('text-train/tokens')
  assert len(text) == len(pieces) // 2
  np.testing.assert_array_equal(text[3]['text'][1:], np.concatenate([pieces[6], pieces[7]]))
  assert len(text[3]['modality']) == text.lengths[3] == text[3]['num_targets']
  images, owner = prepared.field('images-train/patches'), prepared.field('captions-train/image')
  assert owner[1] != owner[1 + len(caption)]
  np.testing.assert_array_equal(
    caption[1]['patches'], np.concatenate([images[owner[1]], images[owner[1 + len(caption)]]])
  )
  tokens = prepared.field('speech-train/tokens')
  np.testing.assert_array_equal(speech[1]['text'][2:], np.concatenate([tokens[2], tokens[3]]))
  modality = speech[1]['modality']
  starts = np.flatnonzero((modality == AUDIO) & (np.roll(modality, 1) == TEXT))
  assert len(starts) == 2, 'a token stands between the recordings'
  batch = next(streams.train_stream(web_mixture_data, long, root, 4, seed=0))
  assert set(batch['modality'].ravel()) == {0, TEXT, IMAGE, AUDIO}
