"""English numbers, ordinals, dates and appointments in words, with their German translations.

German says units before tens, and the day of an appointment before its hour; half past three is
`halb vier`. A phrase is a text whose words are divided into pieces by `|`. German writes a number
below a million as one word, so pieces are the parts that such words are made of. They are a closed
set, from which a small model learns to translate numbers that it has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from algorithmic_efficiency.data import random_numbers
from algorithmic_efficiency.data.random_numbers import ExampleRandom

Phrase = tuple[str, str]  # English, German

_BLOCK = 4096  # phrases whose random numbers are made at a time
_MAX_DIGITS = 6
_YEARS = range(1100, 2100)


def _words(listed: str) -> list[str]:
  return listed.split()


_EN_UNITS = _words(
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen '
  'sixteen seventeen eighteen nineteen'
)
_EN_TENS = _words('_ ten twenty thirty forty fifty sixty seventy eighty ninety')
_EN_ORDINALS = {
  'one': 'first',
  'two': 'second',
  'three': 'third',
  'five': 'fifth',
  'eight': 'eighth',
  'nine': 'ninth',
  'twelve': 'twelfth',
}
_DE_UNITS = _words('null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf')
_DE_STEMS = _words('_ _ zwan drei vier fünf sech sieb acht neun')  # before `zehn` and `zig`
_DE_ORDINALS = {1: 'er|ste', 3: 'drit|te', 7: 'sieb|te', 8: 'ach|te'}

_MONTHS = (
  *(('January', 'Januar'), ('February', 'Februar'), ('March', 'März'), ('April', 'April')),
  *(('May', 'Mai'), ('June', 'Juni'), ('July', 'Juli'), ('August', 'August')),
  *(('September', 'September'), ('October', 'Oktober'), ('November', 'November')),
  ('December', 'Dezember'),
)
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKDAYS = (
  *(('Monday', 'Montag'), ('Tuesday', 'Dienstag'), ('Wednesday', 'Mittwoch')),
  *(('Thursday', 'Donnerstag'), ('Friday', 'Freitag'), ('Saturday', 'Samstag')),
  ('Sunday', 'Sonntag'),
)


def drawn(seed: int) -> Iterator[Phrase]:
  """Yields random phrases without end; the same in every version of every library."""
  first = 0
  while True:
    numbers = np.arange(first, first + _BLOCK)
    for key in random_numbers.keys(seed, np.zeros_like(numbers), numbers).tolist():
      yield _drawn(ExampleRandom(key))
    first += _BLOCK


def text(phrase: str) -> str:
  """Returns a phrase as it is written."""
  return phrase.replace('|', '')


def pieces(phrase: str) -> list[str]:
  """Returns the pieces of a phrase; `▁` begins a word, as in SentencePiece."""
  return [
    piece if place else f'▁{piece}'
    for word in phrase.split(' ')
    for place, piece in enumerate(word.split('|'))
  ]


def joined(found: list[str]) -> str:
  """Returns the text of pieces."""
  return ''.join(found).replace('▁', ' ').strip()


def _drawn(random: ExampleRandom) -> Phrase:
  kind = random.integer(4)
  if kind < 2:
    number = random.integer(10 ** (1 + random.integer(_MAX_DIGITS)))
    return cardinal(number) if kind == 0 else ordinal(number + 1)
  month = random.integer(12)
  day = 1 + random.integer(_MONTH_DAYS[month])
  if kind == 2:
    return date(day, month, _YEARS[random.integer(len(_YEARS))])
  return appointment(random.integer(12), 5 * random.integer(12), random.integer(7), day, month)


def cardinal(number: int) -> Phrase:
  """Returns a number below a million in words."""
  return _english(number), _german(number)


def ordinal(number: int) -> Phrase:
  """Returns the ordinal of a number from 1 to a million, exclusive; German in the weak form."""
  return _english_ordinal(number), _german_ordinal(number)


def date(day: int, month: int, year: int) -> Phrase:
  """Returns a date; months count from 0, and years are from 1100 to 2099."""
  of_month = _MONTHS[month]
  return (
    f'the {_english_ordinal(day)} of {of_month[0]} {_english_year(year)}',
    f'der {_german_ordinal(day)} {of_month[1]} {_german_year(year)}',
  )


def appointment(hour: int, minute: int, weekday: int, day: int, month: int) -> Phrase:
  """Returns an hour and a day; minutes are multiples of 5, everything else counts from 0."""
  english, german = _time(hour, minute)
  of_week, of_month = _WEEKDAYS[weekday], _MONTHS[month]
  return (
    f'at {english} on {of_week[0]}|, the {_english_ordinal(day)} of {of_month[0]}',
    f'am {of_week[1]}|, dem {_german_ordinal(day)}|n {of_month[1]}|, um {german}',
  )


def _english(number: int) -> str:
  if number < 20:
    return _EN_UNITS[number]
  if number < 100:
    tens, units = divmod(number, 10)
    return _EN_TENS[tens] + (f'|-|{_EN_UNITS[units]}' if units else '')
  if number < 1000:
    hundreds, rest = divmod(number, 100)
    return f'{_EN_UNITS[hundreds]} hundred' + (f' and {_english(rest)}' if rest else '')
  thousands, rest = divmod(number, 1000)
  joint = ' and ' if rest < 100 else '|, '
  return f'{_english(thousands)} thousand' + (f'{joint}{_english(rest)}' if rest else '')


def _english_ordinal(number: int) -> str:
  words = _english(number)
  cut = max(words.rfind(' '), words.rfind('|')) + 1
  last = words[cut:]
  if last in _EN_ORDINALS:
    return words[:cut] + _EN_ORDINALS[last]
  return words[:-1] + 'ieth' if last.endswith('y') else f'{words}|th'


def _english_year(year: int) -> str:
  century, rest = divmod(year, 100)
  if 2000 <= year < 2010:
    return _english(year)
  if rest == 0:
    return f'{_english(century)} hundred'
  return f'{_english(century)} ' + (f'oh|-|{_english(rest)}' if rest < 10 else _english(rest))


def _german(number: int) -> str:
  return _german_stem(number) + ('|s' if number % 100 == 1 else '')


def _german_stem(number: int) -> str:
  """Returns a number as it stands within a longer word: one is `ein`."""
  if number <= 12:
    return _DE_UNITS[number]
  if number < 20:
    return f'{_DE_STEMS[number - 10]}|zehn'
  if number < 100:
    tens, units = divmod(number, 10)
    whole = f'{_DE_STEMS[tens]}|{"ßig" if tens == 3 else "zig"}'
    return f'{_DE_UNITS[units]}|und|{whole}' if units else whole
  size, word = (100, 'hundert') if number < 1000 else (1000, 'tausend')
  many, rest = divmod(number, size)
  return f'{_german_stem(many)}|{word}' + (f'|{_german_stem(rest)}' if rest else '')


def _german_ordinal(number: int) -> str:
  before, last = number - number % 100, number % 100
  if last in _DE_ORDINALS:
    return (f'{_german_stem(before)}|' if before else '') + _DE_ORDINALS[last]
  return f'{_german_stem(number)}|{"te" if 0 < last < 20 else "ste"}'


def _german_year(year: int) -> str:
  century, rest = divmod(year, 100)
  if year >= 2000:
    return _german(year)
  return f'{_german_stem(century)}|hundert' + (f'|{_german(rest)}' if rest else '')


def _time(hour: int, minute: int) -> Phrase:
  """Returns a time in words, hour 0 for twelve; German speech refers to the hour to come."""
  this, that = ((hour + more - 1) % 12 + 1 for more in (0, 1))
  past, to = f'past {_english(this)}', f'to {_english(that)}'
  after, before, half = f'nach {_german(this)}', f'vor {_german(that)}', f'halb {_german(that)}'
  if minute == 0:
    return f"{_english(this)} o'clock", f'{_german_stem(this)} Uhr'
  if minute in (15, 45):
    english, german = (past, after) if minute == 15 else (to, before)
    return f'a quarter {english}', f'Viertel {german}'
  if minute == 30:
    return f'half {past}', half
  if minute in (25, 35):
    near = f'fünf vor {half}' if minute == 25 else f'fünf nach {half}'
    return f'twenty|-|five {past if minute == 25 else to}', near
  if minute < 30:
    return f'{_english(minute)} {past}', f'{_german(minute)} {after}'
  return f'{_english(60 - minute)} {to}', f'{_german(60 - minute)} {before}'
