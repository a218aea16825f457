"""Whose seconds stand in one leaderboard: those of one machine, unless the caller says otherwise.

The seconds of two trials compare where hardware and software are the same. Frameworks bring their
own software, so trials of two frameworks compare on the same hardware. Logs that do not say what
they ran on, such as AlgoPerf's, count as those of one machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from scoring.notes import Note
from scoring.rules import ScoringRules
from scoring.runs import Runs

if TYPE_CHECKING:
  import pandas as pd


def look(
  table: pd.DataFrame, rules: ScoringRules, runs: Runs | None, *, mix: bool
) -> tuple[tuple[str, ...], list[Note]]:
  """What several hosts change in the rules of a score, in words, and the note that they give.

  Args:
    table: outcomes, one row a trial.
    mix: whether seconds of several hosts may stand side by side.

  Raises:
    UserError: they do, and may not.
  """
  timed = table[table.status.isin(('reached', 'not_reached'))]
  if not _differ(timed):
    return (), []
  hosts = sorted(set(timed.host))
  if rules.axis != 'seconds':
    weighed = 'a step costs what it costs beside a step of the baseline on the same host'
    detail = weighed if rules.axis == 'cost_adjusted_steps' else 'plain steps count'
    return (), [Note('several_hosts', f'{len(hosts)} hosts', detail)]
  described = [_described(host, timed, runs) for host in hosts]
  if not mix:
    listed = '\n'.join(f'  {text}' for text in described)
    raise errors.UserError(
      'Seconds compare only where hardware and software are the same. These are of '
      f'{len(hosts)} hosts:\n{listed}\nScore each by itself with --include. --mix_hosts takes them '
      'together all the same, and the report says so.'
    )
  return (
    (f'seconds of {len(hosts)} hosts stand side by side: {"; ".join(described)}',),
    [Note('mixed_hosts', text) for text in described],
  )


def _differ(timed: pd.DataFrame) -> bool:
  """Whether there are two machines, or two host hashes within a framework."""
  return bool(timed.machine.nunique() > 1 or (timed.groupby('framework').host.nunique() > 1).any())


def _described(host: str, timed: pd.DataFrame, runs: Runs | None) -> str:
  """A host in a line: its hash, what it is, and the submissions that ran there."""
  there = timed[timed.host == host]
  names = ', '.join(sorted(set(there.submission)))
  if not host:
    return f'logs that do not say where they ran ({names})'
  paths = set(there.path)
  trials = runs.trials if runs is not None else ()
  environments = (one.environment for one in trials if one.path in paths and one.environment)
  facts: Mapping[str, Any] = next(environments, {})
  devices = facts.get('devices') or {}
  what = (
    f'{devices.get("num_devices", "?")} x {devices.get("device_kind", "unknown device")}',
    f'{facts.get("num_usable_cpus", "?")} of {facts.get("cpu_model", "unknown CPU")}',
    ' '.join(f'{name} {version}' for name, version in (devices.get('versions') or {}).items()),
  )
  return f'{host}: {", ".join(filter(None, what))} ({names})'
