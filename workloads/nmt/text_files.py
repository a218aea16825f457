"""Parallel text in files: found by name in a folder, and read pair by pair.

Two files have a sentence a line, `NAME.LANGUAGE`. One file has both with a tab between them:
`NAME.LANGUAGE-LANGUAGE.tsv` in the order of its name, or `NAME.tsv` with the source first. Either
may be packed, `.gz`. Test sets of WMT are `NAME-src.LANGUAGE.sgm` and `NAME-ref.LANGUAGE.sgm`.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from algorithmic_efficiency import errors

from .data_records import ParallelText

# Names of the files of a split, the first choice first, where a data set has no names of its own.
_NAMES: Mapping[str, tuple[str, ...]] = {
  'train': ('train',),
  'validation': ('validation', 'valid', 'val', 'dev'),
  'test': ('test',),
}
_SEGMENT = re.compile(r'<seg id="\d+">(.*)</seg>')


class TextError(errors.UserError):
  """The given text is not as it must be; what was prepared of it is useless."""


class Line(NamedTuple):
  """A sentence, and the number of its line."""

  number: int
  text: str


class Pair(NamedTuple):
  """A pair of sentences, and the file and line of its source."""

  source: str
  target: str
  path: Path
  line: int

  @property
  def where(self) -> str:
    return f'{self.path}, line {self.line}'


class TextFolder:
  """A folder with parallel text.

  Args:
    folder: the folder; files may be at any depth.
    data: languages of the text.
    names: names of the files of each split in their order, without languages. If a split has none
      or they are not there, its file has a usual name.
  """

  is_shuffled = False

  def __init__(self, folder: Path, data: ParallelText, names: Mapping[str, Sequence[str]]):
    self.folder = folder
    self._languages = (data.source_language, data.target_language)
    self._names = names
    # Of files with one name, the one that lies highest is taken.
    paths = sorted(folder.rglob('*'), key=lambda path: (-len(path.parts), path))
    self._files = {path.name: path for path in paths if path.is_file()}

  def __str__(self) -> str:
    return str(self.folder)

  def pairs(self, split: str) -> Iterator[Pair]:
    """Yields the pairs of a split.

    Raises:
      TextError: a file is missing, empty, damaged or not UTF-8, or two files differ in their
        numbers of lines.
    """
    for paths in self._found(split):
      yield from _of_two(*paths) if len(paths) == 2 else self._of_one(paths[0])

  def lines(self, name: str) -> Iterator[Line]:
    """Yields the lines of a file, by its name.

    Raises:
      TextError: it is missing, damaged or not UTF-8.
    """
    if name not in self._files:
      raise TextError(f'--source must hold {name}; {self.folder} does not.')
    return _lines(self._files[name])

  def _found(self, split: str) -> list[tuple[Path, ...]]:
    """
    Raises:
      TextError: the files of a split are missing.
    """
    own = [self._paths(name) for name in self._names.get(split, ())]
    if own and all(own):
      return own
    for name in _NAMES[split]:
      paths = self._paths(name)
      if paths:
        return [paths]
    raise self._missing(split)

  def _paths(self, name: str) -> tuple[Path, ...]:
    """Returns the files of a name: that of each language, or one of both; none if not all exist."""
    for pattern in ('{0}.{1}', '{0}.{1}.gz'):
      found = [self._files.get(pattern.format(name, one)) for one in self._languages]
      if all(found):
        return tuple(cast(list[Path], found))
    sides = [
      f'{name}-{side}.{one}.sgm' for side, one in zip(('src', 'ref'), self._languages, strict=True)
    ]
    if all(side in self._files for side in sides):
      return tuple(self._files[side] for side in sides)
    for middle in (
      '',
      *(f'.{one}-{other}' for one, other in itertools.permutations(self._languages)),
    ):
      for ending in ('.tsv', '.tsv.gz'):
        if f'{name}{middle}{ending}' in self._files:
          return (self._files[f'{name}{middle}{ending}'],)
    return ()

  def _missing(self, split: str) -> TextError:
    source, target = self._languages
    official = [name for name in self._names.get(split, ()) if not self._paths(name)]
    usual = _NAMES[split][0]
    names = ', '.join(official) + (f', or {usual} in their place' if official else usual)
    languages = sorted(
      {
        match[1]
        for file in self._files
        for name in (*official, *_NAMES[split])
        if (match := re.fullmatch(rf'{re.escape(name)}\.([a-z]+)(\.gz)?', file))
      }
    )
    found = f'them in the languages {", ".join(languages)}' if languages else 'none of them'
    return TextError(
      f'--source must hold the {split} text in the languages {source} and {target}: NAME.{source} '
      f'and NAME.{target}, or NAME.{source}-{target}.tsv, packed (.gz) or not. NAME is {names}; '
      f'{self.folder} has {found}.'
    )

  def _of_one(self, path: Path) -> Iterator[Pair]:
    is_turned = f'.{self._languages[1]}-{self._languages[0]}.' in path.name
    for number, line in _lines(path):
      columns = line.split('\t')
      if len(columns) != 2:
        raise TextError(
          f'{path}, line {number} must have two sentences with a tab between them; it has '
          f'{len(columns) - 1} tabs.'
        )
      source, target = reversed(columns) if is_turned else columns
      yield Pair(source, target, path, number)


def _of_two(source: Path, target: Path) -> Iterator[Pair]:
  lines = itertools.zip_longest(_lines(source), _lines(target))
  for count, (one, other) in enumerate(lines):
    if one is None or other is None:
      shorter, longer = (source, target) if one is None else (target, source)
      raise TextError(
        f'{source} and {target} must have as many sentences as each other; {shorter.name} ends '
        f'after {count:,}, and {longer.name} has another in line {(one or other).number:,}.'
      )
    yield Pair(one.text, other.text, source, one.number)


def _lines(path: Path) -> Iterator[Line]:
  """Yields the lines of a text file, or the segments of an SGML file, without line breaks.

  The first line shows which line breaks a file has. In a file without those of Windows, a carriage
  return belongs to its sentence, as in TensorFlow Datasets.

  Raises:
    TextError: the file is empty, damaged or not UTF-8.
  """
  is_sgml = path.suffix == '.sgm'
  number, line_break = 0, '\n'
  try:
    with _opened(path) as file:
      for raw in file:
        number += 1
        if number == 1 and raw.endswith(b'\r\n'):
          line_break = '\r\n'
        line = raw.decode().removesuffix(line_break).removesuffix('\n')
        if not is_sgml:
          yield Line(number, line)
        elif match := _SEGMENT.match(line):
          yield Line(number, match[1])
  except UnicodeDecodeError as error:
    raise TextError(
      f'{path}, line {number} must be UTF-8; it is not ({error.reason} at byte {error.start}). '
      'Convert the file.'
    ) from None
  except (OSError, EOFError, zlib.error) as error:
    raise TextError(f'{path} is truncated or damaged ({error}); fetch it again.') from None
  if not number:
    raise TextError(f'{path} must hold text; it is empty.')


def _opened(path: Path) -> BinaryIO:
  return cast(BinaryIO, gzip.open(path) if path.suffix == '.gz' else path.open('rb'))
