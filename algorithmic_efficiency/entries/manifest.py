"""The first page of a package, `entry.json`: what was entered, and the hash of every other file.

A package holds `entry.json`, `submission/` with the code, and `runs/` with the logs of the trials.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from algorithmic_efficiency.benchmark.suites import Ruleset
from algorithmic_efficiency.entries.archive import FileHash
from algorithmic_efficiency.entries.verdict import RefusedError
from algorithmic_efficiency.results import files, schema

FILE = 'entry.json'
CODE, RUNS = 'submission', 'runs'
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
  """The content of `entry.json`.

  Attributes:
    submission: name that the entry is scored under.
    is_partial: whether trials of the suite may be missing.
    files: hash and size of every other file, by its path.
  """

  submission: str
  suite: str
  ruleset: Ruleset
  is_partial: bool = False
  files: Mapping[str, FileHash] = field(default_factory=dict)
  format: int = FORMAT

  def encoded(self) -> bytes:
    return (files.encode(dataclasses.asdict(self), indent=2) + '\n').encode()


def read(folder: Path) -> Manifest:
  """Reads the manifest of an unpacked package.

  Raises:
    RefusedError: there is none, or it is damaged or of a newer format.
  """
  try:
    manifest = schema.convert(schema.read_json(folder / FILE), Manifest)
  except FileNotFoundError:
    raise RefusedError('hashes', FILE, 'It is missing; `algoeff pack` writes it.') from None
  except schema.DamagedRecordError as error:
    raise RefusedError('hashes', FILE, f'It is damaged ({error}).') from None
  if manifest.format > FORMAT:
    text = f'It has format {manifest.format}; this version reads up to {FORMAT}.'
    raise RefusedError('hashes', FILE, text)
  return manifest


def check(manifest: Manifest, found: Mapping[str, FileHash]) -> None:
  """Makes sure that a package holds the files of its manifest, unchanged, and no others.

  Args:
    found: hash of each file of the package.

  Raises:
    RefusedError: it does not.
  """
  stated = manifest.files
  for name in sorted((found.keys() | stated.keys()) - {FILE}):
    if name not in stated:
      raise RefusedError('hashes', name, f'{FILE} does not list it.')
    if name not in found:
      raise RefusedError('hashes', name, 'It is listed and missing.')
    if found[name] != stated[name]:
      raise RefusedError('hashes', name, 'It is not the file that was packed: its hash differs.')
    if name.split('/')[0] not in (CODE, RUNS):
      raise RefusedError('hashes', name, f'A package holds {FILE}, {CODE}/ and {RUNS}/ alone.')
