"""The commands of pages exist, with their flags; README is short, CONTRIBUTING names every room."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest
from sources import ROOT
from test_words import PAGES

from algorithmic_efficiency import cli


def commands(text: str) -> Iterator[list[str]]:
  """The words after `algoeff` of each command, in code blocks and in running text."""
  text = re.sub(r'\\\n\s*', '', text)
  for block, inline in re.findall(
    r'^    .*?\balgoeff (\w.*)|`[^`\n]*\balgoeff (\w[^`]*)`', text, re.M
  ):
    yield (block or inline).partition(' # ')[0].split()


def unknown_words(command: list[str]) -> list[str]:
  """The verb, or the flags of a command that its verb does not have."""
  verb = command[0]
  if verb not in cli.verbs():
    return [verb]
  (parsers,) = (
    action.choices
    for action in cli._parser([verb])._actions
    if isinstance(action, argparse._SubParsersAction)
  )
  known = set(_flags(parsers[verb]))
  given = (word.partition('=')[0].strip("'") for word in command if word.startswith('--'))
  return [flag for flag in given if flag not in known]


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
  for action in parser._actions:
    yield from action.option_strings
    if isinstance(action, argparse._SubParsersAction):
      for below in action.choices.values():
        yield from _flags(below)


@pytest.mark.parametrize('page', PAGES)
def test_the_commands_of_a_page_exist_with_their_flags(page: str):
  shown = list(commands((ROOT / page).read_text()))
  assert [(word, *command) for command in shown for word in unknown_words(command)] == []


def test_commands_are_found_in_pages():
  assert sum(len(list(commands((ROOT / page).read_text()))) for page in PAGES) >= 60


def test_the_page_of_commands_shows_every_command():
  shown = {command[0] for command in commands((ROOT / 'docs' / 'commands.md').read_text())}
  assert shown == set(cli.verbs())


def test_the_readme_is_short():
  assert len((ROOT / 'README.md').read_text().split()) <= 700


@pytest.mark.parametrize(
  ('text', 'wrong'),
  [
    ('    algoeff run --workload a --smok', ['--smok']),
    ('    PYTHONPATH=. algoeff races', ['races']),
    ('and `algoeff bench --hard_limit_sec 5` or', ['--hard_limit_sec']),
    ('    algoeff data prepare mnist \\\n      --sources X', ['--sources']),
    ('    algoeff plan --suite quick # as --that', []),
  ],
)
def test_a_command_or_flag_that_does_not_exist_is_found(text: str, wrong: list[str]):
  assert [word for command in commands(text) for word in unknown_words(command)] == wrong


def test_the_tree_names_every_room_of_the_core():
  tree = (ROOT / 'CONTRIBUTING.md').read_text().partition('## What lies where')[2].split('```')[1]
  core = tree[tree.index('spec.py') : tree.index('workloads/')]
  named = set(re.findall(r'[\w.]+\.py|\w+(?=/ )|\w+(?=/$)', core, re.M))
  found = {
    path.name
    for path in (ROOT / 'algorithmic_efficiency').iterdir()
    if not path.name.startswith(('_', '.'))
  }
  assert named == found
