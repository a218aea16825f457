"""Reads the files of a board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files, race_files, schema
from scoring import report
from scoring.site.history import Scores

LEADERBOARD = 'leaderboard.json'


@dataclass(frozen=True, kw_only=True)
class Board:
  """A finished board.

  Attributes:
    folder: where its files lie.
    shown: all that pages show, as the report has it.
    scores: what changes from one publication to the next.
  """

  folder: Path
  shown: Mapping[str, Any]
  scores: Scores

  @classmethod
  def read(cls, folder: Path) -> Board:
    """
    Raises:
      UserError: the folder holds no board, or a damaged one.
    """
    scores_file, shown_file = folder / LEADERBOARD, folder / report.DATA
    missing = [file.name for file in (scores_file, shown_file) if not file.is_file()]
    if missing:
      raise errors.UserError(
        f'A board is a folder that `algoeff score` or `algoeff bench` wrote, with {LEADERBOARD} '
        f'and {report.DATA}; {folder} lacks {" and ".join(missing)}.{_hint(folder)}'
      )
    try:
      scores = schema.convert(_json(scores_file), Scores)
    except schema.DamagedRecordError as error:
      raise _damaged(scores_file, str(error)) from None
    with report.whole(shown_file):
      shown = _json(shown_file)
      names = shown['charts']['submissions']
    if names != [one.submission for one in scores.leaderboard]:
      raise errors.UserError(
        f'{LEADERBOARD} and {report.DATA} of {folder} are not of one score; score the runs again.'
      )
    return cls(folder=folder, shown=shown, scores=scores)

  def content(self, name: str) -> bytes | None:
    """The content of a file of the board; None if there is none.

    Raises:
      UserError: it cannot be read.
    """
    file = self.folder / Path(name).name  # whatever a submission is called
    return _read(file) if file.is_file() else None

  @property
  def unit(self) -> str:
    return self.shown['unit']


def _read(file: Path) -> bytes:
  try:
    return files.read_bytes(file)
  except OSError as error:
    raise errors.UserError(f'{file} cannot be read: {error.strerror}.') from None


def _json(file: Path) -> Any:
  try:
    return json.loads(_read(file))
  except (ValueError, RecursionError) as error:
    raise _damaged(file, str(error)) from None


def _damaged(file: Path, why: str) -> errors.UserError:
  return errors.UserError(f'{file} is damaged ({why}); score the runs again.')


def _hint(folder: Path) -> str:
  """Where the board is, if it lies below: a race keeps it beside its runs."""
  below = folder / race_files.SCORES_FOLDER
  return f' Did you mean {below}?' if (below / LEADERBOARD).is_file() else ''
