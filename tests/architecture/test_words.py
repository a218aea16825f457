"""The project's prose keeps to plain words: short sentences, the field's terms, US spelling."""

from __future__ import annotations

import argparse
import re
import statistics
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import prose
import pytest
from prose import Passage
from sources import CORE, OURS, ROOT

from algorithmic_efficiency import cli

MAX_WORDS = 28
MAX_MEAN_WORDS = 18

# Own words for things that the field has a name for, and British spellings; with what to write.
OWN_WORDS = {
  r'glances?': 'partial evaluation',
  r'whole evaluations?': 'full evaluation',
  r'spared': 'deviation from the rules',
  r'mend(s|ed|ing)?': 'fix, recover',
  r'put (back|aside)': 'restore, back up',
  r'purse|dear(er|est)': 'budget limit, more expensive',
  r'rehears(e[ds]?|als?|ing)': 'dry run',
  r'(unmet|missing) needs?': 'missing requirement',
  r'hard[ _]limit': 'heartbeat timeout',
  r'fingerprints?|digests?': 'hash',
  r'num_ranks': 'world_size',
  r'remarks?': 'warning',
  r'goals?': 'target',
  r'embedded (data|sets?)': 'bundled data',
  r'trial plans?': 'trial config',
  r'cpu words|words of a seed': 'key data',
}
_ISE = (
  'author canonical categor character custom final general initial local material maxim memor '
  'minim neutral normal optim organ parallel penal quant random real recogn regular serial special '
  'stabil standard summar symbol synchron token util vector visual'
).replace(' ', '|')
BRITISH = {
  rf'\w*({_ISE})is(e[ds]?|ing|ations?|ers?)': '-ize',
  r'analys(e|ed|ing)': 'analyze',
  r'\w*(behavi|col|fav|hon|neighb)our\w*': '-or',
  r'(cent|fib|met)res?': '-er',
  r'(cancel|label|model|signal|travel)l(ed|ing|ers?)': 'one l',
  r'licences?|artefacts?|catalogues?|programmes?|grey|whilst|per cent': (
    'license, artifact, catalog, program, gray, while, percent'
  ),
}
BANNED = [
  (re.compile(rf'\b(?:{word})\b', re.I), use) for word, use in (OWN_WORDS | BRITISH).items()
]
BAD_START = re.compile(r'(?:of|where|whether)\b', re.I)

PAGES = (
  *('README.md', 'RULES.md', 'CONTRIBUTING.md'),
  *sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'docs').glob('*.md')),
  *sorted(
    str(path.relative_to(ROOT))
    for folder in (*OURS, 'docker', 'examples', 'organizers', 'tests')
    for path in (ROOT / folder).rglob('README.md')
  ),
)
ROOMS = {
  folder: sorted((ROOT / folder).glob('**/*.py' if folder != CORE else '*.py'))
  for folder in (
    *(CORE, 'scoring', 'workloads', 'submissions'),
    *(f'{CORE}/{found.parent.name}' for found in sorted((ROOT / CORE).glob('*/__init__.py'))),
  )
}


def long_sentences(passages: Iterable[Passage]) -> Iterator[str]:
  for passage in passages:
    for sentence in passage.sentences:
      if (length := prose.num_words(sentence)) > MAX_WORDS:
        yield f'{passage.where}: {length} words, at most {MAX_WORDS}: {sentence}'


def banned_words(passages: Iterable[Passage]) -> Iterator[str]:
  for passage in passages:
    for pattern, use in BANNED:
      if found := pattern.search(passage.text):
        yield f'{passage.where}: {found[0]!r}; write: {use}'


def bad_starts(passages: Iterable[Passage]) -> Iterator[str]:
  for passage in passages:
    if BAD_START.match(passage.text):
      yield f'{passage.where}: a help text starts with a verb or a noun: {passage.text}'


def mean_words(passages: Iterable[Passage]) -> float:
  running = (passage for passage in passages if passage.running)
  return statistics.fmean(prose.num_words(part) for each in running for part in each.sentences)


@pytest.mark.parametrize('name', PAGES)
def test_a_page_is_in_plain_words(name: str):
  passages = list(prose.page(ROOT / name))
  wrong = [*long_sentences(passages), *banned_words(passages)]
  assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('name', [page for page in PAGES if '/' not in page or page[:5] == 'docs/'])
def test_the_sentences_of_a_page_are_short_on_average(name: str):
  assert mean_words(prose.page(ROOT / name)) <= MAX_MEAN_WORDS


def test_help_is_in_plain_words():
  passages = list(prose.helps())
  wrong = [*long_sentences(passages), *banned_words(passages), *bad_starts(passages)]
  assert not wrong, '\n'.join(wrong)
  assert mean_words(passages) <= MAX_MEAN_WORDS


