"""Estimates the time, device-hours, disk, memory and price of a race before it starts.

Takes the flags of `bench` that say which race it is. Probes every submission on every workload for
a few seconds on this machine. Stores the estimate beside the runs; the report compares it with what
the race took. With --from_budget it starts nothing and assumes that every budget is spent.

Example: algoeff plan --suite quick --submissions nadamw,momentum --ruleset self --frameworks jax \\
  --allow_provisional --price_per_hour 2.5
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.cli._race import race_arguments, race_of

if TYPE_CHECKING:
  from algorithmic_efficiency.experiments.race.estimate import Bounds, BudgetLimits, Estimate
  from algorithmic_efficiency.experiments.race.race import Race

SUMMARY = 'estimate the time and cost of a race'


def arguments(parser: _flags.Parser) -> None:
  race_arguments(parser)
  parser.add(
    'from_budget',
    group=_flags.COST,
    action='store_true',
    help='assume that every trial spends its budget; nothing is started',
  )
  parser.add(
    'devices',
    group=_flags.COST,
    type=_flags.whole,
    metavar='N',
    help='plan for N devices',
    unset='those of this machine',
  )
  parser.add(
    'price_per_hour',
    group=_flags.COST,
    type=_flags.number,
    metavar='P',
    help='price of one device-hour',
  )
  _flags.add(parser, 'max_hours', help='refuse a race that may need more than H device-hours')
  parser.add(
    'evidence',
    group=_flags.COST,
    type=_flags.present_folder,
    metavar='RUNS',
    help='folder of earlier runs, which show where trials stop',
    unset="the race's own",
  )
  _flags.add(parser, 'json')


def run(args: argparse.Namespace) -> int:
  import json
  from dataclasses import asdict

  race, estimate = estimated(args)
  undecided = undecidable(race, estimate)
  if args.json:
    text = json.dumps(asdict(estimate) | {'cannot_decide': undecided}, indent=1)
  else:
    text = '\n'.join([*lines(estimate), *([] if undecided is None else ['', undecided])])
  print(errors.printable(text))
  return 0


def estimated(args: argparse.Namespace) -> tuple[Race, Estimate]:
  """The race that the flags mean, and its estimate, which is stored beside the runs.

  Raises:
    UserError: a flag is wrong, or the race may take more than --max_hours.
  """
  from algorithmic_efficiency.experiments.race import estimate as estimates

  race = race_of(args)
  limits = estimates.BudgetLimits(
    num_devices=args.devices, price_per_hour=args.price_per_hour, max_hours=args.max_hours
  )
  if args.from_budget:
    estimate = estimates.from_budgets(race, limits)
  else:
    estimate = probed(race, limits, args.evidence, retry_failed=args.retry_failed)
  limits.check(estimate)
  if not args.from_budget:
    estimates.store(estimate, race.folder)
  return race, estimate


def undecidable(race: Race, estimate: Estimate) -> str | None:
  """The sentence on a race that gives no verdict whatever its times are; None for any other."""
  from algorithmic_efficiency.benchmark import registry
  from scoring.statistics import verdicts

  submissions = {(one.submission, one.framework) for one in estimate.trials}
  if len(submissions) < 2 or race.options.stop_at == 'never':
    return None
  suite = registry.suite(race.suite)
  planned = [
    registry.workload(name, suite.name) for name in {one.workload for one in estimate.trials}
  ]
  roles = [one.suites[suite.name].role for one in planned if suite.name in one.suites]
  num_workloads = sum(role == 'base' for role in roles)
  num_studies = race.studies or suite.rules_of(race.ruleset).num_studies
  if not num_workloads or verdicts.can_decide(num_studies * num_workloads):
    return None
  return verdicts.cannot_decide(num_studies, num_workloads)


def probed(
  race: Race, limits: BudgetLimits, evidence: str | None = None, *, retry_failed: bool
) -> Estimate:
  """The estimate from probes, with a word on how they get on while they run.

  Raises:
    UserError: as `estimates.from_probes`.
  """
  from pathlib import Path

  from rich.console import Console
  from rich.status import Status

  from algorithmic_efficiency.experiments.race import estimate as estimates
  from algorithmic_efficiency.launch.session import interrupted_when_terminated

  runs = None if evidence is None else Path(evidence).expanduser()
  if runs is not None and not runs.is_dir():
    raise errors.UserError(f'--evidence must name a folder of runs; {runs} is none.')
  with (
    interrupted_when_terminated(),
    Status('Probing', console=Console(stderr=True)) as status,
  ):
    return estimates.from_probes(
      race,
      limits,
      evidence=runs,
      retry_failed=retry_failed,
      on_probe=lambda done, total: status.update(f'Probing: {done} of {total} done'),
    )


def lines(estimate: Estimate) -> list[str]:
  """An estimate in words, and what a trial of each submission on each workload takes."""
  rows = [('', 'expected', 'at most')]
  rows.append((f'wall time, {_at_a_time(estimate)}', *_both(estimate.wall_sec, _duration)))
  if estimate.timing_sec:
    timing = _duration(estimate.timing_sec)
    rows.append(('timing of steps, of that', timing, timing))
  rows.append(('device-hours', *_both(estimate.device_hours, _number)))
  if estimate.price is not None:
    rows.append(('price', *_both(estimate.price, '{:,.2f}'.format)))
  if estimate.disk_bytes is not None:
    rows.append(('disk', *_both(estimate.disk_bytes, _size)))
  for kind, number in (estimate.peak_memory_bytes or {}).items():
    rows.append((f'peak memory, {kind}', '', _size(number)))
  trials = [('submission', 'workload', 'trials', 'expected', 'at most', 'known by')]
  for one in estimate.trials:
    name = f'{one.workload} ({one.framework})'
    seconds = (_duration(one.expected_sec), _duration(one.at_most_sec))
    trials.append((one.submission, name, str(one.num_trials), *seconds, one.basis))
  done = f', of which {estimate.num_done} are done' if estimate.num_done else ''
  return [
    f'{estimate.num_runs} trials{done}, by {estimate.basis}.',
    *_table(rows),
    '',
    'A trial:',
    *_table(trials),
    *estimate.problems,
    '',
    f'Not counted: {"; ".join(estimate.left_out)}.',
  ]


def _at_a_time(estimate: Estimate) -> str:
  devices = f' of {estimate.num_devices} devices' if estimate.num_devices > 1 else ''
  return f'{estimate.num_parallel} trial{"s" * (estimate.num_parallel > 1)} at a time{devices}'


def _both(bounds: Bounds, text: Callable[[float], str]) -> tuple[str, str]:
  return text(bounds.expected), text(bounds.at_most)


def _duration(seconds: float) -> str:
  if seconds < 100:
    return f'{seconds:.3g} s'
  return f'{seconds / 60:.3g} min' if seconds < 6000 else f'{seconds / 3600:,.1f} h'


def _number(value: float) -> str:
  return f'{value:,.1f}' if value >= 10 else f'{value:.2g}'


def _size(num_bytes: float) -> str:
  number, unit = (num_bytes / 2**30, 'GiB') if num_bytes >= 2**28 else (num_bytes / 2**20, 'MiB')
  return f'{number:,.3g} {unit}'


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  padded = [[word.ljust(width) for word, width in zip(row, widths, strict=True)] for row in rows]
  return ['  '.join(row).rstrip() for row in padded]
