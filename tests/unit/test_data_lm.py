"""Text as windows of tokens: prepared from parquet files, streamed; and sources that do not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_documents
from test_data_vision import joined

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits
from algorithmic_efficiency.data import catalog, documents, streams, vocabulary
from algorithmic_efficiency.data import prepare as preparing
from algorithmic_efficiency.results import environment
from workloads.lm import data, names, windows

NOWHERE = Path('/nonexistent/set')
QUICK = registry.workload('quick_lm')
SMALL = small_documents.definition()
TEXTS = small_documents.texts(60)

needs_text = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ('pyarrow', 'regex', 'tiktoken')),
  reason="pip install 'algorithmic-efficiency[data,text]'",
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A folder with the documents in two parquet files."""
  folder = tmp_path_factory.mktemp('raw')
  small_documents.write(folder / 'a.parquet', TEXTS[:25])
  small_documents.write(folder / 'deeper' / 'b.parquet', TEXTS[25:])
  return folder


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
  return small_documents.prepare(SMALL, tmp_path_factory.mktemp('data'), source)


def stored_documents(prepared, split='train'):
  """The documents that the whole windows of a split begin with, as texts."""
  rows = prepared.field(f'{split}/windows')
  known = vocabulary.load(prepared.root / vocabulary.FILE, SMALL.data)
  tokens = [int(rows[0][0]), *rows[:, 1:].ravel().tolist()]
  if split != 'train':
    tokens = tokens[: 1 + int(prepared.field(f'{split}/num_targets').sum())]
  return documents_of(tokens, known)


def documents_of(tokens, known):
  found, current = [], b''
  for token in tokens:
    if token == known.separator_id:
      found.append(current.decode())
      current = b''
    else:
      current += known.tokens[token]
  return found


# The names of characters.


def test_the_names_are_split_by_code_point():
  import unicodedata

  every = [unicodedata.ucd_3_2_0.name(chr(code), '') for code in range(sys.maxunicode + 1)]
  own = [
    name
    for name in every
    if name
    and not name.startswith(('CJK UNIFIED IDEOGRAPH-', 'CJK COMPATIBILITY', 'HANGUL SYLLABLE'))
  ]
  assert len(own) == 12_886 == names.NUM_NAMES
  characters, streams = names.as_tokens('\n')
  texts = {
    split: ''.join(characters[token] for token in tokens) for split, tokens in streams.items()
  }
  chosen = {split: text.splitlines() for split, text in texts.items()}
  assert sorted(chosen['validation']) == sorted(own[18::20])
  assert sorted(chosen['test']) == sorted(own[19::20])
  assert sorted([*chosen['train'], *chosen['validation'], *chosen['test']]) == sorted(own)
  assert all(text.endswith('\n') for text in texts.values())
  assert (
    chosen['train'][:2]
    == sorted(chosen['train'], key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:2]
  )


@pytest.mark.parametrize('split', ['validation', 'test'])
@pytest.mark.parametrize('batch_size', [280, 7, 64])
def test_every_character_held_out_is_predicted_once(split, batch_size):
  characters, tokens = names.as_tokens('\n')
  stream = streams.eval_stream(data, QUICK, NOWHERE, split, batch_size)
  found = joined(stream, 'targets')
  np.testing.assert_array_equal(found, tokens[split][1:])
  covered = joined(streams.eval_stream(data, QUICK, NOWHERE, split, batch_size), 'target_bytes')
  assert covered.sum() == np.sum(tokens[split][1:] != characters.index('\n'))


def test_training_windows_are_those_of_the_names():
  whole = dataclasses.replace(QUICK, splits=dataclasses.replace(QUICK.splits, eval_train=4_992))
  targets = joined(streams.eval_stream(data, whole, NOWHERE, 'eval_train', 1000), 'targets')
  np.testing.assert_array_equal(targets, names.as_tokens('\n')[1]['train'][1 : 1 + len(targets)])
  assert windows.num_whole(QUICK.data, len(names.as_tokens('\n')[1]['train'])) == 4_992


