"""Lists data sets, prepares them in the data folder, and verifies what stands there."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions, data_dir

if TYPE_CHECKING:
  from algorithmic_efficiency.data.catalog import DataSet
  from algorithmic_efficiency.data.prepare import Progress

SUMMARY = 'list, prepare or verify data sets'

_LINES_PER_STAGE = 10  # of progress, where the output is no terminal


def arguments(parser: _flags.Parser) -> None:
  actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
  listing = _action(actions, 'list', 'list every data set: folder, size, license, workloads')
  _flags.add(listing, 'json')
  preparing = _action(actions, 'prepare', 'fetch or convert a data set')
  preparing.add_argument('name', metavar='NAME', help='data set, or workload that uses it')
  preparing.add(
    'source',
    group=_flags.RESULTS,
    action='append',
    default=[],
    metavar='PATH',
    help='raw files, or the TensorFlow Datasets folder with --from tfds; NAME=PATH for each source '
    'of a data set that has several (repeatable)',
    unset='fetch them',
  )
  preparing.add(
    'from',
    group=_flags.RESULTS,
    dest='library',
    choices=('tfds',),
    help='library to read the data set from: TensorFlow Datasets',
  )
  preparing.add(
    'on_bad_image',
    group=_flags.RESULTS,
    choices=('fail', 'skip'),
    default='fail',
    help='fail at an image that cannot be used, or skip it: another of its class is repeated '
    'instead, and the manifest names it',
  )
  _flags.add(preparing, 'overwrite', help='replace a prepared data set')
  verifying = _action(actions, 'verify', 'compare a prepared data set with its checksums')
  verifying.add_argument('name', metavar='NAME', help='data set, or workload that uses it')
  _flags.add(verifying, 'json')


def run(args: argparse.Namespace) -> int:
  folder = data_dir(_flags.options_of(args).data_dir)
  return {'list': _list, 'prepare': _prepare, 'verify': _verify}[args.action](args, folder)


def _action(actions: argparse._SubParsersAction, name: str, text: str) -> _flags.Parser:
  parser = actions.add_parser(name, help=text, description=text)
  _flags.add_options(parser, RunOptions, only=('data_dir',))
  _flags.add(parser, 'path', 'workload_path')
  return parser


def _list(args: argparse.Namespace, data_dir: Path) -> int:
  from algorithmic_efficiency.data import catalog

  _flags.find_own(args)
  found = catalog.data_sets(data_dir)
  if args.json:
    print(json.dumps([dataclasses.asdict(entry) for entry in found], indent=2, default=str))
    return 0
  print(f'Data sets; those that are prepared lie in {data_dir}.')
  print(_row('NAME', 'STATUS', 'SIZE', 'LICENCE', 'WORKLOADS'))
  for entry in found:
    workloads = ', '.join(entry.workloads)
    print(_row(entry.name, entry.status, _size(entry), entry.licence or '-', workloads))
  for entry in found:
    if entry.problem:
      print(entry.problem)
  return 0


def _row(name: str, status: str, size: str, licence: str, workloads: str) -> str:
  return f'{name:<16} {status:<9} {size:>9}  {licence:<13} {workloads}'


def _size(entry: DataSet) -> str:
  if entry.num_bytes is None:
    return '-'
  size, units = float(entry.num_bytes), ['B', 'kB', 'MB', 'GB', 'TB']
  while size >= 1000 and len(units) > 1:
    size, units = size / 1000, units[1:]
  return f'{size:.0f} {units[0]}' if units[0] == 'B' or size >= 100 else f'{size:.1f} {units[0]}'


def _prepare(args: argparse.Namespace, data_dir: Path) -> int:
  from algorithmic_efficiency.data import catalog, prepare

  _flags.find_own(args)
  definition = catalog.definition_for(args.name)
  if definition.bundled:
    print(f'The data set {definition.dataset} is bundled: there is nothing to prepare.')
    return 0
  from_tfds = args.library == 'tfds'
  with _progress() as progress:
    prepared = prepare.prepare(
      definition,
      data_dir,
      source=prepare.sources(definition, args.source, from_tfds=from_tfds),
      from_tfds=from_tfds,
      overwrite=args.overwrite,
      progress=progress,
      on_bad_image=args.on_bad_image,
    )
  splits = ', '.join(f'{number:,} {name}' for name, number in prepared.manifest['splits'].items())
  print(f'{prepared.root} is ready: {splits} examples, {prepared.num_bytes:,} bytes.')
  for field, number in prepared.skipped.items():
    split = field.partition('/')[0]
    print(f'Left out of {split}: {number:,} images, which {prepared.root}/manifest.json names.')
  for field, reasons in prepared.left_out.items():
    for reason, number in reasons.items():
      print(f'Left out of {field.partition("/")[0]}: {number:,} {reason}.')
  return 0


def _verify(args: argparse.Namespace, data_dir: Path) -> int:
  from algorithmic_efficiency import errors
  from algorithmic_efficiency.data import catalog, prepare

  _flags.find_own(args)
  definition = catalog.definition_for(args.name)
  problem = ''
  try:
    with _progress() as progress:
      facts = prepare.verify(definition, data_dir, progress)
  except errors.UserError as error:
    if not args.json:
      raise
    facts, problem = {}, str(error)
  if args.json:
    answer = {'name': definition.dataset, 'intact': not problem, 'problem': problem, **facts}
    print(json.dumps(answer, indent=2))
  else:
    print(
      f'{definition.dataset} is intact: {facts["num_files"]} files, {facts["num_bytes"]:,} bytes.'
    )
  return 2 if problem else 0


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
  """A bar for each stage of the work on a terminal, a few lines for each elsewhere; on stderr."""
  if not sys.stderr.isatty():
    yield _Lines()
    return
  from rich.console import Console
  from rich.progress import Progress as Bars
  from rich.progress import TaskID

  with Bars(console=Console(stderr=True)) as bars:
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int | None) -> None:
      if stage not in tasks:
        tasks[stage] = bars.add_task(stage, total=total)
      bars.update(tasks[stage], completed=done, total=total)

    yield show


class _Lines:
  """Progress as lines: one when a stage begins, then one for each tenth of it."""

  def __init__(self) -> None:
    self._shown: dict[str, int] = {}

  def __call__(self, stage: str, done: int, total: int | None) -> None:
    part = done * _LINES_PER_STAGE // total if total else 0
    if self._shown.get(stage, -1) < part:
      self._shown[stage] = part
      amount = f' {100 * done // total} %' if total else ''
      print(f'{stage}{amount}', file=sys.stderr, flush=True)
