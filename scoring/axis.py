"""What is raced: seconds, or steps weighed by what a step costs.

A cost-adjusted step is a step times the submission's median step time over the baseline's on the
same host, so that a submission pays for slow steps whatever the machine. Both medians are of the
same workload; the submission's is that of its study, so that its noise enters the spread over
studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from algorithmic_efficiency.suites import Axis
from scoring.notes import Note

if TYPE_CHECKING:
  import pandas as pd

UNITS = {'seconds': 'seconds', 'cost_adjusted_steps': 'cost-adjusted steps'}


def add_times(
  outcomes: pd.DataFrame, axis: Axis, baselines: Sequence[str]
) -> tuple[pd.DataFrame, list[Note]]:
  """The outcomes with columns `time`, on the axis (inf for a miss), and `cost`, of a step."""
  if axis == 'seconds':
    return outcomes.assign(time=outcomes['sec'].fillna(np.inf), cost=np.nan), []
  notes: list[Note] = []
  units = _unit_step_times(outcomes, baselines, notes)
  group = ['submission', 'workload', 'study', 'host']
  own = outcomes.groupby(group, observed=True)['step_sec'].transform('median')
  keys = zip(outcomes.workload, outcomes.host, outcomes.framework, strict=True)
  unit = np.array([units.get(key, np.nan) for key in keys], dtype=float)
  cost = own.to_numpy() / unit
  cost = np.where(np.isfinite(cost), cost, 1.0)  # a trial too short to be timed
  time = np.where(np.isnan(outcomes['step']), np.inf, outcomes['step'] * cost)
  return outcomes.assign(time=time, cost=cost), notes


def _unit_step_times(
  outcomes: pd.DataFrame, baselines: Sequence[str], notes: list[Note]
) -> dict[tuple[str, str, str], float]:
  """The baseline's median step time by workload, host and framework.

  Without a run of a baseline there, the submission that comes first by name stands in; said in a
  note.
  """
  units: dict[tuple[str, str, str], float] = {}
  timed = outcomes[outcomes.step_sec.notna()]
  for key, group in timed.groupby(['workload', 'host', 'framework'], observed=True):
    workload, host, framework = key
    wanted = [name for base in baselines for name in (base, f'{base}_{framework}')]
    present = set(group.submission)
    name = next((one for one in wanted if one in present), None)
    if name is None:
      name = min(present)
      where = f'{workload} on host {host}' if host else workload
      notes.append(Note('baseline', f'{where} ({framework})', f'{name} is the unit of a step'))
    units[workload, host, framework] = float(group.step_sec[group.submission == name].median())
  return units