@pytest.fixture
def other_names(monkeypatch):
  monkeypatch.setattr(names, 'SHA256', '0' * 64)
  names.as_tokens.cache_clear()
  yield
  names.as_tokens.cache_clear()


def test_names_that_are_not_the_known_ones_are_refused(other_names):
  with pytest.raises(
    errors.UserError, match=r'on the 12,886 names .*, differ. Use a build of Python'
  ):
    streams.train_stream(data, QUICK, NOWHERE, 8, 0)


def test_a_definition_of_another_size_is_refused():
  other = dataclasses.replace(QUICK, data=dataclasses.replace(QUICK.data, vocab_size=40))
  with pytest.raises(errors.UserError, match=r'must have 39 tokens.* its vocab_size is 40'):
    streams.train_stream(data, other, NOWHERE, 8, 0)
  other = dataclasses.replace(QUICK, splits=dataclasses.replace(QUICK.splits, train=4_993))
  with pytest.raises(errors.UserError, match=r'needs 4,993 windows .* fill 4,992'):
    streams.train_stream(data, other, NOWHERE, 8, 0)


# Windows.


@pytest.mark.parametrize('overlap', [0, 1])
@pytest.mark.parametrize('num_tokens', [2, 5, 6, 17, 100, 101, 102, 103, 104])
def test_windows_cover_the_tokens(monkeypatch, overlap, num_tokens):
  monkeypatch.setattr(windows, '_BLOCK_TOKENS', 13)
  length = dataclasses.replace(SMALL.data, sequence_length=4, overlap=overlap)
  tokens = np.arange(num_tokens)
  pieces = np.split(tokens, [3, 3, 20, 21, 60])
  number = windows.num_started(length, num_tokens)
  found = np.concatenate(list(windows.cut(iter(pieces), length, number, -1)))
  valid = windows.num_targets(length, number, num_tokens)
  assert found.shape == (number, 5)
  assert valid.min() > 0
  predicted = np.concatenate([row[1 : 1 + n] for row, n in zip(found, valid, strict=True)])
  expected = tokens[1:] if overlap else tokens[tokens % 5 > 0]
  np.testing.assert_array_equal(predicted, expected)
  assert (found[-1][1 + valid[-1] :] == -1).all()
  whole = windows.num_whole(length, num_tokens)
  assert whole == np.sum(valid == 4)
  if whole:
    assert windows.num_tokens(length, whole) <= num_tokens
    assert windows.num_tokens(length, whole + 1) > num_tokens


def test_each_split_takes_whole_documents_and_no_more_than_it_needs():
  definition = dataclasses.replace(
    SMALL, splits=Splits(train=3, eval_train=1, validation=2, test=1)
  )
  # Windows of 17 tokens that share one: 33, 17 and 49 tokens.
  lengths = np.array([20, 13, 16, 1, 40, 9, 7])
  found = windows.parts(definition, ('validation', 'test', 'train'), lengths)
  assert found == [(2, 33, 2), (2, 17, 1), (2, 49, 3)]
  with pytest.raises(errors.UserError, match=r'needs 3 windows of 17 .* train split; .* fill 2'):
    windows.parts(definition, ('validation', 'test', 'train'), lengths - [0, 0, 0, 0, 0, 1, 7])
  # What is held out is padded where its documents end.
  assert windows.parts(definition, ('validation',), np.array([0, 18])) == [(2, 18, 2)]
  with pytest.raises(errors.UserError, match=r'validation split; .* fill 1'):
    windows.parts(definition, ('validation',), np.array([0, 17]))


# Preparation.


