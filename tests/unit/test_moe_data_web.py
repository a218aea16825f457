"""Text, captions and speech: prepared from raw files, mixed and packed; bad input is named."""

from __future__ import annotations

import dataclasses
import json
import shutil

import moe_examples
import moe_recordings
import moe_web
import numpy as np
import pytest
from moe_web import DATA

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.data import records, streams
from workloads.multimodal_moe import captions, librispeech, log_mel, questions
from workloads.multimodal_moe import web_mixture_data as data
from workloads.multimodal_moe.data_records import AUDIO, IMAGE, TEXT, WebMixture

for _package in ('pyarrow', 'tiktoken', 'PIL', 'soundfile'):
  pytest.importorskip(_package)

SPLITS = Splits(train=44, eval_train=22, validation=10, test=10)


def definition(form=DATA):
  return moe_examples.definition(form, SPLITS, dataset='web_mixture', bundled=False, probes={})


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
  return moe_web.write(tmp_path_factory.mktemp('raw'))


@pytest.fixture(scope='module')
def root(raw, tmp_path_factory):
  return moe_web.prepare(definition(), tmp_path_factory.mktemp('prepared'), raw)


def examples(root, split):
  """For each example of a split: its kind, and its modality, text, patches and frames."""
  for batch in streams.eval_stream(data, definition(), root, split, 4):
    for row in np.flatnonzero(batch['weights'].any(axis=1)):
      modality = batch['modality'][row]
      where = {one: np.flatnonzero(modality == one) for one in (TEXT, IMAGE, AUDIO)}
      targets = batch['targets'][row][batch['weights'][row] > 0]
      yield (
        DATA.kinds[batch['task'][row, 0]],
        modality[modality > 0],
        batch['inputs'][row][where[TEXT]].tolist(),
        targets.tolist(),
        batch['patches'][row][where[IMAGE]],
        batch['frames'][row][where[AUDIO]],
      )


SEPARATOR = 258


@pytest.mark.parametrize('split', ['eval_train', 'validation', 'test'])
def test_examples_are_the_separator_what_is_given_and_an_answer(root, split):
  encode = moe_web.tokenizer().encoder()
  number = dict.fromkeys(DATA.kinds, 0)
  for kind, modality, text, targets, patches, frames in examples(root, split):
    given = {'text': [], 'caption': [IMAGE] * 4, 'transcript': [AUDIO] * len(frames)}[kind]
    assert modality.tolist() == [TEXT, *given, *[TEXT] * (len(targets) - 1)]
    assert text == [SEPARATOR, *targets[:-1]]
    assert len(patches) == 4 * (kind == 'caption')
    assert bool(len(frames)) == (kind == 'transcript')
    if kind == 'caption':
      texts = moe_web.CAPTIONS[: 2 if split == 'eval_train' else 1]
      assert targets in [encode(one).tolist() for one in texts]
    if kind == 'transcript':
      part = {'eval_train': 'train-clean', 'validation': 'dev-clean', 'test': 'test-clean'}[split]
      spoken = bytes(b''.join(moe_web.tokenizer().tokens[token] for token in targets)).decode()
      assert spoken.startswith(f'the {part}') and targets[-1] == SEPARATOR
    number[kind] += 1
  expected = {'validation': DATA.num_validation, 'test': DATA.num_test}
  if split in expected:
    assert number == dict(expected[split])


def test_pieces_are_those_of_the_documents_and_no_document_is_in_two_splits(root):
  """Each piece is one of a document's; tokens of a document are unique by its number of words."""
  prepared = records.open_prepared(root)
  encode = moe_web.tokenizer().encoder()
  pieces_of = {}
  for number, document in enumerate(moe_web.documents()):
    tokens = encode(document)
    for start in range(0, len(tokens), DATA.row_length):
      pieces_of.setdefault(tokens[start : start + DATA.row_length].tobytes(), set()).add(number)
  met = {}
  for split in ('train', 'validation', 'test'):
    tokens = prepared.field(f'text-{split}/tokens')
    assert len(tokens) == dict(getattr(DATA, f'num_{split}'))['text']
    met[split] = [pieces_of[tokens[i].tobytes()] for i in range(len(tokens))]
  unique = {split: {min(one) for one in found if len(one) == 1} for split, found in met.items()}
  assert not unique['train'] & unique['validation'] and not unique['train'] & unique['test']
  assert not unique['validation'] & unique['test']
  assert len(unique['train']) > 5 and len(unique['validation']) > 1


