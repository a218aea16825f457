"""Packs a submission and the logs of its runs into one file, to hand in.

ENTRY is a name or folder of a submission with its search space and submission_info.yml. RUNS is a
folder of runs, ours or AlgoPerf's. All trials of the suite must be there and finished, unless
--partial is given. Hidden files, caches, weights and what looks like a secret stay at home, and are
listed. The same files give the same package.

Example: algoeff pack ./my_optimizer race -o my_optimizer.zip
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.cli import _flags

if TYPE_CHECKING:
  from algorithmic_efficiency.entries.pack import Packed

SUMMARY = 'pack a submission and its runs to hand them in'


def arguments(parser: _flags.Parser) -> None:
  parser.add_argument('entry', metavar='ENTRY', help='name or folder of the submission')
  parser.add_argument(
    'runs', type=_flags.present_folder, metavar='RUNS', help="folder of runs, ours or AlgoPerf's"
  )
  parser.add(
    'output',
    group=_flags.OUTPUT,
    short='o',
    required=True,
    metavar='FILE',
    help='write the package to FILE, a .zip',
  )
  parser.add(
    'name',
    group=_flags.RUN,
    metavar='NAME',
    help='name that the submission ran under',
    unset='that of its folder',
  )
  _flags.add(parser, 'suite', unset='that of the runs')
  _flags.add(parser, 'ruleset', default=None, unset='that of the runs')
  parser.add(
    'partial',
    group=_flags.RUN,
    action='store_true',
    help='pack although trials are missing or failed; each counts as a miss',
  )
  _flags.add(parser, 'path', 'workload_path', 'json')


def run(args: argparse.Namespace) -> int:
  from algorithmic_efficiency.entries.pack import Packing, pack
  from algorithmic_efficiency.results import files

  _flags.find_own(args)
  packed = pack(
    Packing(
      entry=args.entry,
      runs=Path(args.runs).expanduser(),
      output=_zip(args.output),
      name=args.name,
      suite=args.suite,
      ruleset=args.ruleset,
      partial=args.partial,
    )
  )
  for path in packed.left_out:
    print(errors.printable(f'Left out: {path}'), file=sys.stderr)
  print(files.encode(_as_json(packed), indent=2) if args.json else _sentences(packed))
  return 0


def _zip(text: str) -> Path:
  path = Path(text).expanduser()
  if path.suffix != '.zip' or path.is_dir():
    raise errors.UserError(f'--output must be a file that ends in .zip; it is {text}.')
  return path


def _as_json(packed: Packed) -> dict[str, object]:
  return {
    'package': str(packed.path),
    'sha256': packed.sha256,
    'num_bytes': packed.size,
    'submission': packed.manifest.submission,
    'suite': packed.manifest.suite,
    'ruleset': packed.manifest.ruleset,
    'num_files': len(packed.manifest.files),
    'num_trials': packed.num_trials,
    'shortcomings': packed.shortcomings,
    'left_out': [str(path) for path in packed.left_out],
  }


def _sentences(packed: Packed) -> str:
  stated = packed.manifest
  lines = [f'Missing or incomplete: {text}' for text in packed.shortcomings]
  lines.append(
    f'{packed.path}: {stated.submission} for {stated.suite} ({stated.ruleset} tuning), '
    f'{packed.num_trials} trials, {len(stated.files)} files, {packed.size:,} bytes'
  )
  lines.append(f'SHA-256: {packed.sha256}')
  return errors.printable('\n'.join(lines))
