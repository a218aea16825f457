"""Images and spoken digits: prepared from raw files, split by speaker, asked about."""

from __future__ import annotations

import dataclasses
import shutil

import moe_examples
import moe_recordings
import numpy as np
import pytest
import small_mnist

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import records, streams
from workloads.multimodal_moe import log_mel, questions, recordings, words
from workloads.multimodal_moe import spoken_digit_questions_data as data
from workloads.multimodal_moe.data_records import AUDIO, SpokenDigitQuestions

SPLITS = Splits(train=700, eval_train=70, validation=70, test=70)
FORM = SpokenDigitQuestions(num_validation=1, recordings_sha256='')


def definition(form=FORM):
  return moe_examples.definition(form, SPLITS, dataset='spoken_and_written_digits', bundled=False)


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  """Folders of images and recordings, and what makes the task know these images as MNIST's."""
  folder = tmp_path_factory.mktemp('raw')
  patch = pytest.MonkeyPatch()
  patch.setattr(small_mnist, 'arrays', _every_digit)
  patch.setattr(data, '_NUM_VALIDATION_IMAGES', 20)
  small_mnist.write(folder / 'mnist', small_mnist.install(patch))
  moe_recordings.write(folder / 'fsdd', {})
  moe_recordings.pack(folder / 'fsdd' / 'recordings.tar.gz', moe_recordings.files())
  yield {name: folder / name for name in ('mnist', 'fsdd')}
  patch.undo()


def _every_digit():
  random = np.random.default_rng(0)
  return {
    group: (
      random.integers(256, size=(number, 28, 28), dtype=np.uint8),
      (np.arange(number) % 10).astype(np.uint8),
    )
    for group, number in (('train', 60), ('test', 20))
  }


def prepare(folder, sources, form=FORM):
  out = records.Writer(
    folder / 'spoken', dataset='spoken', about=data.about(definition()), inputs='', key=''
  )
  data.prepare(definition(form), sources, out, lambda *_: None)
  out.finish()
  return folder / 'spoken'


@pytest.fixture(scope='module')
def root(raw, tmp_path_factory):
  return prepare(tmp_path_factory.mktemp('prepared'), raw)


def test_prepared_features_and_digits_are_those_of_the_recordings(root):
  prepared = records.open_prepared(root)
  expected = {
    'train': [(s, n) for s in ('ada', 'bob') for n in (1, 2)],
    'validation': [(s, 0) for s in ('ada', 'bob')],
    'test': [('yweweler', n) for n in (0, 1, 2)],
  }
  for split, of_digit in expected.items():
    wanted = [(digit, *one) for digit in range(10) for one in of_digit]
    frames = prepared.field(f'recordings-{split}/frames')
    np.testing.assert_array_equal(
      prepared.field(f'recordings-{split}/digits'), [digit for digit, *_ in wanted]
    )
    for number, one in enumerate(wanted):
      samples = moe_recordings.samples(*one) / 32_768
      found = frames[number].reshape(-1, 40)
      np.testing.assert_array_equal(found, log_mel.features(FORM.log_mel, samples))


def test_prepared_images_are_those_of_the_splits(root):
  prepared = records.open_prepared(root)
  images, labels = _every_digit()['train']
  expected = {'train': images[:40], 'validation': images[40:]}
  for split, own in expected.items():
    found = prepared.field(f'images-{split}/patches')
    np.testing.assert_array_equal(found, questions.patches_of(FORM, own[..., None]))
  np.testing.assert_array_equal(prepared.field('images-validation/digits'), labels[40:])


@pytest.mark.parametrize('split', ['eval_train', 'validation', 'test', 'held_out_pairs'])
def test_what_is_heard_and_seen_gives_the_answer(root, split):
  """Recordings and images are found again in the prepared set by their content."""
  prepared = records.open_prepared(root)
  own = {'eval_train': 'train', 'held_out_pairs': 'validation'}.get(split, split)
  images, heard = {}, {}
  for patches, digit in zip(
    prepared.field(f'images-{own}/patches'), prepared.field(f'images-{own}/digits'), strict=True
  ):
    images[patches.tobytes()] = int(digit)
  frames = prepared.field(f'recordings-{own}/frames')
  for number, digit in enumerate(prepared.field(f'recordings-{own}/digits')):
    by_position = questions.by_position(FORM, frames[number].reshape(-1, 40))
    heard[by_position.tobytes()] = int(digit)
  right = {
    'read_image': lambda a: words.NUMBERS[a],
    'transcribe': lambda a: words.NUMBERS[a],
    'transcribe_two': lambda a, b: f'{words.NUMBERS[a]} {words.NUMBERS[b]}',
    'add_spoken_and_image': lambda a, b: words.NUMBERS[a + b],
    'compare_spoken_and_image': lambda a, b: 'yes' if a > b else 'no',
    'find_spoken_image': lambda a, *b: ('first', 'second', 'third')[b.index(a)],
  }
  counts = dict.fromkeys(right, 0)
  for batch in streams.eval_stream(data, definition(), root, split, 14):
    for row in np.flatnonzero(batch['weights'].any(axis=1)):
      kind = FORM.kinds[batch['task'][row, 0]]
      if kind == 'add_words':
        continue
      modality, operands, place = batch['modality'][row], [], 0
      while place < (modality > 0).sum():
        if modality[place] == AUDIO:
          stop = place + np.argmax(modality[place:] != AUDIO)
          operands.append(heard[batch['frames'][row, place:stop].tobytes()])
          place = stop
        elif modality[place] == 2:
          stop = place + FORM.num_patches
          operands.append(images[batch['patches'][row, place:stop].tobytes()])
          place = stop
        else:
          place += 1
      answer = moe_examples.spoken(batch['targets'][row][batch['weights'][row] > 0])
      assert ' '.join(answer[:-1]) == right[kind](*operands) and answer[-1] == words.END
      counts[kind] += 1
  asked = ['add_spoken_and_image'] if split == 'held_out_pairs' else list(right)
  assert all(counts[kind] for kind in asked) and sum(counts.values()) >= 30


