"""Parallel text in each form in which users have it, and what is said of bad text."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_translation as small
import tf_record_files
from local_server import serving

from algorithmic_efficiency import cli, errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import catalog, fetch
from workloads.nmt import parallel_text_data, places, vocabulary
from workloads.nmt import texts as text_of_tokens
from workloads.nmt.data_records import EOS_ID, PADDING_ID
from workloads.nmt.text_files import Pair

pytest.importorskip('sentencepiece')

SIDES = ('inputs', 'targets')
TRAIN_TARGETS_SHA256 = '56d2faf9a5c9086c762ecfb918c493a61f3c4f926685d30851a52b69cace99ec'


def texts(prepared, definition):
  """The pairs of each split as text, decoded from their tokens."""
  root = prepared.root
  sha256 = prepared.manifest['files'][vocabulary.FILE]['sha256']
  decode = vocabulary.of_set(root, sha256, definition.data).decode
  return {
    split: list(
      zip(*(decode(list(prepared.field(f'{split}/{side}'))) for side in SIDES), strict=True)
    )
    for split in prepared.manifest['splits']
  }


def expected(turned=False):
  """The pairs of each split as text."""
  found = {}
  for seed, split in enumerate(small.NAMES):
    english, german = small.sentences(getattr(small.SPLITS, split), seed)
    sides = (german, english) if turned else (english, german)
    found[split] = list(zip(*sides, strict=True))
  return found


def in_one_file(folder, ending, turned=False):
  for split, pairs in expected(turned).items():
    small.write(folder, ['\t'.join(pair) for pair in pairs], f'{small.NAMES[split]}{ending}')
  return folder


def in_usual_names(folder):
  return small.write_all(folder, '', {'train': 'train', 'validation': 'valid', 'test': 'test'})


def with_line_ends_of_windows(folder):
  small.write_all(folder)
  for path in folder.iterdir():
    path.write_bytes(path.read_bytes().replace(b'\n', b'\r\n'))
  return folder


class TestForms:
  @pytest.mark.parametrize(
    'write',
    [
      small.write_all,
      lambda folder: small.write_all(folder, '.gz'),
      lambda folder: small.write_all(folder / 'data' / 'task1' / 'raw').parents[2],
      lambda folder: in_one_file(folder, '.tsv'),
      lambda folder: in_one_file(folder, '.en-de.tsv.gz'),
      lambda folder: in_one_file(folder, '.de-en.tsv', turned=True),
      in_usual_names,
      with_line_ends_of_windows,
    ],
    ids=['plain', 'gz', 'below', 'tsv', 'tsv by name', 'tsv turned', 'usual names', 'windows'],
  )
  def test_text_of_each_form_is_the_same(self, write, tmp_path):
    prepared = small.prepare(small.multi30k(), tmp_path, write(tmp_path / 'source'))
    assert texts(prepared, small.multi30k()) == expected()
    raw = prepared.field('validation/target_text')
    assert [raw[number].tobytes().decode() for number in range(len(raw))] == [
      german for _, german in expected()['validation']
    ]

  def test_official_names_of_wmt_are_read_and_pairs_with_an_empty_sentence_left_out(self, tmp_path):
    """Test sets are SGML files, and the training text has four parts, in their order."""
    train = list(zip(*small.sentences(60, 0), strict=True))
    parts = np.array_split(np.arange(60), 4)
    for name, own in zip(places.names('wmt')['train'], parts, strict=True):
      english, german = zip(*(train[number] for number in own), strict=True)
      small.write(tmp_path / 'source', [*english, '', 'no'], f'{name}.en')
      small.write(tmp_path / 'source', [*german, 'nein', ''], f'{name}.de')
    english, german = small.sentences(9, 1)
    small.write(tmp_path / 'source', english, 'newstest2013.en')
    small.write(tmp_path / 'source', german, 'newstest2013.de')
    for side, language, own in zip(
      ('ref', 'src'), ('en', 'de'), small.sentences(7, 2), strict=True
    ):
      lines = ['<doc>', *(f'<seg id="{i}">{one}</seg>' for i, one in enumerate(own)), '</doc>']
      small.write(tmp_path / 'source', lines, f'newstest2014-deen-{side}.{language}.sgm')
    prepared = small.prepare(small.wmt(), tmp_path, tmp_path / 'source')
    assert texts(prepared, small.wmt()) == expected(turned=True)
    assert prepared.left_out == {'train/inputs': {'pairs with an empty sentence': 8}}

  @pytest.mark.parametrize('content', [b' ', b'\r', b'\t '])
  @pytest.mark.parametrize(('split', 'file'), [('train', 'train.de'), ('test', 'test.en')])
  def test_a_sentence_of_blanks_is_not_empty_as_in_tensorflow_datasets(
    self, split, file, content, tmp_path
  ):
    """So that each split has the number of pairs that AlgoPerf has."""
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    line(source, file, 3, content)
    prepared = small.prepare(small.wmt(), tmp_path, source)
    assert prepared.num_examples(split) == getattr(small.SPLITS, split)
    side = 'inputs' if file.endswith('.de') else 'targets'
    assert prepared.field(f'{split}/{side}')[2].tolist() == [EOS_ID]
    assert prepared.left_out == {}


class TestDownloads:
  def test_text_is_fetched_from_its_official_places(self, tmp_path, monkeypatch):
    """One file as it is, the others from an archive."""
    source = small.write_all(tmp_path / 'source')
    served = tmp_path / 'served'
    served.mkdir()
    with tarfile.open(served / 'rest.tgz', 'w:gz') as archive:
      for path in sorted(source.iterdir()):
        if path.name != 'train.en':
          archive.add(path, f'deep/{path.name}')
    (served / 'train.en').write_bytes((source / 'train.en').read_bytes())
    with serving() as server:
      server.files = {f'/{path.name}': path.read_bytes() for path in served.iterdir()}
      downloads = tuple(
        fetch.Download(
          name=path.name,
          urls=(f'{server.address}/{path.name}',),
          sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
          num_bytes=path.stat().st_size,
        )
        for path in served.iterdir()
      )
      members = {'rest.tgz': [path.name for path in source.iterdir() if path.name != 'train.en']}
      known = places._PLACES['multi30k']
      place = replace(known, downloads=downloads, members=members)
      monkeypatch.setattr(places, '_PLACES', {'multi30k': place})
      prepared = small.prepare(small.multi30k(), tmp_path, None)
      assert texts(prepared, small.multi30k()) == expected()
      assert not (prepared.root / 'downloads').exists()
      wrong = replace(place, members={'rest.tgz': ['train.fr']})
      monkeypatch.setattr(places, '_PLACES', {'multi30k': wrong})
      with pytest.raises(errors.UserError, match=r'rest.tgz must hold train.fr; it does not'):
        small.prepare(small.multi30k(), tmp_path / 'other', None)

  def test_a_set_without_a_place_needs_a_source(self, tmp_path):
    other = replace(small.wmt(), dataset='other')
    with pytest.raises(errors.UserError, match='other cannot be downloaded: name the folder'):
      small.prepare(other, tmp_path, None)

  @pytest.mark.data
  def test_the_files_of_multi30k_are_those_that_are_fetched(self, test_data):
    for download in places._PLACES['multi30k'].downloads:
      content = (test_data / 'multi30k' / download.name).read_bytes()
      assert hashlib.sha256(content).hexdigest() == download.sha256
      assert len(content) == download.num_bytes


BUILDERS = """
  import sys
  import small_translation as small
  import tensorflow_datasets as tfds

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='de-en')]

    def _info(self):
      features = tfds.features.Translation(languages=('de', 'en'))
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {split: self._of(split) for split in small.NAMES}

    def _of(self, split):
      if split not in self.READ:  # of the other builder
        yield 0, {'de': 'falsch', 'en': 'wrong'}
        return
      pairs = zip(*small.sentences(getattr(small.SPLITS, split), list(small.NAMES).index(split)))
      for number, (english, german) in enumerate(pairs):
        yield number, {'de': german, 'en': english}

    def _generate_examples(self):
      raise NotImplementedError

  class TinyWmt17(Tiny):
    READ = ('train',)

  class TinyWmt14(Tiny):
    READ = ('validation', 'test')

  for builder in (TinyWmt17, TinyWmt14):
    builder(data_dir=sys.argv[1]).download_and_prepare(file_format='array_record')