@needs_text
def test_parquet_files_become_windows_of_whole_documents(prepared):
  assert prepared.manifest['splits'] == {'validation': 6, 'train': 24}
  assert set(prepared.manifest['files']) == {
    'tokenizer.json',
    'train.windows.npy',
    'validation.windows.npy',
    'validation.num_targets.npy',
  }
  assert prepared.field('train/windows').dtype == np.uint16
  held_out, own = (stored_documents(prepared, split) for split in ('validation', 'train'))
  assert len(held_out) > 3 and len(own) > 10
  # Each text is different but for the separators, so that no document stands in both.
  assert len(set(held_out) | set(own)) == len(held_out) + len(own)
  assert set(held_out) | set(own) <= set(TEXTS)
  positions = [TEXTS.index(text) for text in own]
  assert positions != sorted(positions)


@needs_text
def test_the_documents_keep_their_order_on_any_machine(prepared, source, tmp_path, monkeypatch):
  for name, changes in {
    'runs': [(documents, '_RUN_BYTES', 1)],
    'workers': [(documents, '_WORKER_BYTES', 1), (environment, 'num_usable_cpus', lambda: 2.0)],
    'blocks': [(documents, '_READ_ROWS', 2), (windows, '_BLOCK_TOKENS', 50)],
  }.items():
    with monkeypatch.context() as patch:
      for place, attribute, value in changes:
        patch.setattr(place, attribute, value)
      again = small_documents.prepare(SMALL, tmp_path / name, source)
    assert again.manifest == prepared.manifest


@needs_text
def test_files_by_split_are_held_out_as_they_say(tmp_path):
  for name, own in (('train-0', TEXTS[2:20]), ('train-1', TEXTS[20:40]), ('test-0', TEXTS[40:50])):
    small_documents.write(tmp_path / f'{name}.parquet', own)
  small_documents.write(tmp_path / 'validation-0.parquet', TEXTS[50:])
  definition = dataclasses.replace(
    small_documents.definition(source='parquet_splits'),
    splits=Splits(train=20, eval_train=4, validation=3, test=2),
  )
  prepared = small_documents.prepare(definition, tmp_path / 'data', tmp_path)
  assert set(stored_documents(prepared, 'validation')) <= set(TEXTS[50:])
  assert set(stored_documents(prepared, 'test')) <= set(TEXTS[40:50])
  assert set(stored_documents(prepared, 'train')) <= set(TEXTS[2:40])
  (tmp_path / 'test-0.parquet').unlink()
  with pytest.raises(errors.UserError, match=r'holds no test\*\.parquet'):
    small_documents.prepare(definition, tmp_path / 'other', tmp_path)


@needs_text
@pytest.mark.parametrize('form', ['tokenizer.json', 'vocab.json'])
def test_a_given_tokenizer_is_used(prepared, tmp_path, form):
  small_documents.write(tmp_path / 'raw' / 'a.parquet', TEXTS)
  given = prepared.root / vocabulary.FILE
  if form == 'tokenizer.json':
    (tmp_path / 'raw' / form).write_bytes(given.read_bytes())
  else:
    small_documents.two_files(given, tmp_path / 'raw')
  again = small_documents.prepare(
    small_documents.definition(tokenizer='gpt2'), tmp_path / 'data', tmp_path / 'raw'
  )
  assert again.manifest['files'] == prepared.manifest['files']


@needs_text
@pytest.mark.parametrize('stage', ['tokenize', 'write validation', 'write train'])
def test_an_interrupted_preparation_is_continued(prepared, source, tmp_path, monkeypatch, stage):
  monkeypatch.setattr(documents, '_RUN_BYTES', 1)
  stages = []

  def interrupt(at, done, total):
    stages.append(at)
    if stages.count(stage) == (4 if stage == 'tokenize' else 1):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    small_documents.prepare(SMALL, tmp_path, source, progress=interrupt)
  assert not (tmp_path / 'small').exists()
  first, stages = stages, []
  again = small_documents.prepare(SMALL, tmp_path, source, progress=interrupt_never(stages))
  assert again.manifest == prepared.manifest
  assert not {'count words', 'train the vocabulary'} & set(stages)
  assert stages.count('tokenize') < len(TEXTS) // 7
  assert first.count('tokenize') + stages.count('tokenize') <= 11
  assert sorted(path.name for path in tmp_path.iterdir()) == ['small']


