"""Spelled-out numbers: right by num2words, the same everywhere, and no phrase in two splits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small_translation as small
from num2words import num2words

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import BatchSizes, Smoke, Splits
from workloads.nmt import phrases, spelled_numbers, spelled_numbers_data
from workloads.nmt.data_records import EOS_ID, SpelledNumbers

DATA = SpelledNumbers(vocab_size=167, max_length=20, row_length=64)
SPLITS = Splits(train=20_000, eval_train=512, validation=512, test=512)
SHA256 = '16f6407446dc427c5202dfff9bfbc3e8d63396544def37af7ad384fb36f3e87e'
LANGUAGES = ('en', 'de')

# All numbers with a form of their own, and others up to a million.
NUMBERS = [*range(320), *range(320, 2_200, 7), *range(2_200, 1_000_000, 9_973), 999_999]
# num2words says `einhunderteinstausend`, and shortens two ordinals.
CORRECTIONS = {'einstausend': 'eintausend'}
EXCEPT = {100: 'hundertste', 1000: 'tausendste'}


def by_library(number, language, to):
  found = num2words(number, lang=language, to=to)
  if language == 'de':
    for wrong, right in CORRECTIONS.items():
      found = found.replace(wrong, right)
  return found


def texts(phrase):
  return tuple(map(phrases.text, phrase))


def test_numbers_are_those_of_num2words():
  for number in NUMBERS:
    expected = tuple(by_library(number, one, 'cardinal') for one in LANGUAGES)
    assert texts(phrases.cardinal(number)) == expected


def test_ordinals_are_those_of_num2words():
  for number in NUMBERS[1:]:
    english, german = texts(phrases.ordinal(number))
    assert english == by_library(number, 'en', 'ordinal')
    if number in EXCEPT:
      assert german == f'ein{EXCEPT[number]}'
    else:
      assert german == by_library(number, 'de', 'ordinal')


def test_days_and_years_of_dates_are_those_of_num2words():
  for year in range(1100, 2100):
    day = 1 + year % 31
    english, german = texts(phrases.date(day, year % 12, year))
    day_en, day_de = (by_library(day, one, 'ordinal') for one in LANGUAGES)
    month_en, month_de = phrases._MONTHS[year % 12]
    assert english == f'the {day_en} of {month_en} {by_library(year, "en", "year")}'
    assert german == f'der {day_de} {month_de} {by_library(year, "de", "year")}'


@pytest.mark.parametrize(
  ('hour', 'minute', 'english', 'german'),
  [
    (3, 0, "three o'clock", 'drei Uhr'),
    (1, 0, "one o'clock", 'ein Uhr'),
    (0, 0, "twelve o'clock", 'zwölf Uhr'),
    (1, 5, 'five past one', 'fünf nach eins'),
    (6, 10, 'ten past six', 'zehn nach sechs'),
    (7, 15, 'a quarter past seven', 'Viertel nach sieben'),
    (9, 20, 'twenty past nine', 'zwanzig nach neun'),
    (2, 25, 'twenty-five past two', 'fünf vor halb drei'),
    (3, 30, 'half past three', 'halb vier'),
    (0, 30, 'half past twelve', 'halb eins'),
    (11, 35, 'twenty-five to twelve', 'fünf nach halb zwölf'),
    (8, 40, 'twenty to nine', 'zwanzig vor neun'),
    (0, 45, 'a quarter to one', 'Viertel vor eins'),
    (10, 50, 'ten to eleven', 'zehn vor elf'),
    (4, 55, 'five to five', 'fünf vor fünf'),
  ],
)
def test_times_are_told_as_they_are_spoken(hour, minute, english, german):
  found = texts(phrases.appointment(hour, minute, 1, 4, 4))
  assert found == (
    f'at {english} on Tuesday, the fourth of May',
    f'am Dienstag, dem vierten Mai, um {german}',
  )


def test_pieces_join_to_the_text():
  assert phrases.pieces('am vier|ten Mai|, um') == ['▁am', '▁vier', 'ten', '▁Mai', ',', '▁um']
  stream = phrases.drawn(5)
  for _ in range(500):
    for side in next(stream):
      assert phrases.joined(phrases.pieces(side)) == phrases.text(side)


def definition(**changes):
  return replace(
    small.wmt(),
    dataset='spelled_numbers',
    bundled=True,
    **{
      'data': replace(DATA, sha256=SHA256),
      'splits': SPLITS,
      'batch_sizes': BatchSizes(train=64, eval=128),
      'smoke': Smoke(model=None),
      **changes,
    },
  )


def split_texts():
  """The English and German phrases of each split, from their tokens."""
  pieces = spelled_numbers.tokens(definition().data, definition().splits).vocabulary
  return {
    split: [
      tuple(phrases.joined([pieces[token] for token in side[number][:-1]]) for side in sides)
      for number in range(len(sides[0]))
    ]
    for split, sides in spelled_numbers.tokens(definition().data, definition().splits).sides.items()
  }


def test_no_phrase_is_in_two_splits_or_twice_in_one():
  """The hash of the definition is compared on the way."""
  found = split_texts()
  assert {split: len(own) for split, own in found.items()} == {
    'train': 20_000,
    'validation': 512,
    'test': 512,
  }
  for side in (0, 1):
    everything = [pair[side] for own in found.values() for pair in own]
    assert len(set(everything)) == len(everything)


def test_splits_have_the_same_kinds_of_phrases():
  """Short numbers are drawn early; each split has its share of them."""

  def shares(pairs):
    starts = [english.partition(' ')[0] for english, _ in pairs]
    short = sum(len(english) < 20 for english, _ in pairs)
    return np.array([starts.count('the'), starts.count('at'), short]) / len(pairs)

  found = split_texts()
  assert (shares(found['train']) > [0.25, 0.25, 0.01]).all()
  for split in ('validation', 'test'):
    assert (abs(shares(found[split]) - shares(found['train'])) < [0.06, 0.06, 0.02]).all()


def test_phrases_fit_and_end():
  for own in spelled_numbers.tokens(definition().data, SPLITS).sides.values():
    for side in own:
      assert side.lengths.max() <= DATA.max_length
      assert all(side[number][-1] == EOS_ID for number in range(0, len(side), 97))


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'vocab_size': 168}, r'vocab_size must be 167: .* it is 168'),
    ({'max_length': 18}, r'max_length must be 19 at least, .* it is 18'),
    ({'seed': 1, 'sha256': SHA256}, r'SHA-256 16f6407446dc; those of these settings have'),
  ],
)
def test_settings_that_do_not_fit_are_told(changes, said):
  other = definition(data=replace(DATA, **changes))
  with pytest.raises(errors.UserError, match=said):
    spelled_numbers_data.loader(other, None, 'train')
