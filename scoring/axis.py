"""What is raced: seconds, steps weighed by what a step costs, or plain steps.

A cost-adjusted step is a step times its cost. The cost is the submission's seconds of a step over
the baseline's, on the same workload, host and framework. So a submission pays for slow steps on any
machine. Each study has its own measure of the cost, so that its noise enters the spread over
studies.

A race measures costs in rounds of the submission and the baseline in turn. Where all the
submissions of a workload, host and framework were measured so, those are the costs; otherwise they
are the step times of the runs. What was measured on one host says nothing of the runs of another.
A step that nobody timed counts as one of the baseline, which a note says.

A workload has one unit. It is the step of the first baseline of the suite that was timed on every
host and in every framework where a trial reached the target. If there is none, the steps of all
submissions count as they are: a cost of 1, which the caption and a note say. No other submission
stands in. The choice of one would depend on which others are there, and hosts and frameworks would
be ranked in different units. Plain steps have the same meaning for all, and one more run changes
them for none. They favor submissions with slow steps, so that `--strict` refuses them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from algorithmic_efficiency.benchmark.suites import Axis as RacedAxis
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import StepCost
from scoring.notes import Note

if TYPE_CHECKING:
  import pandas as pd

Axis = RacedAxis | Literal['plain_steps']
UNITS: Mapping[Axis, str] = {
  'seconds': 'seconds',
  'cost_adjusted_steps': 'cost-adjusted steps',
  'plain_steps': 'steps',
}

Basis = Literal['rounds', 'runs', 'plain', '']

_FAR_LONGER = 1.5  # what drifts between trials is less


@dataclass(frozen=True, kw_only=True)
class _Place:
  """The trials of one workload on one host and in one framework.

  Attributes:
    key: workload, host, framework.
    table: its outcomes.
    costs: what was measured of this workload and framework, of files as they are.
  """

  key: tuple[str, str, str]
  table: pd.DataFrame
  costs: Sequence[StepCost]

  def __str__(self) -> str:
    workload, host, framework = self.key
    return f'{workload} on host {host} ({framework})' if host else f'{workload} ({framework})'

  @property
  def entries_that_reached(self) -> set[str]:
    return set(self.table['entry'][self.table['step'].notna()])

  @property
  def is_reached(self) -> bool:
    return bool(self.table['step'].notna().any())


@dataclass(frozen=True, kw_only=True)
class _Costs:
  """The costs of the trials of a place.

  Attributes:
    cost: [trial], NaN if unknown.
    log_bias: the mean log cost of a second process of the baseline; NaN if it was not measured.
  """

  basis: Basis
  cost: np.ndarray
  notes: Sequence[Note] = ()
  unit: str = ''
  log_bias: float = math.nan


def add_times(
  outcomes: pd.DataFrame, axis: Axis, baselines: Sequence[str], costs: Sequence[StepCost] = ()
) -> tuple[pd.DataFrame, list[Note]]:
  """The outcomes with what each trial counts as on the axis, and notes on what that rests on.

  Added columns:

  - `time`: in the unit of the axis; inf for a miss.
  - `cost`: of a step, beside one of the baseline; NaN if unknown.
  - `unit`: the baseline by whose step costs are measured; empty for plain steps and seconds.
  - `log_bias`: the mean logarithm of the cost of a second process of the baseline; NaN if unknown.
  - `cost_basis`: 'rounds', 'runs' or 'plain' (see above); empty on the other axes.
  """
  import pandas as pd

  if axis != 'cost_adjusted_steps':
    column = 'submission_time_sec' if axis == 'seconds' else 'step'
    unknown = dict.fromkeys(('cost', 'log_bias'), np.nan)
    times = outcomes[column].fillna(np.inf)
    return outcomes.assign(time=times, **unknown, unit='', cost_basis=''), []
  notes: list[Note] = []
  parts = []
  for _, column in outcomes.groupby('workload', observed=True):
    places = _places(column, costs)
    for place, found in zip(places, _of_column(places, baselines), strict=True):
      notes += found.notes
      parts.append(
        place.table.assign(
          cost=found.cost,
          unit=found.unit,
          log_bias=found.log_bias,
          cost_basis=found.basis,
        )
      )
  table = pd.concat(parts).loc[outcomes.index]
  untimed = table.cost.isna()
  notes += [Note('untimed', path) for path in table.path[untimed & table.step.notna()]]
  return table.assign(time=table.step.fillna(np.inf) * table.cost.fillna(1.0)), notes


def _places(column: pd.DataFrame, costs: Sequence[StepCost]) -> list[_Place]:
  """The places of one workload's trials."""
  found = []
  for key, table in column.groupby(['workload', 'host', 'framework'], observed=True):
    workload, host, framework = key
    hashes = zip(table.entry, table.submission_hash, strict=True)
    raced = {entry: known for entry, known in hashes if known}
    measured = [
      one
      for one in costs
      if (one.workload, one.framework) == (workload, framework) and one.is_of(raced)
    ]
    found.append(_Place(key=(workload, host, framework), table=table, costs=measured))
  return found


