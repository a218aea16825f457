"""The built-in suites as data: what is raced, by which rules, on which hardware.

A definition names the suites that it belongs to (`suites={name: Budget(...)}`). A suite that comes
from a file (`suite_file`) lists its workloads itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

Axis = Literal['seconds', 'cost_adjusted_steps']
Ruleset = Literal['external', 'self']
Integral = Literal['grid', 'exact']  # area under the performance profile: on 100 points, or exact


@dataclass(frozen=True, kw_only=True)
class Tuning:
  """Number of studies, trials a study, and the budget factor of each trial under one ruleset."""

  num_studies: int
  num_trials: int
  budget_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Suite:
  """One suite: a named benchmark with its rules.

  On the axis of seconds a submission chooses its batch size, and the budget is a time. On the axis
  of cost-adjusted steps the definition sets the batch size, and the budget is a number of steps. A
  step is one batch drawn from the input queue.

  Attributes:
    name: unique name of the suite.
    title: one line for `algoeff list` and RULES.md.
    axis: unit of the race.
    tuning: number of studies and trials, by ruleset.
    hardware: accelerators that a trial uses, or 'any machine'.
    stop_on_divergence: True if a trial ends when a parameter stops being finite.
    free_init_sec: seconds that `get_batch_size` and `init_optimizer_state` may take together, free
      of charge.
    heartbeat_timeout_sec: seconds without a heartbeat after which a trial is ended; its budget in
      seconds, if longer.
    max_ratio: multiple of the fastest time above which a time counts as a miss.
    integral: how the area under the performance profile is computed.
    counts_only_runnable: True if workloads without code are left out of the count.
    num_accelerators: accelerators of `hardware`; device-hours are hours times this number.
    running_average_bn: what batch norm normalizes by in JAX where a training forward pass does not
      update its statistics and the submission does not say. True means the running averages, as in
      AlgoPerf, False means the batch. In PyTorch, it is always the batch.
    baselines: submissions whose step time is the unit of costs, by preference.
    file: path of the suite file; empty for built-in suites.
    workloads: definitions of a suite from a file, by name; empty for built-in suites.
  """

  name: str
  title: str
  axis: Axis
  tuning: Mapping[Ruleset, Tuning]
  hardware: str
  stop_on_divergence: bool = False
  free_init_sec: float = 120.0
  heartbeat_timeout_sec: float = 3_600.0
  max_ratio: float = 4.0
  integral: Integral = 'exact'
  counts_only_runnable: bool = False
  num_accelerators: int = 1
  running_average_bn: bool = False
  baselines: tuple[str, ...] = ('baseline', 'nadamw')
  file: str = ''
  workloads: Mapping[str, WorkloadDefinition] = field(default_factory=dict)

  @property
  def fixes_batch_size(self) -> bool:
    return self.axis == 'cost_adjusted_steps'

  def baseline_among(self, names: Collection[str]) -> str | None:
    """Returns the submission whose step time is the unit of costs; None if it is not there.

    It is the first of `baselines` among `names`.
    """
    return next((name for name in self.baselines if name in names), None)

  def rules_of(self, ruleset: Ruleset) -> Tuning:
    """Returns the numbers of studies and trials under `ruleset`.

    Raises:
      UserError: the suite does not have this ruleset.
    """
    if ruleset not in self.tuning:
      raise errors.UserError(
        f'The suite {self.name} has no {ruleset} tuning; it has: {", ".join(self.tuning)}. Choose '
        'one with --ruleset.'
      )
    return self.tuning[ruleset]

  def rules_hash(self, ruleset: Ruleset) -> str:
    """Returns a hash of the rules of a trial, as 16 hexadecimal digits.

    Target, sizes and budget of the workload are in the hash of its definition. Numbers of studies
    and trials and the rules of scoring are in neither.
    """
    fields: dict[str, Any] = {
      'name': self.name,
      'axis': self.axis,
      'free_init_sec': self.free_init_sec,
      'budget_factor': self.rules_of(ruleset).budget_factor,
    }
    if self.running_average_bn:  # left out where it is not, so that hashes stay
      fields['running_average_bn'] = True
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


_ANY = 'any machine'
# The learning rates of self-tuned NAdamW, AlgoPerf's, are made for horizons of many hours.
_SHORT_BASELINES = ('baseline', 'adamw', 'nadamw')
_FIVE_STUDIES: Mapping[Ruleset, Tuning] = {
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
      tuning=_FIVE_STUDIES,
      hardware=_ANY,
      baselines=_SHORT_BASELINES,
      heartbeat_timeout_sec=600.0,
      counts_only_runnable=True,
      stop_on_divergence=True,
    ),
    Suite(
      name='lite',
      title='Small real data, minutes a trial on one GPU',
      axis='cost_adjusted_steps',
      tuning=_FIVE_STUDIES,
      hardware=_ANY,
      baselines=_SHORT_BASELINES,
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
      running_average_bn=True,
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
      running_average_bn=True,
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
      running_average_bn=True,
      integral='grid',
    ),
  )
}
