"""The settings under which a set was prepared, which are compared when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import records

FILE = 'settings.json'


def write(out: records.Writer, settings: Mapping[str, Any]) -> None:
  """Adds settings, which JSON can hold, to a set before what depends on them is written.

  Raises:
    UserError: writing failed.
  """
  if not out.has(FILE):
    out.file(FILE, json.dumps(settings, indent=1).encode())


def check(prepared: records.Prepared, needed: Mapping[str, Any]) -> None:
  """Compares the settings of a prepared set with those that a workload needs.

  Raises:
    UserError: one differs, or the set has none.
  """
  root, found = prepared.root, {}
  if FILE in prepared.manifest['files']:
    found = json.loads((root / FILE).read_bytes())
  for name, value in needed.items():
    if name not in found or found[name] != value:
      was = repr(found[name]) if name in found else 'not recorded'
      raise errors.UserError(
        f'The data set {root.name} must be prepared with the settings of its workload; its {name} '
        f'is {was}, and the workload needs {value!r}. Prepare it again with: '
        f'{records.prepare_line(root, "--overwrite")}'
      )
