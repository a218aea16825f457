"""A static site of a board: pages without a network, a feed of changes, and the data.

A site is a mapping of paths to contents, made from the files of a board and from the history that
the site before it kept. It needs no server: pages work from a folder, too.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors
from scoring import report


@dataclass(frozen=True, kw_only=True)
class Site:
  """A site that was written.

  Attributes:
    page: the leaderboard, where a reader starts.
    num_files: files of the site.
    num_bytes: their size.
    changes: what is new since the last publication, in sentences.
  """

  page: Path
  num_files: int
  num_bytes: int
  changes: tuple[str, ...]


def build(board: Path, output: Path, *, date: datetime.datetime, url: str = '') -> Site:
  """Makes the site of a board, in the place of an earlier one.

  Args:
    board: folder with the results of a score.
    output: folder of the site: absent, empty, or a site of the same suite and ruleset.
    date: when the board is published; with a time zone.
    url: address under which the site will be found; the feed then has absolute links.

  Raises:
    UserError: the board is none, the folder holds something else, it cannot be written, or the site
      was published later than `date`.
  """
  report.require_installed('The site', or_else='')
  from scoring.site import contents, folder, history
  from scoring.site.board import Board

  earlier = folder.read(output)
  found = Board.read(board)
  publications = history.published(earlier, found.scores, date)
  with report.whole(board / report.DATA):
    files = contents.of(found, publications, url)
  folder.write(output, files, publications)
  texts = history.changes_of(publications, found.unit)
  return Site(
    page=output / contents.FIRST_PAGE,
    num_files=len(files) + 1,
    num_bytes=sum(map(len, files.values())),
    changes=texts if publications != earlier else (),
  )


def date_of(text: str) -> datetime.datetime:
  """A date or a time as in ISO 8601; without a time zone it is of UTC.

  Raises:
    UserError: it is neither.
  """
  try:
    found = datetime.datetime.fromisoformat(text)
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return found.astimezone(datetime.UTC)
  except (ValueError, OverflowError):
    raise errors.UserError(
      f'A date must be as 2026-05-31 or 2026-05-31T12:00; it is {errors.shown(text)}.'
    ) from None