def test_images_are_central_squares_and_captions_name_theirs(root):
  prepared = records.open_prepared(root)
  patches = prepared.field('images-train/patches')
  np.testing.assert_array_equal(prepared.field('captions-train/image'), [0, 0, 1, 1, 2, 2, 3, 3])
  for number in range(4):
    expected = captions.square('it', moe_web.png(moe_web.image(number)[:, 2:14]), 8)
    np.testing.assert_array_equal(patches[number], questions.patches_of(DATA, expected[None])[0])


def test_speech_has_the_features_of_its_recordings(root):
  frames = records.open_prepared(root).field('speech-train/frames')
  parts = [('train-clean-100', number) for number in range(4)]
  parts += [('train-clean-360', number) for number in range(2)]
  for index, (part, number) in enumerate(parts):
    samples = moe_recordings.samples(number, 'ada', len(part)) / 32_768
    found = frames[index].reshape(-1, 10)
    np.testing.assert_allclose(found, log_mel.features(DATA.log_mel, samples), atol=1e-6)


def test_training_rows_mix_the_three_sources(root):
  stream = streams.train_stream(data, definition(), root, 16, seed=0)
  batch = next(stream)
  given = batch['segments'] > 0
  assert batch['segments'].max() > 1
  assert set(batch['task'][given]) == {0, 1, 2} and set(batch['modality'].ravel()) == {0, 1, 2, 3}
  begins = given & (batch['positions'] == 0)
  assert (batch['inputs'][begins] == SEPARATOR).all() and (batch['modality'][begins] == TEXT).all()


def test_generated_batches_have_the_form_of_real_ones(root):
  real = next(streams.train_stream(data, definition(), root, 8, seed=0))
  generated = data.fake_batch(definition(), 8, 0)
  assert {name: (a.shape, a.dtype) for name, a in real.items()} == {
    name: (a.shape, a.dtype) for name, a in generated.items()
  }
  assert set(generated['task'][generated['segments'] > 0]) == {0, 1, 2}


def test_the_stated_size_is_about_that_of_the_full_set():
  about = data.about(definition(WebMixture()))
  assert 70e9 < about.num_bytes < 100e9 and about.sources == ('text', 'captions', 'speech')


def test_an_interrupted_preparation_goes_on(raw, tmp_path, monkeypatch):
  """What is complete is not made again, and the set is the same."""
  made = []
  original = captions.square

  def failing(name, content, size):
    made.append(name)
    if len(made) == 5:
      raise KeyboardInterrupt
    return original(name, content, size)

  monkeypatch.setattr(captions, 'square', failing)
  with pytest.raises(KeyboardInterrupt):
    moe_web.prepare(definition(), tmp_path, raw)
  root = moe_web.prepare(definition(), tmp_path, raw)
  validation = [name for name in made if 'validation' in name]
  assert len(validation) == len(set(validation)) == 3
  whole = moe_web.prepare(definition(), tmp_path / 'whole', raw)
  contents = [records.read_manifest(one)['files'] for one in (root, whole)]
  assert contents[0] == contents[1]


def prepare_as_the_command_does(sources, data_dir):
  return preparing.prepare(
    definition(),
    data_dir,
    source=sources,
    from_tfds=False,
    overwrite=False,
    progress=lambda *_: None,
  )


def test_a_set_is_prepared_and_verified_as_the_commands_do(raw, tmp_path):
  prepared = prepare_as_the_command_does(raw, tmp_path)
  assert 'LibriSpeech' in prepared.manifest['origin']
  read = preparing.verify(definition(), tmp_path, lambda *_: None)
  assert read == {'num_files': len(prepared.manifest['files']), 'num_bytes': prepared.num_bytes}


# Bad input.


def test_one_source_that_is_not_given_is_named_with_its_flag(raw, tmp_path):
  with pytest.raises(errors.UserError, match='--source captions=PATH'):
    prepare_as_the_command_does({'text': raw['text'], 'speech': raw['speech']}, tmp_path)


def with_entries(raw, tmp_path, change):
  """The sources with another `captions.json`: changed in place, or what `change` returns."""
  shutil.copytree(raw['captions'], tmp_path / 'captions')
  path = tmp_path / 'captions' / 'captions.json'
  content = json.loads(path.read_text())
  changed = change(content)
  path.write_text(json.dumps(content if changed is None else changed))
  return {**raw, 'captions': tmp_path / 'captions'}