def interrupt_never(stages):
  return lambda stage, done, total: stages.append(stage)


@needs_text
def test_an_attempt_by_another_definition_is_not_continued(source, tmp_path):
  def interrupt(stage, done, total):
    if stage == 'write train':
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    small_documents.prepare(SMALL, tmp_path, source, progress=interrupt)
  other = small_documents.definition(vocab_size=290)
  again = small_documents.prepare(other, tmp_path, source)
  assert len(vocabulary.load(again.root / vocabulary.FILE, other.data).tokens) == 290


@needs_text
def test_progress_ends_with_all_of_each_stage(source, tmp_path):
  last = {}
  small_documents.prepare(
    SMALL, tmp_path, source, progress=lambda stage, *amount: last.update({stage: amount})
  )
  assert list(last) == [
    'count words',
    'train the vocabulary',
    'tokenize',
    'write validation',
    'write train',
  ]
  assert all(done == total for done, total in last.values())


# Streams.


@needs_text
def test_batches_have_the_types_of_the_contract(prepared):
  batch = next(streams.train_stream(data, SMALL, prepared.root, 8, 0))
  assert {name: (a.shape, a.dtype.name) for name, a in batch.items()} == {
    'inputs': ((8, 16), 'int32'),
    'targets': ((8, 16), 'int32'),
    'target_bytes': ((8, 16), 'float32'),
  }
  np.testing.assert_array_equal(batch['inputs'][:, 1:], batch['targets'][:, :-1])
  batch = next(streams.eval_stream(data, SMALL, prepared.root, 'validation', 8))
  assert batch['weights'].shape == (8, 16) and batch['weights'].dtype == np.float32
  generated = data.fake_batch(SMALL, 8, 0)
  assert {name: (a.shape, a.dtype) for name, a in generated.items()} == {
    name: (a.shape, a.dtype) for name, a in batch.items() if name != 'weights'
  }
  assert generated['inputs'].max() < 300


@needs_text
@pytest.mark.parametrize('batch_size', [1, 4, 50])
def test_any_evaluation_batch_size_counts_every_token_once(prepared, batch_size):
  for split, number in (('eval_train', 4), ('validation', 6)):
    batches = list(streams.eval_stream(data, SMALL, prepared.root, split, batch_size))
    rows = prepared.field(f'{split.removeprefix("eval_")}/windows')[:number]
    targets = np.concatenate([b['targets'][b['weights'] > 0] for b in batches])
    np.testing.assert_array_equal(targets, rows[:, 1:].ravel())


@needs_text
def test_a_stream_is_restored_in_the_middle_and_the_same_on_any_number_of_shards(prepared):
  whole = streams.train_stream(data, SMALL, prepared.root, 6, seed=4)
  parts = [
    streams.train_stream(data, SMALL, prepared.root, 6, seed=4, shard=(i, 3)) for i in range(3)
  ]
  for step in range(10):
    state = whole.state()
    expected = next(whole)
    rows = [next(part) for part in parts]
    again = streams.train_stream(data, SMALL, prepared.root, 6, seed=4)
    again.restore(state)
    for name, restored in next(again).items():
      np.testing.assert_array_equal(restored, expected[name], err_msg=str(step))
      np.testing.assert_array_equal(np.concatenate([row[name] for row in rows]), expected[name])


@needs_text
def test_a_pass_over_train_has_every_window_once(prepared):
  stream = streams.train_stream(data, SMALL, prepared.root, 8, seed=4)
  found = np.concatenate([next(stream)['inputs'] for _ in range(3)])
  expected = prepared.field('train/windows')[:, :-1]
  assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


