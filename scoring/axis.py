"""What is raced: seconds, or steps weighed by what a step costs.

A cost-adjusted step is a step times its cost. The cost is the submission's seconds of a step over
the baseline's, on the same workload, host and framework. So a submission pays for slow steps on any
machine. Each study has its own measure of the cost, so that its noise enters the spread over
studies.

A race measures costs in rounds of the submission and the baseline in turn. Where all the
submissions of a workload and host were measured so, those are the costs; otherwise they are the
median step times of the runs. What was measured on one host says nothing of the runs of another.
A step that nobody timed counts as one of the baseline, which a note says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from algorithmic_efficiency.benchmark.suites import Axis
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import StepCost
from scoring.notes import Note

if TYPE_CHECKING:
  import pandas as pd

UNITS = {'seconds': 'seconds', 'cost_adjusted_steps': 'cost-adjusted steps'}

_PLACE = ['workload', 'host', 'framework']
_FAR_LONGER = 1.5  # what drifts between trials is less


def add_times(
  outcomes: pd.DataFrame, axis: Axis, baselines: Sequence[str], costs: Sequence[StepCost] = ()
) -> tuple[pd.DataFrame, list[Note]]:
  """The outcomes with what each trial counts as on the axis, and notes on what that rests on.

  Added columns:

  - `time`: in the unit of the axis; inf for a miss.
  - `cost`: of a step, beside one of the baseline; NaN if unknown.
  - `log_floor`: the noise in the logarithm of a cost; NaN if unknown.
  - `cost_basis`: 'rounds' or 'runs' (see above); empty where seconds are raced.
  """
  if axis == 'seconds':
    seconds = outcomes['submission_time_sec'].fillna(np.inf)
    return outcomes.assign(time=seconds, cost=np.nan, log_floor=np.nan, cost_basis=''), []
  notes: list[Note] = []
  cost, log_floor, by_rounds = _from_rounds(outcomes, costs, notes)
  cost[~by_rounds] = _from_runs(outcomes[~by_rounds], baselines, notes)
  untimed = np.isnan(cost)
  reached = outcomes['step'].notna().to_numpy()
  notes += [Note('untimed', path) for path in outcomes['path'][untimed & reached]]
  steps = outcomes['step'].fillna(np.inf) * np.where(untimed, 1.0, cost)
  basis = np.where(by_rounds, 'rounds', 'runs')
  return outcomes.assign(time=steps, cost=cost, log_floor=log_floor, cost_basis=basis), notes


def _from_rounds(
  outcomes: pd.DataFrame, costs: Sequence[StepCost], notes: list[Note]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cost and floor of each row, and whether all submissions of its place were measured."""
  cost, log_floor = np.full((2, len(outcomes)), np.nan)
  guessed: set[str] = set()
  measured = np.zeros(len(outcomes), dtype=bool)
  for place, rows in outcomes.groupby(_PLACE, observed=True).indices.items():
    entries, studies, hashes = (
      outcomes[name].to_numpy()[rows] for name in ('entry', 'study', 'submission_hash')
    )
    raced = {entry: known for entry, known in zip(entries, hashes, strict=True) if known}
    valid = [
      one for one in costs if (one.workload, one.framework) == place[::2] and one.is_of(raced)
    ]
    there = [one for one in valid if one.host == place[1]]
    reached = outcomes['step'].notna().to_numpy()[rows]
    if not there:
      if reached.any():
        why = 'timed on other hosts alone' if valid else f'no costs in {race_files.COSTS_FILE}'
        notes.append(Note('step_times', _place(*place), why))
      continue
    baseline = there[-1].baseline
    found: dict[str, dict[str, float]] = {baseline: {}}
    floors: dict[str, float] = {}
    for one in there:  # the last measure of a study counts
      if one.baseline == baseline:
        log_costs = floors if one.is_floor else found.setdefault(one.submission, {})
        log_costs[f'study_{one.study}'] = one.log_cost
    missing = sorted(set(entries[reached]) - set(found))
    if missing:
      detail = f'{", ".join(missing)} not timed against {baseline}'
      notes.append(Note('step_times', _place(*place), detail))
      continue
    measured[rows] = True
    for row, entry, study in zip(rows, entries, studies, strict=True):
      if entry in found:  # a miss needs no cost
        cost[row] = 1.0 if entry == baseline else math.exp(_of_study(found[entry], study))
        if entry != baseline and study not in found[entry]:
          guessed.add(f'{entry}, {_place(*place)}, {study}')
    log_floor[rows] = max(map(abs, floors.values()), default=0.0)
    step_secs = outcomes.iloc[rows].groupby('entry', observed=True).step_sec.median().to_dict()
    notes += _timed_otherwise(_place(*place), step_secs, found, baseline)
  notes += [Note('study_cost', where) for where in sorted(guessed)]
  return cost, log_floor, measured


def _timed_otherwise(
  where: str,
  step_secs: Mapping[str, float],
  found: Mapping[str, Mapping[str, float]],
  baseline: str,
) -> Iterator[Note]:
  """Notes who took far longer for a step in trials than in rounds, beside the baseline.

  A submission may find out that it is being timed, or need more time for later steps.
  """
  for name in sorted(found.keys() - {baseline}):
    in_trials = step_secs.get(name, math.nan) / step_secs.get(baseline, math.nan)
    timed = math.exp(statistics.median(found[name].values()))
    if in_trials > _FAR_LONGER * timed:
      yield Note(
        'timed_otherwise',
        where,
        f'{name}: {in_trials:.2f} of a step of {baseline} in trials, {timed:.2f} when timed',
      )


def _of_study(log_costs: dict[str, float], study: str) -> float:
  """The measure of a study; where it has none, the median of the others'."""
  return log_costs.get(study, statistics.median(log_costs.values()))


def _place(workload: str, host: str, framework: str) -> str:
  return f'{workload} on host {host} ({framework})' if host else f'{workload} ({framework})'


def _from_runs(outcomes: pd.DataFrame, baselines: Sequence[str], notes: list[Note]) -> np.ndarray:
  """Returns the cost of each row from the step times of the runs; NaN if a trial has none.

  It is the submission's median in the study over the baseline's median.
  """
  units = _unit_step_times(outcomes, baselines, notes)
  group = ['submission', 'workload', 'study', 'host']
  own = outcomes.groupby(group, observed=True)['step_sec'].transform('median')
  keys = outcomes[_PLACE].itertuples(index=False, name=None)
  unit = np.array([units.get(key, np.nan) for key in keys], dtype=float)
  cost = own.to_numpy() / unit
  return np.where(np.isfinite(cost), cost, np.nan)


def _unit_step_times(
  outcomes: pd.DataFrame, baselines: Sequence[str], notes: list[Note]
) -> dict[tuple[str, str, str], float]:
  """The baseline's median step time by workload, host and framework.

  Without a run of a baseline there, the submission that comes first by name stands in; said in a
  note.
  """
  units: dict[tuple[str, str, str], float] = {}
  timed = outcomes[outcomes.step_sec.notna()]
  for key, group in timed.groupby(_PLACE, observed=True):
    workload, host, framework = key
    wanted = [name for base in baselines for name in (base, f'{base}_{framework}')]
    present = set(group.submission)
    name = next((one for one in wanted if one in present), None)
    if name is None:
      name = min(present)
      notes.append(Note('baseline', _place(*key), f'{name} is the unit of a step'))
    units[workload, host, framework] = float(group.step_sec[group.submission == name].median())
  return units
