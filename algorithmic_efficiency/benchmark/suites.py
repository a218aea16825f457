"""The named benchmarks, as data: what is raced, by which rules, on which hardware.

Which workloads belong to a suite is said by the definitions (`suites={name: Budget(...)}`); a suite
that comes from a file (`suite_file`) says it itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

Axis = Literal['seconds', 'cost_adjusted_steps']
Ruleset = Literal['external', 'self']
Integral = Literal['grid', 'exact']  # of the performance profile: on 100 points, or its area itself


@dataclass(frozen=True, kw_only=True)
class Tuning:
  """How often a ruleset runs a submission, and the factor on the budget of each trial."""

  num_studies: int
  num_trials: int
  budget_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Suite:
  """One benchmark.

  On the axis of seconds a submission chooses its batch size and the clock decides; on the axis of
  cost-adjusted steps the batch size is the definition's, a step is one batch drawn from the input
  queue, and the budget is a number of steps. `free_init_sec` is how long `get_batch_size` and
  `init_optimizer_state` may take together before the rest is charged as submission time. A trial
  that is silent for `heartbeat_timeout_sec`, or for its budget in seconds if that is longer, is
  ended from outside. `file` is where the suite was read from, and `workloads` what it races: both
  are empty for the suites below.
  """

  name: str
  title: str
  axis: Axis
  tuning: Mapping[Ruleset, Tuning]
  hardware: str
  stop_on_divergence: bool = False
  free_init_sec: float = 120.0
  heartbeat_timeout_sec: float = 3_600.0
  max_ratio: float = 4.0  # a run slower than this multiple of the fastest counts as a miss
  integral: Integral = 'exact'
  counts_only_runnable: bool = False  # whether workloads that cannot run yet are left uncounted
  num_accelerators: int = 1  # of `hardware`; the hours of a run are multiplied by it
  baselines: tuple[str, ...] = ('baseline', 'nadamw')  # whose step time is the unit, by preference
  file: str = ''
  workloads: Mapping[str, WorkloadDefinition] = field(default_factory=dict)

  @property
  def fixes_batch_size(self) -> bool:
    return self.axis == 'cost_adjusted_steps'

  def baseline_among(self, names: Collection[str]) -> str:
    """Of the submissions of a race the one whose step is the unit: the first of the baselines that
    is among them, else the first by name."""
    return next((name for name in self.baselines if name in names), min(names))

  def rules_of(self, ruleset: Ruleset) -> Tuning:
    """
    Raises:
      UserError: the suite does not have this ruleset.
    """
    if ruleset not in self.tuning:
      raise errors.UserError(
        f'The suite {self.name} has no {ruleset} tuning; it has: {", ".join(self.tuning)}. Say '
        'which with --ruleset.'
      )
    return self.tuning[ruleset]

  def rules_hash(self, ruleset: Ruleset) -> str:
    """A hash of what a trial is run by, besides its workload's target, sizes and budget: 16
    hexadecimal digits. How often something is run, and how it is scored, are no part of it."""
    fields = {
      'name': self.name,
      'axis': self.axis,
      'free_init_sec': self.free_init_sec,
      'budget_factor': self.rules_of(ruleset).budget_factor,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


_ANY = 'any machine'
_EMBEDDED_TUNING: Mapping[Ruleset, Tuning] = {
  'external': Tuning(num_studies=5, num_trials=5),
  'self': Tuning(num_studies=5, num_trials=1),
}

SUITES: Mapping[str, Suite] = {
  suite.name: suite
  for suite in (
    Suite(
      name='quick',
      title='Bundled data, at most 30 seconds a trial on a laptop',
      axis='cost_adjusted_steps',
      tuning=_EMBEDDED_TUNING,
      hardware=_ANY,
      heartbeat_timeout_sec=600.0,
      counts_only_runnable=True,
      stop_on_divergence=True,
    ),
    Suite(
      name='lite',
      title='Small real data, minutes a trial on one GPU',
      axis='cost_adjusted_steps',
      tuning=_EMBEDDED_TUNING,
      hardware=_ANY,
      counts_only_runnable=True,
      stop_on_divergence=True,
    ),
    Suite(
      name='full',
      title='The four task families at full size',
      axis='seconds',
      tuning={
        'external': Tuning(num_studies=3, num_trials=5),
        'self': Tuning(num_studies=3, num_trials=1, budget_factor=1.5),
      },
      hardware='4x A100-SXM4-40GB',
      num_accelerators=4,
    ),
    Suite(
      name='algoperf_v05',
      title='AlgoPerf 0.5, the competition of 2024',
      axis='seconds',
      tuning={
        'external': Tuning(num_studies=5, num_trials=5),
        'self': Tuning(num_studies=5, num_trials=1, budget_factor=3.0),
      },
      hardware='8x V100 16 GB',
      num_accelerators=8,
      integral='grid',
    ),
    Suite(
      name='algoperf_v06',
      title='AlgoPerf 0.6, the rolling leaderboard of 2025',
      axis='seconds',
      tuning={
        'external': Tuning(num_studies=3, num_trials=5),
        'self': Tuning(num_studies=3, num_trials=1, budget_factor=1.5),
      },
      hardware='8x V100 16 GB',
      num_accelerators=8,
      integral='grid',
    ),
    Suite(
      name='algoperf_a100',
      title='AlgoPerf 0.6 on A100, the leaderboard of 2026',
      axis='seconds',
      tuning={
        'external': Tuning(num_studies=3, num_trials=5),
        'self': Tuning(num_studies=3, num_trials=1, budget_factor=1.5),
      },
      hardware='4x A100-SXM4-40GB',
      num_accelerators=4,
      integral='grid',
    ),
  )
}