BAD_CAPTIONS = {
  'absent image': (
    lambda content: content['images'][1].update(file='photos/none.png'),
    r"file of image 1 of .*captions\.json must be .*; 'photos/none\.png' is absent",
  ),
  'no captions': (
    lambda content: content['images'][2].update(captions=[]),
    r'captions of image 2 of .* must be a list of texts; they are \[\]',
  ),
  'few captions': (
    lambda content: content['images'][0].update(captions=['One.']),
    r'must have 2 captions at least; .*train_0\.png has 1',
  ),
  'split': (
    lambda content: content['images'][0].update(split='val'),
    r"split of image 0 of .*'val'",
  ),
  'form': (lambda content: [1], r'an object with a list `images`; its content is \[1\]'),
  'entry': (lambda content: {'images': [3]}, r'image 0 of .* must be an object with file'),
  'number': (
    lambda content: content['images'].clear(),
    r'split train must have 8 examples of caption; .*captions gives 0',
  ),
  'long': (
    lambda content: content['images'][0].update(captions=['a ' * 50, 'b']),
    r'fit in a row of 64 positions\. A caption of .*train_0\.png .* take 105',
  ),
}


@pytest.mark.parametrize('case', BAD_CAPTIONS)
def test_a_caption_file_that_does_not_fit_is_named(raw, tmp_path, case):
  change, message = BAD_CAPTIONS[case]
  sources = with_entries(raw, tmp_path, change)
  with pytest.raises(errors.UserError, match=message):
    moe_web.prepare(definition(), tmp_path, sources)


@pytest.mark.parametrize('content', [b'no image', b'cut'])
def test_a_damaged_image_is_named(raw, tmp_path, content):
  sources = with_entries(raw, tmp_path, lambda content: content)
  path = tmp_path / 'captions' / 'photos' / 'train_1.png'
  path.write_bytes(path.read_bytes()[:200] if content == b'cut' else content)
  with pytest.raises(errors.UserError, match=r'image .*train_1\.png is damaged'):
    moe_web.prepare(definition(), tmp_path, sources)


def test_images_of_other_modes_and_orientations_are_read():
  from PIL import Image

  pixels = moe_web.image(0)
  turned = Image.Exif()
  turned[0x0112] = 6  # the camera was held upright
  upright = captions.square('it', moe_web.png(np.rot90(pixels, -1)), 8)
  found = captions.square('it', moe_web.png(pixels, 'PNG', exif=turned), 8)
  np.testing.assert_array_equal(found, upright)
  gray = captions.square('it', moe_web.png(pixels[:, :, 0]), 8)
  assert gray.shape == (8, 8, 3) and (gray[..., 0] == gray[..., 1]).all()


def test_a_folder_without_captions_says_what_it_must_hold(raw, tmp_path):
  with pytest.raises(errors.UserError, match=r"captions\.json, or .*'coco_captions'; .* neither"):
    moe_web.prepare(definition(), tmp_path, {**raw, 'captions': raw['speech']})


def bad_speech(raw, tmp_path, change):
  shutil.copytree(raw['speech'], tmp_path / 'speech')
  change(tmp_path / 'speech' / 'LibriSpeech' / 'dev-clean' / '7' / '11')
  return {**raw, 'speech': tmp_path / 'speech'}


def stereo(chapter):
  audio = moe_recordings.samples(1, 'ada', 1)[:400]
  (chapter / '7-11-0001.wav').write_bytes(moe_recordings.wav(audio, channels=2))


BAD_SPEECH = {
  'absent': (
    lambda chapter: (chapter / '7-11-0001.wav').unlink(),
    r'7-11\.trans\.txt must have a recording beside it; 7-11-0001\.flac is absent',
  ),
  'no text': (
    lambda chapter: (chapter / '7-11.trans.txt').write_text('7-11-0000 ONE\n7-11-0001\n'),
    r"must be a name and a text; line 2 of .* is '7-11-0001'",
  ),
  'damaged': (
    lambda chapter: (chapter / '7-11-0001.wav').write_bytes(b'noise'),
    r'recording .*7-11-0001\.wav is damaged or no audio file',
  ),
  'stereo': (stereo, r'one channel and some samples; .*7-11-0001\.wav has 2 and 200'),
  'part': (
    lambda chapter: shutil.rmtree(chapter.parents[1]),
    r'has no \*\.trans\.txt below a folder dev-clean\*',
  ),
  'number': (
    lambda chapter: (chapter / '7-11.trans.txt').write_text('7-11-0000 ONE\n'),
    r'validation must have 2 examples of transcript; .*speech gives 1',
  ),
  'long': (
    lambda chapter: (chapter / '7-11.trans.txt').write_text(
      f'7-11-0000 ONE\n7-11-0001 {"A" * 70}\n'
    ),
    r'The transcript of .*7-11-0001\.wav and what it is about take \d+',
  ),
}


