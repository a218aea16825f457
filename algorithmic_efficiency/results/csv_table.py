"""CSV files of numbers: written row by row in constant time, and read as any program saves them.

Only a column never seen before rewrites a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency.results import files


class CsvTable:
  """Rows of numbers by column name.

  The first row's columns stand in alphabetical order, columns that come later to the right of them;
  a value that a row does not have is left empty. Floats are written so that they are read back
  exactly; numbers that are not finite as `nan`, `inf` and `-inf`.
  """

  def __init__(self, path: Path, rows: Iterable[Mapping[str, float | int]] = ()):
    """Starts the file anew with `rows`; without any, there is no file until the first.

    Raises:
      UserError: the file could not be written.
    """
    self._path = path
    self._columns: list[str] = []
    self._header_bytes = 0
    self._file: files.AppendFile | None = None
    columns, lines = _gathered(rows)
    if lines:
      self._replace(columns, lines)
    else:
      files.remove(path)

  def append(self, row: Mapping[str, float | int]) -> None:
    """Writes one row.

    Raises:
      UserError: it could not be written; the rows before it are kept.
    """
    new = _new_columns(row, self._columns)
    if new:
      self._replace(self._columns + new, (_padded(line, len(new)) for line in self._lines()))
    assert self._file is not None
    self._file.append(_line(row, self._columns))

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None

  def _lines(self) -> Iterator[bytes]:
    """The rows as they are in the file."""
    if self._columns:
      with open(self._path, 'rb') as file:
        file.seek(self._header_bytes)
        yield from file

  def _replace(self, columns: list[str], lines: Iterable[bytes]) -> None:
    header = _header(columns)
    with files.replacing(self._path, durable=False) as new:
      new.write(header)
      new.writelines(lines)
    self._columns = columns
    self._header_bytes = len(header)
    self.close()
    self._file = files.AppendFile(self._path)


def content(rows: Iterable[Mapping[str, float | int]]) -> bytes | None:
  """What a file holds to which these rows were appended; None where there is no file."""
  columns, lines = _gathered(rows)
  return b''.join([_header(columns), *lines]) if lines else None


def _gathered(rows: Iterable[Mapping[str, float | int]]) -> tuple[list[str], list[bytes]]:
  """The columns of some rows, and their lines."""
  columns: list[str] = []
  body: list[tuple[bytes, int]] = []
  for row in rows:
    columns = columns + _new_columns(row, columns)
    body.append((_line(row, columns), len(columns)))
  return columns, [_padded(line, len(columns) - width) for line, width in body]


def _new_columns(row: Mapping[str, float | int], columns: list[str]) -> list[str]:
  return sorted(row.keys() - columns)


def _header(columns: list[str]) -> bytes:
  text = io.StringIO(newline='')
  csv.writer(text, lineterminator='\n').writerow(columns)
  return text.getvalue().encode(errors='backslashreplace')


def _line(row: Mapping[str, float | int], columns: list[str]) -> bytes:
  return (','.join([str(row.get(name, '')) for name in columns]) + '\n').encode()


def _padded(line: bytes, num_columns: int) -> bytes:
  """The line with so many empty columns more."""
  return line[:-1] + b',' * num_columns + b'\n'


@dataclass(frozen=True, kw_only=True)
class Table:
  """A CSV file as texts.

  Attributes:
    header: the names of the columns; empty if their line is cut.
    rows: the complete rows, each as wide as the header.
    cut: what is wrong with the last line, which is then left out; empty if nothing is.
  """

  header: tuple[str, ...]
  rows: list[list[str]]
  cut: str = ''


def parse(data: bytes) -> Table:
  """Reads a CSV file, also one that another program saved again.

  Such a program may write a byte order mark, empty lines, or semicolons between fields and commas
  in numbers. A last line without its end may be cut inside a number, so that it is left out.

  Raises:
    ValueError: the file is no table.
  """
  if not data.strip():
    raise ValueError('an empty file')
  try:
    lines = data.decode('utf-8-sig').encode('ascii').decode().splitlines()
    first, *rows = (row for row in csv.reader(lines, strict=True) if row)
  except (UnicodeError, csv.Error, ValueError) as error:
    raise ValueError(f'not a CSV file ({error})') from None
  if len(first) == 1 and ';' in first[0]:
    first, *rows = (_point_for_comma(row) for row in csv.reader(lines, delimiter=';') if row)
  cut = ''
  if not data.endswith((b'\n', b'\r')):
    if not rows:
      return Table(header=(), rows=[], cut='the line of column names has no end')
    cut = f'the last of {len(rows)} rows has no end; it was left out'
    rows.pop()
  width = len(first)
  if rows and len(rows[-1]) < width:
    cut = f'row {len(rows)} has {len(rows[-1])} of {width} fields; it was left out'
    rows.pop()
  for index, row in enumerate(rows):
    if len(row) != width:
      raise ValueError(f'row {index + 1} has {len(row)} of {width} fields')
  return Table(header=tuple(first), rows=rows, cut=cut)


def _point_for_comma(row: list[str]) -> list[str]:
  return [field.replace(',', '.') for field in row]
