"""The prose of the project, without its code: pages, help texts, docstrings, comments, messages.

Read from the sources; only the help texts need the parsers of the commands.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sources import ROOT, tree

from algorithmic_efficiency import cli
from algorithmic_efficiency.cli import _flags

SECTIONS = ('Args:', 'Attributes:', 'Raises:', 'Returns:', 'Yields:')
_CODE = re.compile(r'``.+?``|`[^`]+`', re.DOTALL)
_LINK = re.compile(r'\[([^\]]*)\]\([^)]*\)|<https?://[^>]*>')
_NAMES = re.compile(r'^\w+(, \w+)*: ')  # what `Args:` and `Attributes:` document
_BULLET = re.compile(r'^(?:[-*] |\d+\. )')
# A full stop after these, or after an initial, ends no sentence.
_ABBREVIATION = re.compile(r'\b(e\.g|i\.e|etc|vs|cf|et al|Fig|Eq|Sec|No|[A-Z])\.(?= )')
_END = re.compile(r'(?<=[.?!])[)"\'*_]*\s+(?=[\W_]*[A-Z0-9])')


@dataclass(frozen=True)
class Passage:
  """A paragraph, list item, table cell, help text, comment or message.

  Attributes:
    where: its file and line, or its command and flag.
    text: on one line, with `CODE` for each piece of code.
    running: whether it is a paragraph or list item, whose sentences count in a page's mean.
  """

  where: str
  text: str
  running: bool = True

  @property
  def sentences(self) -> list[str]:
    text = _ABBREVIATION.sub(r'\1', self.text)
    return [part for part in _END.split(text) if num_words(part)]


def num_words(text: str) -> int:
  return sum(any(letter.isalnum() for letter in word) for word in text.split())


def plain(text: str) -> str:
  """Markdown as prose: a link is its words, a piece of code is one word."""
  return ' '.join(_LINK.sub(r'\1', _CODE.sub('CODE', text)).split())


def page(path: Path, root: Path = ROOT) -> Iterator[Passage]:
  """The passages of a Markdown file; headings, code blocks and HTML comments are left out."""
  text = re.sub(r'^```.*?^```$|<!--.*?-->', _blank, path.read_text(), flags=re.DOTALL | re.M)
  yield from _passages(text, str(path.relative_to(root)), 1)


def helps() -> Iterator[Passage]:
  """The summary, the description and the help of every flag, for every verb."""
  for verb in cli.verbs():
    module = importlib.import_module(f'{cli.__name__}.{verb}')
    parser = _flags.Parser(prog=verb, description=module.__doc__)
    module.arguments(parser)
    yield Passage(f'algoeff {verb}', plain(module.SUMMARY))
    yield from parser_helps(parser)


def docstrings(path: Path, root: Path = ROOT) -> Iterator[Passage]:
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in ast.walk(tree(path)):
    if isinstance(node, documented) and (text := ast.get_docstring(node)):
      yield from _passages(text, str(path.relative_to(root)), node.body[0].lineno)


def comments_and_messages(path: Path, root: Path = ROOT) -> Iterator[Passage]:
  """Comments, one a line, and the strings that hold a blank, with `VALUE` for what is filled in."""
  where = path.relative_to(root)
  with path.open('rb') as file:
    for token in tokenize.tokenize(file.readline):
      if token.type == tokenize.COMMENT:
        yield Passage(f'{where}:{token.start[0]}', plain(token.string.lstrip('# ')))
  for node in _strings(tree(path)):
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = ''.join(
      str(value.value) if isinstance(value, ast.Constant) else 'VALUE' for value in values
    )
    for line in text.splitlines():  # a template has a passage a line
      if ' ' in line:
        yield Passage(f'{where}:{node.lineno}', plain(line))


def _strings(node: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
  """The strings below a node, docstrings apart; parts of a formatted string are not told apart."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.JoinedStr) or (
      isinstance(child, ast.Constant) and isinstance(child.value, str)
    ):
      yield child
    elif not (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
      yield from _strings(child)


def parser_helps(parser: argparse.ArgumentParser) -> Iterator[Passage]:
  yield from _passages(inspect.cleandoc(parser.description or ''), f'algoeff {parser.prog}', 1)
  for action in parser._actions:
    name = action.option_strings[-1] if action.option_strings else action.dest
    if isinstance(action, argparse._SubParsersAction):
      for choice in action._choices_actions:
        yield Passage(f'algoeff {parser.prog} {choice.dest}', plain(choice.help or ''))
      for below in action.choices.values():
        yield from parser_helps(below)
    elif action.help not in (None, argparse.SUPPRESS):
      yield Passage(
        f'algoeff {parser.prog} {name}', plain(re.sub(r'%\(\w+\)s', 'VALUE', action.help))
      )


def _passages(text: str, where: str, line: int) -> Iterator[Passage]:
  """Splits a page or docstring at blank lines, list items, table cells and documented names."""
  lines: list[str] = []
  start, section, code = line, False, False

  def flush() -> Iterator[Passage]:
    if words := plain(' '.join(lines)):
      yield Passage(f'{where}:{start}', words)
    lines.clear()

  for number, raw in enumerate(text.splitlines(), line):
    content, indent = raw.strip(), len(raw) - len(raw.lstrip())
    header = not indent and content in SECTIONS
    section = header or (section and (indent > 0 or not content))
    code = not section and indent >= 4 and (code or not lines)
    if content.startswith('|'):
      yield from flush()
      for cell in content.strip('|').split(' | '):
        yield Passage(f'{where}:{number}', plain(cell), running=False)
      continue
    if not content or content.startswith('#') or header or code:
      yield from flush()
      continue
    if _BULLET.match(content) or (section and indent == 2):
      yield from flush()
    if not lines:
      start = number
      content = _BULLET.sub('', content)
      content = _NAMES.sub('CODE: ', content) if section else content
    lines.append(content)
  yield from flush()


def _blank(match: re.Match[str]) -> str:
  """As many empty lines, so that line numbers stay right."""
  return '\n' * match[0].count('\n')
