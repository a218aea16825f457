"""A CSV file that grows by rows in constant time; only a column never seen before rewrites it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from algorithmic_efficiency import files


class CsvTable:
  """Rows of numbers by column name.

  The first row's columns stand in alphabetical order, columns that come later to the right of them;
  a value that a row does not have is left empty. Floats are written so that they are read back
  exactly; numbers that are not finite as `nan`, `inf` and `-inf`.
  """

  def __init__(self, path: Path, rows: Iterable[Mapping[str, float | int]] = ()):
    """Starts the file anew with `rows`.

    Raises:
      UserError: the file could not be written.
    """
    self._path = path
    self._columns: dict[str, None] = {}
    self._header_bytes = 0
    self._file: files.AppendFile | None = None
    body: list[tuple[bytes, int]] = []
    for row in rows:
      self._widen(row)
      body.append((self._line(row), len(self._columns)))
    width = len(self._columns)
    if body:
      self._replace(line.rstrip(b'\n') + b',' * (width - had) + b'\n' for line, had in body)
    else:
      path.unlink(missing_ok=True)

  def append(self, row: Mapping[str, float | int]) -> None:
    """Writes one row.

    Raises:
      UserError: it could not be written; the rows before it are kept.
    """
    had = len(self._columns)
    if self._widen(row):
      self._rewrite(had)
    assert self._file is not None
    self._file.append(self._line(row))

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None

  def _widen(self, row: Mapping[str, float | int]) -> bool:
    new = sorted(row.keys() - self._columns.keys())
    self._columns.update(dict.fromkeys(new))
    return bool(new)

  def _line(self, row: Mapping[str, float | int]) -> bytes:
    return (','.join([str(row.get(name, '')) for name in self._columns]) + '\n').encode()

  def _rewrite(self, had: int) -> None:
    """Adds the columns from number `had` on to every row there is."""
    if not had:
      self._replace(())
      return
    padding = b',' * (len(self._columns) - had) + b'\n'
    with open(self._path, 'rb') as old:
      old.seek(self._header_bytes)
      self._replace(line.rstrip(b'\n') + padding for line in old)

  def _replace(self, lines: Iterable[bytes]) -> None:
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerow(self._columns)
    header = text.getvalue().encode(errors='backslashreplace')
    with files.replacing(self._path, durable=False) as new:
      new.write(header)
      new.writelines(lines)
    self._header_bytes = len(header)
    self.close()
    self._file = files.AppendFile(self._path)
