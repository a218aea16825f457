"""A package of an entry in the hands of somebody who knows how it is made."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algorithmic_efficiency.entries import archive, manifest
from algorithmic_efficiency.results import csv_table, schema


@dataclasses.dataclass
class Package:
  """The files of a package. Hashes, checksums and tables are made to fit what is changed."""

  files: dict[str, bytes]

  @classmethod
  def read(cls, path: Path) -> Package:
    with zipfile.ZipFile(path) as found:
      return cls({name: found.read(name) for name in found.namelist()})

  def record(self, trial: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a record, and its checksum with it."""
    fields = json.loads(self.files[f'{trial}/trial.json'])
    del fields['checksum']
    change(fields)
    self.files[f'{trial}/trial.json'] = json.dumps(schema.with_checksum(fields)).encode()

  def log(self, trial: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes a log, and the tables that are views of it."""
    records = [json.loads(line) for line in self.files[f'{trial}/measurements.jsonl'].splitlines()]
    change(records)
    text = ''.join(json.dumps(record) + '\n' for record in records)
    self.files[f'{trial}/measurements.jsonl'] = text.encode()
    rows = [record for record in records if 'row' in record]
    for name, kinds in (
      ('eval_measurements.csv', ('eval',)),
      ('measurements.csv', ('eval', 'metrics', 'end')),
    ):
      content = csv_table.content([one['row'] for one in rows if one['kind'] in kinds])
      self.files[f'{trial}/{name}'] = content or b''

  def write(self, path: Path) -> Path:
    """Writes the package with the hashes that fit."""
    stated = json.loads(self.files.pop(manifest.FILE))
    stated['files'] = {
      name: dataclasses.asdict(archive.hash_of(content)) for name, content in self.files.items()
    }
    archive.write(path, {**self.files, manifest.FILE: json.dumps(stated).encode()})
    return path