@pytest.mark.parametrize('case', BAD_SPEECH)
def test_speech_that_does_not_fit_is_named(raw, tmp_path, case):
  change, message = BAD_SPEECH[case]
  with pytest.raises(errors.UserError, match=message):
    moe_web.prepare(definition(), tmp_path, bad_speech(raw, tmp_path, change))


def test_too_little_text_says_how_much_there_is(raw, tmp_path):
  few = (('text', 10_000), *DATA.num_train[1:])
  with pytest.raises(errors.UserError, match=r'train needs 10,000 pieces .* have \d+ left for it'):
    moe_web.prepare(definition(), tmp_path, raw, num_train=few)


def test_a_vocabulary_of_another_size_is_refused(raw, tmp_path):
  with pytest.raises(errors.UserError, match=r'must hold the 300 tokens .*; it holds 259'):
    moe_web.prepare(definition(), tmp_path, raw, vocab_size=300)


def test_a_source_that_is_not_given_names_the_flags(tmp_path):
  message = '--source text=FOLDER --source captions=FOLDER --source speech=FOLDER'
  with pytest.raises(errors.UserError, match=message):
    moe_web.prepare(definition(), tmp_path, None)


def test_a_mixture_that_names_an_absent_source_is_refused(root):
  form = dataclasses.replace(DATA, weights=(*DATA.weights, ('video', 1.0)))
  with pytest.raises(errors.UserError, match=r"no source of questions 'video'. Known: .*text"):
    data.source(definition(form), root, 'train')


def test_the_packages_that_preparation_needs_are_named(monkeypatch, raw):
  import importlib.util

  real = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: None if name in ('soundfile', 'PIL') else real(name)
  )
  utterance = librispeech.Utterance(path=raw['text'], transcript='a')
  with pytest.raises(errors.UserError, match=r'recordings needs soundfile.*\[audio\]'):
    librispeech.frames(utterance, DATA.log_mel)
  with pytest.raises(errors.UserError, match=r'images needs PIL.*\[data\]'):
    captions.square('it', b'', 8)


class FakeBuilder:
  """What `captions` asks of a builder of TensorFlow Datasets."""

  def num_examples(self, split):
    return {'train': 2, 'val': 1, 'test': 1}[split]

  def encoded(self, split, names, raw):
    assert raw == (('image',) if 'image' in names else ())
    for number in range(self.num_examples(split)):
      whole = {
        'image': moe_web.png(moe_web.image(number)),
        'image/filename': f'{split}_{number}.jpg'.encode(),
        'captions': {'id': np.arange(2), 'text': np.array([b'One.', b'Two.'], object)},
      }
      yield {name: whole[name] for name in names}


def test_images_of_a_builder_are_those_of_its_split():
  found = captions.OfBuilder(FakeBuilder())
  assert found.num_images('train') == 2
  assert list(found.captions('validation')) == [('val_0.jpg', ['One.', 'Two.'])]
  files = list(found.files('train'))
  assert files == [(f'train_{i}.jpg', moe_web.png(moe_web.image(i))) for i in range(2)]


@pytest.mark.parametrize('use', ['about', 'source'])
def test_weights_that_name_an_absent_source_are_refused(root, use):
  form = dataclasses.replace(DATA, weights=(('text', 0.5), ('captions', 0.5)))
  with pytest.raises(errors.UserError, match=r"'captions'.*'caption'"):
    if use == 'about':
      data.about(definition(form))
    else:
      data.source(definition(form), root, 'train')


@pytest.mark.parametrize('weight', [0.0, -1.0, float('nan')])
def test_a_weight_must_be_positive(root, weight):
  form = dataclasses.replace(DATA, weights=(('text', 0.5), ('caption', weight)))
  with pytest.raises(errors.UserError, match='weight of a source must be a positive number'):
    data.source(definition(form), root, 'train')


def test_each_split_has_a_number_for_each_source():
  with pytest.raises(ValueError, match=r'num_test must have .*; it has those of text, captions'):
    dataclasses.replace(DATA, num_test=(('text', 1), ('captions', 2)))


def test_a_set_with_other_features_is_refused(root):
  form = dataclasses.replace(DATA, log_mel=dataclasses.replace(DATA.log_mel, window_sec=0.02))
  with pytest.raises(errors.UserError, match=r"'window_sec': 0.025.*needs .*'window_sec': 0.02,"):
    data.source(definition(form), root, 'validation')