"""


@pytest.fixture(scope='module')
def built(tmp_path_factory):
  return tf_record_files.prepared(BUILDERS, tmp_path_factory.mktemp('tfds'))


class TestTensorFlowDatasets:
  def test_both_builders_are_read(self, built, tmp_path):
    prepared = small.prepare(small.wmt(), tmp_path, built, from_tfds=True)
    found = texts(prepared, small.wmt())
    for split, pairs in expected(turned=True).items():
      assert sorted(found[split]) == sorted(pairs)
    assert prepared.manifest['inputs'] == (
      'TensorFlow Datasets, tiny_wmt17 1.0.0, tiny_wmt14 1.0.0'
    )

  @pytest.mark.parametrize('from_tfds', [False, True])
  def test_a_folder_that_algoperf_has_filled_is_read_with_its_vocabulary(
    self, built, tmp_path, from_tfds
  ):
    """It has TFRecord files, and the vocabulary beside the builders."""
    filled = tmp_path / 'algoperf' / 'wmt'
    for name in ('tiny_wmt17', 'tiny_wmt14'):
      version = f'{name}/de-en/1.0.0'
      tf_record_files.as_tf_records(built / version, filled / version)
    lines = [side for pair in expected()['train'] for side in pair]
    options = {**vocabulary.GIVEN_OPTIONS, 'model_type': 'bpe'}
    model = vocabulary.train(iter(lines), 'here', 60, options)
    (filled / 'wmt_sentencepiece_model').write_bytes(model)
    prepared = small.prepare(small.wmt(), tmp_path, filled, from_tfds=from_tfds)
    assert (prepared.root / 'sentencepiece.model').read_bytes() == model
    found = texts(prepared, small.wmt())
    for split, pairs in expected(turned=True).items():
      assert sorted(found[split]) == sorted(pairs)

  def test_text_that_is_not_utf8_is_told_with_its_example(self, built, tmp_path):
    for name in ('tiny_wmt17', 'tiny_wmt14'):
      version = f'{name}/de-en/1.0.0'
      folder = tf_record_files.as_tf_records(built / version, tmp_path / 'source' / version)
    (path,) = folder.glob('*validation*')
    path.write_bytes(path.read_bytes().replace(b'auf', b'a\xfcf', 1))
    said = (
      r"tiny_wmt14.*, validation, example \d: the feature 'de' must be UTF-8; it is not \(invalid"
    )
    with pytest.raises(errors.UserError, match=said):
      small.prepare(small.wmt(), tmp_path, tmp_path / 'source')
    assert [path.name for path in tmp_path.iterdir()] == ['source']


class TestVocabulary:
  def test_it_is_trained_alike_each_time_and_has_the_numbers_of_algoperf(self, tmp_path):
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    content = []
    for name in ('one', 'two'):
      prepared = small.prepare(small.wmt(), tmp_path / name, source)
      content.append((prepared.root / 'sentencepiece.model').read_bytes())
    assert content[0] == content[1]
    import sentencepiece

    found = sentencepiece.SentencePieceProcessor(model_proto=content[0])
    numbers = (found.unk_id(), found.bos_id(), found.eos_id(), found.pad_id())
    assert numbers == (0, 1, 2, -1)
    assert found.get_piece_size() == 60

  def pairs(self, number):
    """Pairs of 10 bytes with their line breaks."""
    return [Pair(f'ä{place:03}', f'{place:03}', Path(), place) for place in range(number)]

  @pytest.mark.parametrize(('num_bytes', 'taken'), [(1, 1), (10, 1), (11, 2), (20, 2), (999, 5)])
  def test_training_takes_no_more_text_than_it_needs(self, num_bytes, taken, monkeypatch):
    monkeypatch.setattr(vocabulary, '_TRAINING_BYTES', num_bytes)
    assert list(vocabulary.first_pairs(self.pairs(5))) == self.pairs(5)[:taken]
    assert len(vocabulary.shuffled_pairs(self.pairs(5))) == taken

  def test_the_pairs_that_it_takes_come_from_all_corpora(self, monkeypatch):
    """They are the first of an order which the numbers of the pairs decide alone."""
    monkeypatch.setattr(vocabulary, '_TRAINING_BYTES', 10 * 100)
    monkeypatch.setattr(vocabulary, '_BLOCK_PAIRS', 7)
    taken = [pair.line for pair in vocabulary.shuffled_pairs(self.pairs(1_000))]
    assert len(set(taken)) == 100 and taken != sorted(taken)
    assert min(np.histogram(taken, 4, (0, 1_000))[0]) > 10
    monkeypatch.setattr(vocabulary, '_TRAINING_BYTES', 10 * 30)
    assert [pair.line for pair in vocabulary.shuffled_pairs(self.pairs(1_000))] == taken[:30]

  def test_it_knows_the_words_of_each_corpus(self, tmp_path, monkeypatch):
    """Although the first corpus alone has as much text as training takes."""
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    for name in ('train.en', 'train.de'):
      (source / name).unlink()
    for number, name in enumerate(places.names('wmt')['train']):
      for language in ('en', 'de'):
        small.write(source, [f'{"wxyz"[number] * 5} {language}'] * 15, f'{name}.{language}')
    monkeypatch.setattr(vocabulary, '_TRAINING_BYTES', 15 * 18)
    definition = small.wmt(vocab_size=16)
    prepared = small.prepare(definition, tmp_path, source)
    sha256 = prepared.manifest['files'][vocabulary.FILE]['sha256']
    found = vocabulary.of_set(prepared.root, sha256, definition.data)
    assert not any(PADDING_ID in one for one in found.encode(['w', 'x', 'y', 'z']))

  @pytest.mark.parametrize(
    ('content', 'changes', 'said'),
    [
      (b'no model', {}, r'sentencepiece.model is no SentencePiece model'),
      (None, {'vocab_size': 61}, r'must be a SentencePiece model of 61 pieces; it has 60'),
      (None, {'vocabulary_sha256': 'ab' * 32}, r'with the hash abababababab; its hash is'),
    ],
  )
  def test_one_that_does_not_fit_is_refused(self, content, changes, said, tmp_path):
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    if content is None:
      lines = [side for pair in expected()['train'] for side in pair]
      content = vocabulary.train(iter(lines), source, 60, vocabulary.GIVEN_OPTIONS)
    (source / 'sentencepiece.model').write_bytes(content)
    with pytest.raises(errors.UserError, match=said):
      small.prepare(small.wmt(**changes), tmp_path, source)
    assert not list(tmp_path.glob('wmt*'))

  def test_one_with_other_numbers_is_refused(self, tmp_path):
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    lines = [side for pair in expected()['train'] for side in pair]
    options = {**vocabulary.GIVEN_OPTIONS, 'bos_id': 2, 'eos_id': 1}
    content = vocabulary.train(iter(lines), source, 60, options)
    (source / 'sentencepiece.model').write_bytes(content)
    with pytest.raises(errors.UserError, match=r'must number the end of a sentence 2.* it has 1'):
      small.prepare(small.wmt(), tmp_path, source)

  def test_more_pieces_than_the_text_can_give_are_refused(self, tmp_path):
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    said = r'of 5,000 pieces cannot be trained on the text of .*source: .* at most \d\d\. Give more'
    with pytest.raises(errors.UserError, match=said):
      small.prepare(small.wmt(vocab_size=5_000), tmp_path, source)
    assert not list(tmp_path.glob('wmt*'))

  def test_a_set_without_a_shipped_one_is_told(self, tmp_path):
    other = replace(small.multi30k(), dataset='other')
    with pytest.raises(errors.UserError, match=r'other.model cannot be read'):
      small.prepare(other, tmp_path, in_usual_names(tmp_path / 'source'))


def cut(folder, name, number):
  path = folder / name
  path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:number]))


def line(folder, name, number, content):
  path = folder / name
  lines = path.read_bytes().splitlines(keepends=True)
  lines[number - 1] = content + b'\n'
  path.write_bytes(b''.join(lines))


BAD_TEXT = {
  'unequal': (
    lambda folder: cut(folder, 'train.de', 58),
    r'train.en and .*train.de must have as many sentences .*; train.de ends after 58, and train.en '
    r'has another in line 59',
  ),
  'empty': (lambda folder: cut(folder, 'val.en', 0), r'val.en must hold text; it is empty'),
  'no UTF-8': (
    lambda folder: line(folder, 'train.de', 7, b'\xe4 Mann'),
    r'train.de, line 7 must be UTF-8; it is not \(invalid continuation byte at byte 0\)',
  ),
  'language': (
    lambda folder: [path.rename(path.with_suffix('.fr')) for path in folder.glob('*.de')],
    r'must hold the validation text in the languages en and de: NAME.en and NAME.de, .* NAME is '
    r'val, or validation in their place; .* has them in the languages en, fr\.',
  ),
  'no files': (
    lambda folder: [path.unlink() for path in folder.iterdir()],
    r'must hold the validation text .* has none of them\.',
  ),
  'empty sentence': (
    lambda folder: line(folder, 'val.de', 3, b''),
    r'needs 9 pairs in its validation split; the text has 8 without an empty sentence\. '
    r'1 more have one, the first in .*val.en, line 3\.',
  ),
  'long sentence': (
    lambda folder: line(folder, 'val.de', 4, b'ein Mann ' * 40),
    r'val.en, line 4: a sentence of the validation text must have at most 64 tokens; one of this '
    r'pair has \d\d+',
  ),
  'documents': (
    lambda folder: [line(folder, 'train.en', number, b'a man ' * 60) for number in range(1, 40)],
    r'Most sentences of the train text must have at most 64 tokens; 39 of 60 pairs',
  ),
  'fewer': (
    lambda folder: [cut(folder, f'val.{language}', 8) for language in ('en', 'de')],
    r'needs 9 pairs in its validation split; the text has 8 without an empty sentence',
  ),
  'more': (
    lambda folder: [
      small.write(folder, small.sentences(61, 0)[side], f'train.{language}')
      for side, language in enumerate(('en', 'de'))
    ],
    r'needs 60 pairs in its train split; the text has 61',
  ),
}


class TestBadText:
  @pytest.mark.parametrize('case', BAD_TEXT)
  def test_it_is_told_with_file_and_line_and_leaves_nothing_behind(self, case, tmp_path):
    spoil, said = BAD_TEXT[case]
    source = small.write_all(tmp_path / 'source')
    spoil(source)
    with pytest.raises(errors.UserError, match=said):
      small.prepare(small.multi30k(), tmp_path, source)
    assert [path.name for path in tmp_path.iterdir()] == ['source']

  def test_damaged_files_are_told(self, tmp_path):
    source = small.write_all(tmp_path / 'source', '.gz')
    path = source / 'train.en.gz'
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(errors.UserError, match=r'train.en.gz is truncated or damaged'):
      small.prepare(small.multi30k(), tmp_path, source)
    assert [path.name for path in tmp_path.iterdir()] == ['source']

  def test_a_line_without_a_tab_is_told(self, tmp_path):
    source = in_one_file(tmp_path / 'source', '.tsv')
    line(source, 'train.tsv', 5, b'one sentence')
    with pytest.raises(errors.UserError, match=r'train.tsv, line 5 must have two .* it has 0 tabs'):
      small.prepare(small.multi30k(), tmp_path, source)

  def test_other_text_than_that_of_the_target_is_refused(self, tmp_path):
    source = small.write_all(tmp_path / 'source')
    with pytest.raises(errors.UserError, match='is defined on text with the SHA-256 abababababab'):
      small.prepare(small.multi30k(text_sha256='ab' * 32), tmp_path, source)

  def test_a_set_of_other_text_than_that_of_the_target_is_not_opened(self, tmp_path):
    """A definition that accepts any text opens a set of known text, too."""
    source = small.write_all(tmp_path / 'source')
    own = ''.join(
      f'{english}\t{german}\n' for pairs in expected().values() for english, german in pairs
    )
    known = hashlib.sha256(own.encode()).hexdigest()
    definitions = [small.multi30k(text_sha256=sha256) for sha256 in (known, '', 'ab' * 32)]
    prepared = [
      small.prepare(one, tmp_path / str(number), source)
      for number, one in enumerate(definitions[:2])
    ]
    for definition, opened in ((0, 0), (1, 0), (1, 1)):
      parallel_text_data.loader(definitions[definition], prepared[opened].root, 'train')
    for definition, opened in ((0, 1), (2, 0)):
      with pytest.raises(errors.UserError, match=r'must have been prepared with text_sha256='):
        parallel_text_data.loader(definitions[definition], prepared[opened].root, 'train')

  def test_a_file_is_no_folder(self, tmp_path):
    source = small.write_all(tmp_path / 'source') / 'train.en'
    with pytest.raises(errors.UserError, match=r'must be a folder; .*train.en is a file'):
      small.prepare(small.multi30k(), tmp_path, source)

  def test_algoperf_leaves_long_pairs_out_and_the_manifest_counts_them(self, tmp_path):
    source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
    line(source, 'test.en', 2, b'a man ' * 90)
    for number in (5, 9, 11):
      line(source, 'train.de', number, b'ein Mann ' * 90)
    prepared = small.prepare(small.wmt(), tmp_path, source)
    for split, numbers in (('test', [1]), ('train', [4, 8, 10])):
      lengths = [prepared.field(f'{split}/{side}').lengths for side in SIDES]
      assert [np.flatnonzero(one == 0).tolist() for one in lengths] == [numbers, numbers]
    reason = 'pairs with a sentence of more than 90 tokens'
    assert prepared.left_out == {'test/inputs': {reason: 1}, 'train/inputs': {reason: 3}}

  def test_the_segments_of_sgml_are_named_by_their_lines(self, tmp_path):
    source = small.write_all(tmp_path / 'source')
    for language in ('en', 'de'):
      (source / f'test_2016_flickr.{language}').unlink()
    for side, language, words in (('src', 'en', 'a man ' * 60), ('ref', 'de', 'ein Mann')):
      own = ['<doc>', '<p>', *['<seg id="1">ein Mann</seg>', ''] * 3, f'<seg id="4">{words}</seg>']
      small.write(source, own, f'test_2016_flickr-{side}.{language}.sgm')
    said = r'test_2016_flickr-src.en.sgm, line 9: a sentence of the test text must have at most 64'
    with pytest.raises(errors.UserError, match=said):
      small.prepare(small.multi30k(), tmp_path, source)


def test_the_command_says_what_was_left_out(tmp_path, capsys, monkeypatch):
  source = small.write_all(tmp_path / 'source', names={**small.NAMES, 'test': 'test'})
  line(source, 'train.de', 5, b'ein Mann ' * 90)
  monkeypatch.setattr(catalog, 'definition_for', lambda name: small.wmt())
  command = ['data', 'prepare', 'wmt', '--source', str(source), '--data_dir', str(tmp_path)]
  assert cli.main(command) == 0
  said = 'Left out of train: 1 pairs with a sentence of more than 90 tokens.'
  assert said in capsys.readouterr().out


@pytest.mark.data
def test_the_text_of_multi30k_is_prepared_as_it_was(test_data, tmp_path):
  """Its hash is that of the target, and one pair is too long."""
  prepared = small.prepare(registry.workload('multi30k'), tmp_path, test_data / 'multi30k')
  too_long = {'pairs with a sentence of more than 64 tokens': 1}
  assert prepared.left_out == {'train/inputs': too_long}
  stored = hashlib.sha256((prepared.root / 'train.targets.bin').read_bytes()).hexdigest()
  assert stored == TRAIN_TARGETS_SHA256


def test_a_set_may_have_no_test_split(tmp_path):
  source = small.write_all(tmp_path / 'source')
  (source / 'test_2016_flickr.en').unlink()
  definition = replace(small.multi30k(), splits=replace(small.SPLITS, test=None))
  definition = replace(definition, target=replace(definition.target, test=None))
  prepared = small.prepare(definition, tmp_path, source)
  assert prepared.manifest['splits'] == {'validation': 9, 'train': 60}
  assert len(text_of_tokens.raw_references(prepared.root)) == 9


def test_a_definition_with_a_single_builder_is_told(tmp_path):
  definition = replace(small.wmt(), tfds='tiny_wmt17')
  with pytest.raises(errors.UserError, match=r"must name two builders .* 'train' and 'heldout'"):
    small.prepare(definition, tmp_path, small.write_all(tmp_path / 'source'))


class TestNoise:
  def pairs(self, tmp_path, rate, seed=0):
    definition = small.multi30k(noise_rate=rate, noise_seed=seed)
    source = tmp_path / 'source'
    if not source.exists():
      small.write_all(source)
    prepared = small.prepare(definition, tmp_path / f'{rate} {seed}', source)
    return texts(prepared, definition)

  def test_words_of_training_targets_are_replaced_at_its_rate_and_nothing_else(self, tmp_path):
    clean, noisy = expected(), self.pairs(tmp_path, 0.25)
    assert noisy['validation'] == clean['validation'] and noisy['test'] == clean['test']
    words = [
      (one, other)
      for (_, german), (_, changed) in zip(clean['train'], noisy['train'], strict=True)
      for one, other in zip(german.split(), changed.split(), strict=True)
    ]
    assert [english for english, _ in noisy['train']] == [english for english, _ in clean['train']]
    share = np.mean([one != other for one, other in words])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(words))
    assert {other for _, other in words} <= {one for one, _ in words}

  def test_a_word_replaced_at_a_rate_is_replaced_alike_at_a_higher_one(self, tmp_path):
    clean = [german.split() for _, german in expected()['train']]
    some, more = (
      [german.split() for _, german in self.pairs(tmp_path, rate)['train']] for rate in (0.2, 0.6)
    )
    for one, few, many in zip(clean, some, more, strict=True):
      for word, at_few, at_many in zip(one, few, many, strict=True):
        assert at_few in (word, at_many)
    assert some != clean and more != some

  def test_all_words_or_other_ones_by_seed(self, tmp_path):
    clean = expected()['train']
    first, other = (self.pairs(tmp_path, 1.0, seed)['train'] for seed in (0, 1))
    assert first != other
    for (_, german), (_, changed) in zip(clean, first, strict=True):
      assert all(one != two for one, two in zip(german.split(), changed.split(), strict=True))


class TestReplacedSource:
  def test_its_sentences_stand_for_those_of_the_training_source(self, tmp_path):
    source = small.write_all(tmp_path / 'source')
    line(source, 'train.en', 2, b'')  # the pair would be left out; its replacement counts
    replaced = [f'red dog {number}' for number in range(60)]
    small.write(source, replaced, 'back.en')
    definition = small.multi30k(train_source='back.en')
    found = texts(small.prepare(definition, tmp_path, source), definition)
    german = [german for _, german in expected()['train']]
    assert found['train'] == list(zip(replaced, german, strict=True))
    assert found['validation'] == expected()['validation']

  @pytest.mark.parametrize('number', [59, 61])
  def test_it_must_have_as_many_lines(self, number, tmp_path):
    source = small.write_all(tmp_path / 'source')
    small.write(source, ['red dog'] * number, 'back.en')
    with pytest.raises(errors.UserError, match=r'back.en must have a line for each pair'):
      small.prepare(small.multi30k(train_source='back.en'), tmp_path, source)

  def test_it_must_be_there(self, tmp_path):
    source = small.write_all(tmp_path / 'source')
    with pytest.raises(errors.UserError, match=r'must hold back.en; .* does not'):
      small.prepare(small.multi30k(train_source='back.en'), tmp_path, source)
    assert [path.name for path in tmp_path.iterdir()] == ['source']


def test_an_interrupted_preparation_continues(tmp_path, monkeypatch):
  """What was complete is not written again."""
  from workloads.nmt import preparation

  source = small.write_all(tmp_path / 'source')
  write, calls = preparation._write, []

  def interrupted(definition, split, *rest):
    calls.append(split)
    if calls.count(split) == 1 and split == 'train':
      raise KeyboardInterrupt
    write(definition, split, *rest)

  monkeypatch.setattr(preparation, '_write', interrupted)
  with pytest.raises(KeyboardInterrupt):
    small.prepare(small.multi30k(), tmp_path, source)
  partial = tmp_path / 'multi30k.partial'
  before = (partial / 'test.inputs.bin').stat().st_mtime_ns
  prepared = small.prepare(small.multi30k(), tmp_path, source)
  assert (prepared.root / 'test.inputs.bin').stat().st_mtime_ns == before
  assert texts(prepared, small.multi30k()) == expected()
