"""Who leads, how sure that is, and why: a scored set of runs in a few plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scoring.axis import UNITS
from scoring.outputs import number_of
from scoring.result import Result
from scoring.statistics.verdicts import Verdict, least_studies

_MAX_NAMES = 4
_MAX_WORKLOADS = 8
_MAX_LEADERS = 3  # of those that share the first place


def sentences(result: Result, verdicts: Sequence[Verdict]) -> list[str]:
  """Two to four sentences on the leader, for readers who read nothing else.

  Args:
    verdicts: of all pairs; the better score stands first in each.
  """
  leaders = [s for s in result.ranking if result.rank(s) == 1]
  names = [result.submissions[s] for s in leaders]
  score = f'{result.scores[leaders[0]]:.3f}'
  if not result.scores[leaders[0]]:
    return ['No submission reaches a target in time, so that nobody leads.']
  if len(result.submissions) == 1:
    return [f'{names[0]} is alone here, with a score of {score}.', _where(result, leaders[0])]
  first = f'{names[0]} leads with a score of {score}.'
  if len(leaders) > 1:
    first = f'{_listed(names)} share the first place, with a score of {score}.'
  if len(result.workloads) == 1:
    return [first, *_how_sure(names[0], verdicts), *by_workload(result)]
  why = [_where(result, s) for s in leaders[:_MAX_LEADERS]]
  return [first, *_how_sure(names[0], verdicts), *why]


def by_workload(result: Result) -> list[str]:
  """A sentence for each workload that counts: who wins it, and how far behind the next one is."""
  names = [name for name in result.base if np.isfinite(_times(result, name)).any()]
  found = [_who_wins(result, name) for name in names[:_MAX_WORKLOADS]]
  missed = [name for name in result.base if name not in names]
  return [*found, f'Nobody reaches a target on {_listed(missed)}.'] if missed else found


def _times(result: Result, workload: str) -> np.ndarray:
  """[submission]: the median time to the target; inf for a miss, NaN where there are no runs."""
  return result.times[:, result.workloads.index(workload)]


def _who_wins(result: Result, workload: str) -> str:
  times = _times(result, workload)
  first, *others = (int(s) for s in np.argsort(times, kind='stable') if not np.isnan(times[s]))
  unit = UNITS[result.rules.axis]
  text = f'On {workload} {result.submissions[first]} wins, after {times[first]:,.0f} {unit}'
  if not others:
    return f'{text}, alone.'
  second = result.submissions[others[0]]
  if np.isfinite(times[others[0]]):
    return f'{text}; {second} takes {times[others[0]] / times[first]:.2f} times as many.'
  target = result.rules.members[workload].target
  rows = result.outcomes
  best = rows.best[(rows.submission == second) & (rows.workload == workload)].median()
  return (
    f'{text}; {second} misses the target: its best {target.metric} is {best:.3g}, where '
    f'{target.validation:.3g} is asked for.'
  )


def _how_sure(leader: str, verdicts: Sequence[Verdict]) -> list[str]:
  """What the verdicts say of the leader against the others."""
  mine = [one for one in verdicts if one.a == leader]
  by_kind = {
    kind: [one.b for one in mine if one.verdict == kind]
    for kind in ('better', 'undecided', 'same', 'worse')
  }
  if not any(one.can_decide for one in mine):
    studies, workloads = mine[0].num_studies, mine[0].num_workloads
    where = number_of(workloads, 'workload', 'workloads')
    return [
      f'That is not sure yet: on {where} a verdict needs {least_studies(workloads)} studies at '
      f'least, and these runs have {studies}.'
    ]
  if len(by_kind['better']) == len(mine):
    whom = f'all {len(mine)} others' if len(mine) > 1 else mine[0].b
    return [f'The runs are enough to say that it is better than {whom}.']
  found = []
  if by_kind['undecided']:
    found.append(f'The runs do not tell it from {_listed(by_kind["undecided"])}.')
  if by_kind['same']:
    found.append(f'It is the same as {_listed(by_kind["same"])}.')
  if by_kind['better']:
    found.append(f'It is better than {_listed(by_kind["better"])}.')
  if by_kind['worse']:
    found.append(f'By the mean over all studies it is worse than {_listed(by_kind["worse"])}.')
  return found


def _where(result: Result, s: int) -> str:
  """On how many workloads a submission is the fastest, and which ones it misses."""
  fastest = result.ratios.min(axis=0) == result.ratios[s]
  fastest &= np.isfinite(result.ratios[s])
  missed = [
    name for name, ratio in zip(result.base, result.ratios[s], strict=True) if ratio == np.inf
  ]
  count = number_of(result.columns.num_counted, 'workload', 'workloads')
  text = f'{result.submissions[s]} is the fastest on {int(fastest.sum())} of {count}'
  if not missed:
    return f'{text}, and misses none.'
  return f'{text}, and does not score on {_listed(missed)}.'


def _listed(names: Sequence[str]) -> str:
  """Names in a sentence; many are counted."""
  if len(names) > _MAX_NAMES:
    return f'{", ".join(names[: _MAX_NAMES - 1])} and {len(names) - _MAX_NAMES + 1} others'
  return f'{", ".join(names[:-1])} and {names[-1]}' if len(names) > 1 else names[0]