def test_segments_number_the_documents_of_a_window():
  masked = dataclasses.replace(QUICK, data=dataclasses.replace(QUICK.data, mask_documents=True))
  batch = next(streams.train_stream(data, masked, NOWHERE, 8, 0))
  assert batch['segments'].dtype == np.int32
  for inputs, segments in zip(batch['inputs'], batch['segments'], strict=True):
    document = 0
    for token, segment in zip(inputs, segments, strict=True):
      assert segment == document
      document += token == 0  # the line feed is the first of the characters
  assert batch['segments'].max() > 1
  assert 'segments' not in next(streams.train_stream(data, QUICK, NOWHERE, 8, 0))
  assert data.fake_batch(masked, 8, 0).keys() == batch.keys()


def test_reading_names_imports_nothing_heavy():
  script = (
    'import sys; from pathlib import Path\n'
    'from algorithmic_efficiency.benchmark import registry\n'
    'definition = registry.workload("quick_lm")\n'
    'data = registry.module_of(definition, "data")\n'
    'from algorithmic_efficiency.data import streams\n'
    'next(streams.train_stream(data, definition, Path("x"), 8, 0))\n'
    'found = {"jax", "torch", "pyarrow", "tiktoken", "regex", "pandas"} & set(sys.modules)\n'
    'assert not found, found\n'
  )
  subprocess.run([sys.executable, '-c', script], check=True, cwd=registry.HOME)


def test_data_sets_say_where_they_come_from():
  for name, licence in (
    ('fineweb_edu_10B', 'ODC-By 1.0'),
    ('classic_books', 'public domain'),
    ('unicode_names', 'Unicode-3.0'),
  ):
    assert data.about(catalog.definition_for(name)).licence == licence
  assert data.about(registry.workload('finewebedu_lm')).num_bytes == 8_849_870 * 1_025 * 2


# Sources and sets that do not fit.


def assert_refused(definition, tmp_path, source, message):
  with pytest.raises(errors.UserError, match=message) as caught:
    small_documents.prepare(definition, tmp_path / 'data', source)
  assert not (tmp_path / 'data' / 'small').exists()
  return str(caught.value)


def test_text_is_not_fetched(tmp_path):
  if not importlib.util.find_spec('tiktoken'):
    pytest.skip('tiktoken is asked for first')
  assert_refused(SMALL, tmp_path, None, 'cannot be downloaded: name the folder .* with --source')


@pytest.mark.parametrize('package', ['tiktoken', 'regex', 'pyarrow'])
@needs_text
def test_a_missing_package_names_the_install_line(tmp_path, source, monkeypatch, package):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name, *rest: None if name == package else find(name, *rest)
  )
  extra = 'data' if package == 'pyarrow' else 'text'
  assert_refused(SMALL, tmp_path, source, rf"{package}, .*pip install '.*\[{extra}\]'")


@needs_text
@pytest.mark.parametrize(
  ('write', 'message'),
  [
    (lambda path: None, r'holds no \*\.parquet'),
    (lambda path: path.write_bytes(b'text'), r'bad\.parquet is truncated, damaged or no parquet'),
    (lambda path: cut(path, 100), r'bad\.parquet is truncated, damaged or no parquet file'),
    (lambda path: zero(path), r'bad\.parquet is truncated, damaged or no parquet file'),
    (lambda path: rename(path), r"bad\.parquet must have a column 'text'; it has id, words"),
    (lambda path: numbers(path), r"column 'text' of .*bad\.parquet must hold strings; .* int64"),
    (lambda path: small_documents.write(path, ['a', None]), r'of .*bad\.parquet must have a text'),
  ],
  ids=['none', 'no parquet', 'cut', 'damaged', 'no text', 'numbers', 'null'],
)
def test_a_source_that_does_not_fit_is_named(tmp_path, write, message):
  (tmp_path / 'raw').mkdir()
  write(tmp_path / 'raw' / 'bad.parquet')
  assert_refused(SMALL, tmp_path, tmp_path / 'raw', message)
  assert not any((tmp_path / 'data').iterdir())


def cut(path, num_bytes):
  small_documents.write(path, TEXTS)
  path.write_bytes(path.read_bytes()[:-num_bytes])