@pytest.mark.parametrize('room', ROOMS)
def test_docstrings_comments_and_messages_are_in_plain_words(room: str):
  wrong = []
  for path in ROOMS[room]:
    passages = [*prose.docstrings(path), *prose.comments_and_messages(path)]
    wrong += [*long_sentences(passages), *banned_words(passages)]
  assert not wrong, '\n'.join(wrong)


def passages(text: str, tmp_path: Path) -> list[Passage]:
  """The passages of a page with this text."""
  path = tmp_path / 'page.md'
  path.write_text(textwrap.dedent(text))
  return list(prose.page(path, tmp_path))


def test_code_tables_lists_and_abbreviations_are_split_as_a_reader_would(tmp_path: Path):
  page = """
    # A heading is. No sentence

    The paper by D. P. Kingma et al. says so, e.g. in [section two](https://x.y). It is 0.5
    long. `run` starts it: see

        algoeff run. This is code. Not prose

    - One item
      goes on at 0.108. There.
    - Another one

    | a head | of a table |
    |---|---|
    | `a` | Two. Sentences |

    ```
    code. Again
    ```
    """
  found = passages(page, tmp_path)
  assert [part for each in found for part in each.sentences] == [
    'The paper by D P Kingma et al says so, e.g in section two.',
    'It is 0.5 long.',
    'CODE starts it: see',
    'One item goes on at 0.108.',
    'There.',
    'Another one',
    'a head',
    'of a table',
    'CODE',
    'Two.',
    'Sentences',
  ]
  assert [each.where for each in found if each.text.startswith('Another')] == ['page.md:11']
  assert mean_words(found[:2]) == (14 + 4 + 4 + 6 + 1) / 5


def source(text: str, tmp_path: Path) -> Path:
  path = tmp_path / 'source.py'
  path.write_text(textwrap.dedent(text))
  return path


SOURCE = '''
  def run(a):
    """Runs it.

    Args:
      a: a first. A second
        line.
      b: another.
    """
    # An own word: glance.
    raise ValueError(f'the {a} of the initialisation', 'glance')
'''


def test_docstrings_are_split_at_documented_names(tmp_path: Path):
  found = list(prose.docstrings(source(SOURCE, tmp_path), tmp_path))
  assert [each.text for each in found] == [
    'Runs it.',
    'CODE: a first. A second line.',
    'CODE: another.',
  ]
  assert found[2].where == 'source.py:8'


def test_comments_and_messages_are_read_and_keys_are_not(tmp_path: Path):
  found = banned_words(prose.comments_and_messages(source(SOURCE, tmp_path), tmp_path))
  assert [line.partition(';')[0] for line in found] == [
    "source.py:10: 'glance'",
    "source.py:11: 'initialisation'",
  ]


def test_a_sentence_of_29_words_is_too_long():
  words = ' '.join(['Word'] * MAX_WORDS)
  assert not list(long_sentences([Passage('here', f'{words}. {words}.')]))
  (found,) = long_sentences([Passage('here', f'Short. Longer {words}.')])
  assert found.startswith('here: 29 words')


@pytest.mark.parametrize(
  'text',
  [
    *(
      'A glance at it',
      'Mends it',
      'whole evaluations',
      'The Goal.',
      'its fingerprint',
      'hard limit',
    ),
    *('Behaviour', 'neighbouring', 'initialised', 'renormalisation', 'summarise', 'optimiser'),
    *('the centre', 'modelling', 'a licence', '5 per cent'),
  ],
)
def test_own_words_and_british_spellings_are_refused(text: str):
  assert list(banned_words([Passage('here', text)]))


@pytest.mark.parametrize(
  'text',
  [
    *(
      'promise',
      'a precise noise',
      'raised otherwise',
      'revised',
      'recommend',
      'analysis',
      'emphasis',
    ),
    *('four', 'hours', 'normalize', 'parameter', 'percent', 'canceled'),
  ],
)
def test_other_words_are_not(text: str):
  assert not list(banned_words([Passage('here', text)]))


def test_names_in_code_are_not_words(tmp_path: Path):
  assert not list(banned_words(passages('AlgoPerf has `goal_reached` and `"the goal"`.', tmp_path)))


def test_the_help_of_every_flag_and_of_verbs_below_is_read():
  parser = argparse.ArgumentParser(prog='verb', description='What it does.')
  parser.add_argument('--one', help='where it stands, %(default)s', default='here')
  parser.add_argument('--old', help=argparse.SUPPRESS)
  below = parser.add_subparsers().add_parser('below', prog='verb below', help='runs below')
  below.add_argument('two', help='Whether it is')
  found = list(prose.parser_helps(parser))
  assert {each.text for each in found} >= {'What it does.', 'runs below', 'where it stands, VALUE'}
  assert [line.split(':')[0] for line in bad_starts(found)] == [
    'algoeff verb --one',
    'algoeff verb below two',
  ]


def test_every_verb_and_a_flag_of_each_is_among_the_help_texts():
  where = ' '.join(each.where for each in prose.helps())
  assert all(f'algoeff {verb}' in where for verb in cli.verbs())
  assert 'algoeff data prepare --source' in where
