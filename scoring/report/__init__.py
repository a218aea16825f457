"""The report: one self-contained page, and its figures as files.

`report.json` holds all that the page shows; the page is made from it and a template alone.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from scoring.leaderboard import Leaderboard
from scoring.outputs import replacing

if TYPE_CHECKING:
  import pandas as pd

PAGE = 'report.html'
DATA = 'report.json'
_NEEDED = {'jinja2': 'jinja2', 'vl_convert': 'vl-convert-python'}  # packages by module


def require_installed() -> None:
  """
  Raises:
    UserError: what the report needs is not installed.
  """
  missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
  if missing:
    raise errors.UserError(
      f'The report needs {" and ".join(missing)}, which is not installed; run '
      "pip install 'algorithmic-efficiency[report]', or score with --no_report."
    )


def write(frame: pd.DataFrame, result: Leaderboard, folder: Path, *, figures: bool = True) -> Path:
  """Writes the page, its data and the figures; returns the page.

  Raises:
    UserError: one of them cannot be written.
  """
  from scoring.report import payload

  data = payload.build(frame, result)
  folder.mkdir(parents=True, exist_ok=True)
  with replacing(folder / DATA) as file:
    file.write(json.dumps(data, separators=(',', ':'), allow_nan=False).encode())
  if figures:
    from scoring.report import figures as files

    files.write(data, folder)
  return write_page(data, folder)


def remove(folder: Path) -> None:
  """Removes the report of an earlier score, if there is one: tables without it replace it."""
  from scoring.report import figures

  if (folder / DATA).is_file():
    for path in (folder / DATA, folder / PAGE, *figures.paths(folder)):
      path.unlink(missing_ok=True)


def rebuild(source: Path, folder: Path) -> Path:
  """Makes the page again, in `folder`, from the data of an earlier one in `source`.

  Raises:
    UserError: there is none, or it is damaged.
  """
  import jinja2

  path = source / DATA
  try:
    data = json.loads(path.read_text(encoding='utf-8'))
    return write_page(data, folder)
  except FileNotFoundError:
    raise errors.UserError(
      f'A report is rebuilt from {DATA}, which {source} has not; score the runs again without '
      '--no_report.'
    ) from None
  except (ValueError, KeyError, TypeError, jinja2.UndefinedError) as error:
    raise errors.UserError(
      f'{path} is damaged or of another version ({error}); score the runs again.'
    ) from None


def write_page(data: dict[str, Any], folder: Path) -> Path:
  from scoring.report.page import render

  text = render(data)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / PAGE
  with replacing(path) as file:
    file.write(text.encode())
  return path