def _of_column(places: Sequence[_Place], baselines: Sequence[str]) -> list[_Costs]:
  """The costs of a workload, in the steps of the first baseline that is in all its places."""
  for baseline in baselines:
    found = [_of_place(place, baseline) for place in places]
    if all(one.basis or not place.is_reached for one, place in zip(found, places, strict=True)):
      return found
  *most, last = baselines
  listed = f'{", ".join(most)} or {last}' if most else last
  notes = [
    Note('baseline', str(place), f'needs steps of {listed}')
    for place in places
    if place.is_reached and not any(_of_place(place, one).unit for one in baselines)
  ]
  notes = notes or [Note('baseline', places[0].key[0], f'needs one of {listed} everywhere')]
  plain = [_Costs(basis='plain', cost=np.ones(len(place.table))) for place in places]
  return [replace(plain[0], notes=notes), *plain[1:]]


def _of_place(place: _Place, baseline: str) -> _Costs:
  """The costs of a place in steps of a baseline; without a basis where it was not timed."""
  there = [one for one in place.costs if one.host == place.key[1] and one.baseline == baseline]
  missing = sorted(place.entries_that_reached - {baseline} - {one.submission for one in there})
  if there and not missing:
    return _from_rounds(place, baseline, there)
  if missing and there:
    why = f'{", ".join(missing)} not timed against {baseline}'
  elif any(one.baseline == baseline for one in place.costs):
    why = 'timed on other hosts alone'
  else:
    why = f'no costs in {race_files.COSTS_FILE}'
  return _from_runs(place, baseline, why)


def _from_rounds(place: _Place, baseline: str, costs: Sequence[StepCost]) -> _Costs:
  """The costs that were measured in turn with the baseline; the last measure of a study counts."""
  found: dict[str, dict[str, float]] = {baseline: {}}
  own: dict[str, float] = {}  # of a second process of the baseline
  for one in costs:
    log_costs = own if one.is_floor else found.setdefault(one.submission, {})
    log_costs[f'study_{one.study}'] = one.log_cost
  cost = np.full(len(place.table), np.nan)
  guessed = set()
  for row, (entry, study) in enumerate(zip(place.table.entry, place.table.study, strict=True)):
    if entry == baseline:
      cost[row] = 1.0
    elif entry in found:  # a miss needs no cost
      cost[row] = math.exp(_of_study(found[entry], study))
      if study not in found[entry]:
        guessed.add(f'{entry}, {place}, {study}')
  notes = [Note('study_cost', where) for where in sorted(guessed)]
  return _Costs(
    basis='rounds',
    cost=cost,
    unit=baseline,
    log_bias=statistics.fmean(own.values()) if own else math.nan,
    notes=[*notes, *_timed_otherwise(place, found, baseline)],
  )


def _timed_otherwise(
  place: _Place, found: Mapping[str, Mapping[str, float]], baseline: str
) -> Iterator[Note]:
  """Notes who took far longer for a step in trials than in rounds, beside the baseline.

  A submission may find out that it is being timed, or need more time for later steps.
  """
  step_secs = place.table.groupby('entry', observed=True).step_sec.median().to_dict()
  for name in sorted(found.keys() - {baseline}):
    in_trials = step_secs.get(name, math.nan) / step_secs.get(baseline, math.nan)
    timed = math.exp(statistics.median(found[name].values()))
    if in_trials > _FAR_LONGER * timed:
      yield Note(
        'timed_otherwise',
        str(place),
        f'{name}: {in_trials:.2f} of a step of {baseline} in trials, {timed:.2f} when timed',
      )


def _of_study(log_costs: Mapping[str, float], study: str) -> float:
  """The measure of a study; where it has none, the median of the others'."""
  return log_costs.get(study, statistics.median(log_costs.values()))


def _from_runs(place: _Place, baseline: str, why: str) -> _Costs:
  """The costs by the step times of the trials; NaN where a trial has none.

  A cost is the submission's median in the study over the baseline's median.

  Args:
    why: why costs were not measured in turn, for the note.
  """
  table = place.table
  names = (baseline, f'{baseline}_{place.key[2]}')
  unit = table.step_sec[table.submission.isin(names)].median()
  own = table.groupby(['submission', 'study'], observed=True)['step_sec'].transform('median')
  cost = own.to_numpy(dtype=float) / unit
  if np.isnan(unit):
    return _Costs(basis='', cost=cost)
  notes = [Note('step_times', str(place), why)] if place.is_reached else []
  return _Costs(basis='runs', cost=cost, unit=baseline, notes=notes)