@pytest.mark.parametrize('num_workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_training_rows_are_the_same_from_workers(root, num_workers):
  stream = streams.train_stream(data, definition(), root, 8, seed=3, num_workers=num_workers)
  batch = next(stream)
  stream.close()
  again = streams.train_stream(data, definition(), root, 8, seed=3)
  for name, array in next(again).items():
    np.testing.assert_array_equal(batch[name], array, err_msg=name)
  assert batch['segments'].max() > 1 and set(batch['modality'].ravel()) == {0, 1, 2, 3}


@pytest.mark.slow
def test_recordings_at_another_rate_are_resampled(raw, root, tmp_path):
  pytest.importorskip('scipy')
  moe_recordings.write(tmp_path / 'fsdd', moe_recordings.files(rate=16_000))
  other = prepare(tmp_path, {**raw, 'fsdd': tmp_path / 'fsdd'})
  found, expected = (
    records.open_prepared(one).field('recordings-train/frames') for one in (other, root)
  )
  np.testing.assert_array_equal(found.lengths, expected.lengths)
  loud = expected[5] > expected[5].max() - 0.25  # within a power of ten
  np.testing.assert_allclose(found[5][loud], expected[5][loud], atol=0.02)


def test_other_recordings_than_those_of_the_target_are_refused(raw, tmp_path):
  with pytest.raises(errors.UserError, match=r'with the hash 28094f9d7a75; .*ada, bob, yweweler'):
    prepare(
      tmp_path,
      raw,
      dataclasses.replace(FORM, recordings_sha256=SpokenDigitQuestions().recordings_sha256),
    )
  sha256 = recordings.sha256(recordings.read(raw['fsdd'], lambda *_: None))
  prepare(tmp_path, raw, dataclasses.replace(FORM, recordings_sha256=sha256))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'test_speaker': 'ada'}, "its test_speaker is 'yweweler', and the workload needs 'ada'"),
    ({'num_validation': 2}, 'its num_validation is 1, and the workload needs 2'),
    ({'recordings_sha256': 'other'}, r"recordings_sha256 is '\w{64}', and .* needs 'other'"),
    (
      {'log_mel': dataclasses.replace(FORM.log_mel, hop_sec=0.02)},
      r"log_mel is .*'hop_sec': 0.01.*and the workload needs .*'hop_sec': 0.02.*--overwrite",
    ),
  ],
)
def test_a_set_that_was_prepared_with_other_settings_is_refused(root, change, message):
  with pytest.raises(errors.UserError, match=message):
    data.source(definition(dataclasses.replace(FORM, **change)), root, 'validation')


def test_a_set_without_its_settings_is_refused(raw, tmp_path, monkeypatch):
  monkeypatch.setattr(data.prepared_settings, 'write', lambda out, settings: None)
  root = prepare(tmp_path, raw)
  with pytest.raises(errors.UserError, match='its log_mel is not recorded'):
    data.source(definition(), root, 'validation')


def test_a_split_without_recordings_says_which(raw, tmp_path):
  form = dataclasses.replace(FORM, test_speaker='cora')
  with pytest.raises(errors.UserError, match=r"none for test. The test speaker is 'cora'"):
    prepare(tmp_path, raw, form)


def test_a_digit_that_nobody_speaks_is_named(raw, tmp_path):
  contents = {
    name: one for name, one in moe_recordings.files().items() if not name.startswith('4_yweweler')
  }
  moe_recordings.write(tmp_path / 'fsdd', contents)
  root = prepare(tmp_path, {**raw, 'fsdd': tmp_path / 'fsdd'})
  with pytest.raises(errors.UserError, match=r'transcribe\w* need .* no image or recording of 4'):
    data.source(definition(), root, 'test')


def test_a_source_that_is_not_given_names_the_flags(tmp_path):
  with pytest.raises(errors.UserError, match=r'--source mnist=FOLDER --source fsdd=FOLDER'):
    prepare(tmp_path, None)


def test_an_image_file_that_is_missing_is_named(raw, tmp_path):
  shutil.copytree(raw['mnist'], tmp_path / 'mnist')
  (tmp_path / 'mnist' / 'train-labels-idx1-ubyte.gz').unlink()
  with pytest.raises(errors.UserError, match=r'has no train-labels-idx1-ubyte\.gz'):
    prepare(tmp_path, {**raw, 'mnist': tmp_path / 'mnist'})


def test_a_set_of_other_patches_is_refused(root):
  form = dataclasses.replace(FORM, patch_size=14)
  with pytest.raises(errors.UserError, match=r'\[16, 49\] patches and values, .* needs \[4, 196\]'):
    data.source(definition(form), root, 'train')
