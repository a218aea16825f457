"""Vocabularies: trained, applied, stored, read in each form; and files that do not fit."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter

import numpy as np
import pytest
import small_documents

from algorithmic_efficiency import errors

regex = pytest.importorskip('regex')
pytest.importorskip('tiktoken')

from algorithmic_efficiency.data import vocabulary  # noqa: E402
from workloads.lm import byte_pairs  # noqa: E402

DATA = small_documents.definition().data
TEXTS = small_documents.texts(60)


def counts(texts=TEXTS):
  return Counter(word for text in texts for word in regex.findall(vocabulary.WORDS, text))


def trained(num_merges=43, words=None):
  merges = byte_pairs.train(words or counts(), num_merges, lambda done: None)
  return vocabulary.of_merges(merges, DATA.separator)


@pytest.fixture(scope='module')
def known():
  return trained()


# Training.


def slow_merges(words, num_merges):
  """The definition of byte pairs: count all pairs anew for each merge."""
  numbers = {token: number for number, token in enumerate(vocabulary.BYTE_TOKENS)}
  split = {word: [bytes([byte]) for byte in word.encode()] for word in words}
  merges = []
  while len(merges) < num_merges:
    pairs = Counter()
    for word, tokens in split.items():
      for pair in itertools.pairwise(tokens):
        pairs[pair] += words[word]
    best = min(pairs, key=lambda pair: (-pairs[pair], numbers[pair[0]], numbers[pair[1]]))
    if best[0] + best[1] not in numbers:
      numbers[best[0] + best[1]] = len(numbers)
      merges.append(best)
    for word, tokens in split.items():
      split[word] = replaced(tokens, best)
  return merges


def replaced(tokens, pair):
  result = []
  for token in tokens:
    if result and (result[-1], token) == pair:
      result[-1] = b''.join(pair)
    else:
      result.append(token)
  return result


def test_training_is_that_of_the_definition():
  assert byte_pairs.train(counts(), 60, lambda done: None) == slow_merges(counts(), 60)


def test_training_on_repetitions_is_that_of_the_definition():
  words = {'a' * 9: 3, 'ab' * 5: 2, 'aab': 7, 'aaaa': 1}
  assert byte_pairs.train(words, 8, lambda done: None) == slow_merges(words, 8)


def test_the_same_text_in_any_order_gives_the_same_vocabulary(known):
  for seed in range(3):
    shuffled = list(counts().items())
    random.Random(seed).shuffle(shuffled)
    assert trained(words=dict(shuffled)).to_json() == known.to_json()


def test_training_ends_where_the_text_has_no_more_pairs():
  assert byte_pairs.train({'ab': 1}, 5, lambda done: None) == [(b'a', b'b')]


# Encoding.


def slow_encode(known, text):
  """The definition of encoding: in each word, the pair of the lowest rank is merged first."""
  ranks = {left + right: rank for rank, (left, right) in enumerate(known.merges)}
  numbers = {token: number for number, token in enumerate(known.tokens)}
  words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
  result = []
  for word in regex.findall(words, text):
    tokens = [bytes([byte]) for byte in word.encode()]
    while pairs := [pair for pair in itertools.pairwise(tokens) if b''.join(pair) in ranks]:
      at = list(itertools.pairwise(tokens)).index(min(pairs, key=lambda p: ranks[b''.join(p)]))
      tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]
    result += [numbers[token] for token in tokens]
  return [*result, known.separator_id]


def test_encoding_is_that_of_the_definition(known):
  encode = known.encoder()
  for text in [*TEXTS, "They'll say I'm  the\n\n best'd\t", '\x00\x7f', 'a' * 1000]:
    found = encode(text)
    assert found.dtype == np.uint16
    assert found.tolist() == slow_encode(known, text)


def test_tokens_stand_for_all_bytes_of_the_text(known):
  encode, num_bytes = known.encoder(), known.num_bytes()
  for text in TEXTS:
    tokens = encode(text)
    assert b''.join(known.tokens[token] for token in tokens) == text.encode()
    assert num_bytes[tokens].sum() == len(text.encode())
  assert num_bytes[known.separator_id] == 0


def test_text_that_looks_like_the_separator_is_text(known):
  tokens = known.encoder()('<|endoftext|>').tolist()
  assert tokens.index(known.separator_id) == len(tokens) - 1 > 0


def test_numbers_need_not_be_in_the_order_of_the_merges(tmp_path, known):
  content = json.loads(known.to_json())
  size = len(known.tokens)
  content['model']['vocab'] = {
    name: size - 1 - number for name, number in content['model']['vocab'].items()
  }
  write(tmp_path, content)
  found = vocabulary.load(tmp_path / 'tokenizer.json', DATA)
  for text in TEXTS:
    np.testing.assert_array_equal(found.encoder()(text), size - 1 - known.encoder()(text))


def test_large_vocabularies_take_a_larger_type():
  assert vocabulary.token_type(1 << 16) == np.uint16
  assert vocabulary.token_type((1 << 16) + 1) == np.uint32


# Files.


def write(folder, content):
  (folder / 'tokenizer.json').write_text(json.dumps(content))


def test_every_form_of_the_files_gives_the_same_vocabulary(tmp_path, known):
  stored = tmp_path / 'tokenizer.json'
  stored.write_bytes(known.to_json())
  assert vocabulary.find(tmp_path, DATA) == known
  content = json.loads(stored.read_bytes())
  content['model']['merges'] = [merge.split(' ') for merge in content['model']['merges']]
  del content['model']['vocab'][DATA.separator]
  content['added_tokens'] = [{'id': known.separator_id, 'content': DATA.separator}]
  (tmp_path / 'newer').mkdir()
  write(tmp_path / 'newer', content)
  assert vocabulary.find(tmp_path / 'newer', DATA) == known
  (tmp_path / 'older').mkdir()
  small_documents.two_files(stored, tmp_path / 'older')
  assert vocabulary.find(tmp_path / 'older', DATA) == known


def changed(**model):
  content = json.loads(trained().to_json())
  content['model'] |= model
  return content


def vocab(change):
  names = dict(changed()['model']['vocab'])
  change(names)
  return names


BAD_FILES = {
  'no object': ([1], 'must hold a JSON object; it holds a list'),
  'no model': ({}, 'must hold a model of byte pairs .* it holds no model'),
  'another model': (changed(type='Unigram'), 'it holds Unigram'),
  'no merges': ({'model': {'type': 'BPE', 'vocab': {}}}, 'is not a tokenizer file'),
  'another size': (
    changed(vocab=vocab(lambda names: names.popitem())),
    'must hold the 300 tokens of the definition; it holds 299',
  ),
  'no separator': (
    changed(vocab=vocab(lambda names: names.update(end=names.pop(DATA.separator)))),
    r"must hold the token '<\|endoftext\|>'",
  ),
  'gaps': (
    changed(vocab=vocab(lambda names: names.update({DATA.separator: 300}))),
    'must be numbered from 0 to 299',
  ),
  'not byte-level': (
    changed(vocab=vocab(lambda names: names.update({'日': names.pop('!')}))),
    "is not byte-level.* token '日'",
  ),
  'a merge of three': (changed(merges=['a b c']), "must be pairs of tokens; one is 'a b c'"),
  'merges missing': (
    changed(merges=['t h']),
    'one token for each merge .* 1 merges for 300 tokens',
  ),
}


@pytest.mark.parametrize(('content', 'message'), BAD_FILES.values(), ids=BAD_FILES)
def test_a_tokenizer_file_that_does_not_fit_is_named(tmp_path, content, message):
  write(tmp_path, content)
  with pytest.raises(errors.UserError, match=message) as caught:
    vocabulary.find(tmp_path, DATA)
  assert str(tmp_path / 'tokenizer.json') in str(caught.value)


@pytest.mark.parametrize(
  ('content', 'message'), [(b'{"a"', 'is not JSON'), (b'\xff', 'cannot be read')]
)
def test_a_tokenizer_file_that_cannot_be_read_is_named(tmp_path, content, message):
  (tmp_path / 'tokenizer.json').write_bytes(content)
  with pytest.raises(errors.UserError, match=rf'tokenizer\.json {message}'):
    vocabulary.find(tmp_path, DATA)


def test_a_folder_without_a_tokenizer_names_what_is_missing(tmp_path, known):
  with pytest.raises(errors.UserError, match=r'no tokenizer.json and no vocab.json and no merges'):
    vocabulary.find(tmp_path, DATA)
  (tmp_path / 'vocab.json').write_text('{}')
  with pytest.raises(errors.UserError, match=r'has no tokenizer.json and no merges.txt'):
    vocabulary.find(tmp_path, DATA)


def test_two_files_that_do_not_belong_together_are_named(tmp_path, known):
  (tmp_path / 'tokenizer.json').write_bytes(known.to_json())
  small_documents.two_files(tmp_path / 'tokenizer.json', tmp_path)
  (tmp_path / 'tokenizer.json').unlink()
  lines = (tmp_path / 'merges.txt').read_text().splitlines()
  (tmp_path / 'merges.txt').write_text('\n'.join(lines[:-1]))
  with pytest.raises(
    errors.UserError, match=r'tokens of .*vocab.json must be .* each merge of .*merges.txt'
  ):
    vocabulary.find(tmp_path, DATA)
  (tmp_path / 'merges.txt').write_text('\n'.join([*lines, lines[-1]]))
  with pytest.raises(errors.UserError, match='44 merges for 300 tokens'):
    vocabulary.find(tmp_path, DATA)
