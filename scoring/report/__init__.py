"""The report: one self-contained page, and its figures as files.

`report.json` holds all that the page shows; the page is made from it and a template alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
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


def require_installed(
  what: str = 'The report', or_else: str = ', or score with --no_report'
) -> None:
  """
  Raises:
    UserError: what pages and charts need is not installed.
  """
  missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
  if missing:
    raise errors.UserError(
      f'{what} needs {" and ".join(missing)}, which is not installed; run '
      f"pip install 'algorithmic-efficiency[report]'{or_else}."
    )


@dataclass(frozen=True, kw_only=True)
class Unfinished:
  """How far a race is that goes on while its report is written."""

  num_ended: int
  num_trials: int
  reload_sec: int = 30


def write(
  frame: pd.DataFrame,
  result: Leaderboard,
  folder: Path,
  *,
  figures: bool = True,
  unfinished: Unfinished | None = None,
) -> Path:
  """Writes the page, its data and the figures; returns the page.

  Args:
    unfinished: how far the race is; None if it is over. The page of one that is not says so, and
      reloads itself.

  Raises:
    UserError: one of them cannot be written.
  """
  from scoring.report import payload

  data = payload.build(frame, result)
  data['unfinished'] = None if unfinished is None else asdict(unfinished)
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
  with whole(source / DATA):
    try:
      data = json.loads((source / DATA).read_text(encoding='utf-8'))
    except FileNotFoundError:
      raise errors.UserError(
        f'A report is rebuilt from {DATA}, which {source} has not; score the runs again without '
        '--no_report.'
      ) from None
    return write_page(data, folder)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
  """Makes pages from a file of results in the block.

  Raises:
    UserError: the file lacks what pages need.
  """
  import jinja2

  try:
    yield
  except (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    jinja2.UndefinedError,
  ) as error:
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
