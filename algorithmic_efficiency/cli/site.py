"""Makes a static site of a board: leaderboard, submissions, workloads, changes and data.

BOARD is the folder that `algoeff score` or `algoeff bench` wrote its results to. The pages need no
network and no server. Published again over an earlier site, a board says what has changed, on a
page and as an Atom feed.

Example: algoeff site runs/scores -o public
"""

from __future__ import annotations

import argparse

from algorithmic_efficiency import errors
from algorithmic_efficiency.cli import _flags

SUMMARY = 'make a static site of a board'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument(
    'board', type=_flags.present_folder, metavar='BOARD', help='folder with the results of a score'
  )
  parser.add(
    'output',
    group=_flags.OUTPUT,
    short='o',
    type=_flags.folder,
    required=True,
    metavar='DIR',
    help='write the site to DIR, which is empty or an earlier site',
  )
  parser.add(
    'date',
    group=_flags.OUTPUT,
    metavar='DATE',
    help='day or time of the publication, as 2026-05-31',
    unset='now',
  )
  parser.add(
    'url',
    group=_flags.OUTPUT,
    type=_address,
    metavar='URL',
    help='address of the site, for the links of the feed',
    unset='links relative to the feed',
  )


def _address(text: str) -> str:
  from scoring.report.page import is_web_address

  if not is_web_address(text):
    raise argparse.ArgumentTypeError(f'must begin with https:// or http://; it is {text}')
  return text.rstrip('/') + '/'


def run(args: argparse.Namespace) -> int:
  import datetime
  from pathlib import Path

  from scoring import site

  date = site.date_of(args.date) if args.date else datetime.datetime.now(datetime.UTC)
  made = site.build(
    Path(args.board).expanduser(), Path(args.output).expanduser(), date=date, url=args.url or ''
  )
  for text in made.changes:
    print(errors.printable(text))
  print(f'Site: {made.page} ({made.num_files} files, {made.num_bytes / 1e6:.1f} MB)')
  return 0
