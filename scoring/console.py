"""The leaderboard and a comparison in the terminal."""

from __future__ import annotations

from scoring.leaderboard import Result
from scoring.notes import KINDS, counted
from scoring.outputs import footnotes, leaderboard_rows, number_of
from scoring.statistics import verdicts
from scoring.statistics.verdicts import Verdict


def show_leaderboard(result: Result) -> None:
  """A table, what it means, and what was left out."""
  import rich.box
  from rich.console import Console
  from rich.table import Table

  console = Console(highlight=False)
  rows = [_narrow(row) for row in leaderboard_rows(result)]
  table = Table(
    box=rich.box.SIMPLE_HEAD,
    padding=(0, 1, 0, 0),
    title=result.rules.suite.title,
    title_justify='left',
  )
  for name in rows[0]:
    right = name in ('#', 'score', 'scored on')
    table.add_column(name, justify='right' if right else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*row.values())
  console.print(table)
  for sentence in footnotes(result):
    console.print(sentence, soft_wrap=True)
  for kind, count in counted(result.notes).items():
    console.print(f'Found: {KINDS[kind]} ({count}).', soft_wrap=True)


def _narrow(row: dict[str, str]) -> dict[str, str]:
  """A row with the coverage inside the interval's column: a terminal has 80 characters."""
  if 'interval' not in row:
    return row
  coverage = f' ({row["coverage"]})' if row['coverage'] else ''
  both = {'interval': 'interval (coverage)'}
  texts = {**row, 'interval': row['interval'] + coverage}
  return {both.get(name, name): text for name, text in texts.items() if name != 'coverage'}


def sentence(verdict: Verdict) -> str:
  """A verdict in words."""
  faster = verdict.effect >= 1
  times = verdict.effect if faster else 1 / verdict.effect
  words = (
    f'{times:.2f} times {"faster" if faster else "slower"}' if verdict.effect != 1 else 'equal'
  )
  said = {
    'better': f'{verdict.a} is better than {verdict.b}',
    'worse': f'{verdict.a} is worse than {verdict.b}',
    'undecided': f'Undecided between {verdict.a} and {verdict.b}',
  }[verdict.verdict]
  pairing = 'paired by seed' if verdict.paired else 'unpaired'
  text = (
    f'{said}: {words} in the geometric mean over '
    f'{number_of(verdict.num_workloads, "workload", "workloads")} with '
    f'{number_of(verdict.num_studies, "study", "studies")} {pairing} '
    f'(p = {verdict.adjusted_p:.2g}).'
  )
  if verdict.verdict != 'undecided':
    return text
  within = max(verdict.effect, 1 / verdict.effect) < verdict.min_effect
  if within and verdict.min_effect > 1 + verdicts.MIN_EFFECT + 1e-9:
    return f'{text} What a step costs is known to {verdict.min_effect - 1:.0%} only.'
  if verdict.more_studies is None:
    return f'{text} The difference is too small for any sensible number of studies to decide.'
  more = number_of(verdict.more_studies, 'more study', 'more studies')
  return f'{text} About {more} of each would decide it.'