def zero(path):
  """Damages what the footer does not show."""
  small_documents.write(path, TEXTS)
  content = bytearray(path.read_bytes())
  content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
  path.write_bytes(content)


def rename(path):
  import pyarrow
  import pyarrow.parquet

  pyarrow.parquet.write_table(pyarrow.table({'id': [1], 'words': ['a']}), path)


def numbers(path):
  import pyarrow
  import pyarrow.parquet

  pyarrow.parquet.write_table(pyarrow.table({'text': [1]}), path)


@needs_text
def test_too_few_documents_are_counted(tmp_path, source):
  few = dataclasses.replace(SMALL, splits=dataclasses.replace(SMALL.splits, train=24_000))
  message = assert_refused(
    few,
    tmp_path,
    source,
    'needs 24,000 windows of 17 tokens in its train split; the documents fill',
  )
  assert 'a workload of your own' in message
  few = dataclasses.replace(SMALL, splits=dataclasses.replace(SMALL.splits, validation=24_000))
  assert_refused(few, tmp_path, source, 'needs 24,000 windows .* in its validation split')
  small_documents.write(tmp_path / 'raw' / 'a.parquet', [])
  given = small_documents.definition(tokenizer='gpt2')
  (tmp_path / 'raw' / 'tokenizer.json').write_bytes(
    (tmp_path / 'data' / 'small.partial' / 'tokenizer.json').read_bytes()
  )
  assert_refused(given, tmp_path, tmp_path / 'raw', 'the documents fill 0')


@needs_text
def test_too_little_text_for_a_vocabulary(tmp_path):
  small_documents.write(tmp_path / 'raw' / 'a.parquet', ['abc'])
  assert_refused(SMALL, tmp_path, tmp_path / 'raw', 'takes 43 merges; .* has pairs for 2')


@needs_text
def test_another_vocabulary_than_that_of_the_target_is_refused(tmp_path, source, prepared):
  found = prepared.manifest['files'][vocabulary.FILE]['sha256']
  other = small_documents.definition(vocabulary_sha256='0' * 64)
  assert_refused(other, tmp_path, source, f'hash 000000000000; its hash is {found[:12]}')
  with pytest.raises(errors.UserError, match='must be the one that the target is defined on'):
    streams.train_stream(data, other, prepared.root, 8, 0)
  streams.train_stream(
    data, small_documents.definition(vocabulary_sha256=found), prepared.root, 8, 0
  ).close()


@needs_text
def test_a_set_of_another_size_than_the_definition_says_is_refused(prepared):
  other = dataclasses.replace(SMALL, splits=dataclasses.replace(SMALL.splits, train=23))
  with pytest.raises(errors.UserError, match=r'needs 23 windows of 17 tokens .* --overwrite'):
    streams.train_stream(data, other, prepared.root, 8, 0)


def test_a_set_that_is_missing_names_the_command(tmp_path):
  for open_stream in (
    lambda: streams.train_stream(data, SMALL, tmp_path / 'small', 8, 0),
    lambda: streams.eval_stream(data, SMALL, tmp_path / 'small', 'validation', 8),
  ):
    with pytest.raises(errors.UserError, match='algoeff data prepare small'):
      open_stream()


@needs_text
def test_verify_reads_the_set(prepared):
  facts = preparing.verify(SMALL, prepared.root.parent, lambda *_: None)
  assert facts == {'num_files': 4, 'num_bytes': prepared.num_bytes}


@needs_text
@pytest.mark.data
@pytest.mark.long
def test_the_real_books_are_prepared(test_data, tmp_path):
  definition = registry.workload('books_lm')
  prepared = small_documents.prepare(definition, tmp_path, test_data / 'classic_books')
  assert prepared.manifest['splits'] == {'validation': 275, 'train': 23_943}
  covered = joined(
    streams.eval_stream(data, definition, prepared.root, 'validation', 64), 'target_bytes'
  )
  text = 538_807  # bytes in the validation file, of which the first token is not predicted
  assert text - 20 < covered.sum() < text
