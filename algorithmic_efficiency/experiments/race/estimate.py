"""What a race will take, before it starts: time, device-hours, disk, memory and money.

A trial may take what its budget allows, which is the upper bound. Where it stops is known from
trials that have stopped, if there are any; else `trial_estimate.EXPECTED_SHARE` is assumed.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.race import state, step_cost, trial_estimate
from algorithmic_efficiency.experiments.race.probe import (
  Cell,
  Probe,
  cell_of,
  probe_all,
)
from algorithmic_efficiency.experiments.race.race import Race, expand, with_submissions
from algorithmic_efficiency.experiments.race.trial_estimate import EXPECTED_SHARE
from algorithmic_efficiency.launch.slots import Slot, slots
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.results.race_files import PlannedTrials
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import submission as submissions
from algorithmic_efficiency.trial.config import TrialConfig, budget_of


@dataclass(frozen=True, kw_only=True)
class Bounds:
  """An amount as it is expected, and at most."""

  expected: float
  at_most: float

  def times(self, factor: float) -> Bounds:
    return Bounds(expected=self.expected * factor, at_most=self.at_most * factor)


@dataclass(frozen=True, kw_only=True)
class Estimate:
  """What a race takes.

  Attributes:
    trials: every submission on every workload.
    num_runs, num_done: all trials, and those of them that are done already and cost nothing.
    num_parallel: trials at a time.
    num_devices: of one trial.
    wall_sec, device_hours: of what is left to do.
    timing_sec: the seconds of it in which steps are timed beside the baseline's, in all slots.
    price: the device-hours times the price of one; None without a trial_estimate.
    disk_bytes, peak_memory_bytes: None without probes; the memory is that of all processes that are
      there at a time, on the host and, where it is known, on a device.
    basis: what all this is founded on, in words.
    left_out: what it does not count, in words.
    problems: what could not be found out, and what stands in for it, in words.
  """

  trials: tuple[PlannedTrials, ...]
  num_runs: int
  num_done: int = 0
  num_parallel: int
  num_devices: int
  wall_sec: Bounds
  device_hours: Bounds
  timing_sec: float = 0.0
  price: Bounds | None
  disk_bytes: Bounds | None = None
  peak_memory_bytes: Mapping[str, int] | None = None
  basis: str
  left_out: tuple[str, ...]
  problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BudgetLimits:
  """What the user says of devices and money.

  Attributes:
    num_devices: how many there are; None takes those that this machine has for the race, or, where
      budgets are priced, those of one trial.
    price_per_hour: of one device.
    max_hours: the most device-hours that the race may take.

  Raises:
    UserError: one of them makes no sense.
  """

  num_devices: int | None = None
  price_per_hour: float | None = None
  max_hours: float | None = None

  def __post_init__(self) -> None:
    if self.num_devices is not None and self.num_devices <= 0:
      raise errors.UserError(f'--devices must be positive; it is {self.num_devices}.')
    if self.price_per_hour is not None and not 0 <= self.price_per_hour < float('inf'):
      raise errors.UserError(
        f'--price_per_hour must be a number from 0 on; it is {self.price_per_hour}.'
      )
    if self.max_hours is not None and not self.max_hours > 0:
      raise errors.UserError(f'--max_hours must be positive; it is {self.max_hours}.')

  def num_parallel(self, num_each: int, default: int) -> int:
    """How many trials run at a time that need `num_each` devices."""
    if self.num_devices is None:
      return default
    if self.num_devices < num_each:
      raise errors.UserError(
        f'One trial needs {num_each} devices; --devices gives {self.num_devices}.'
      )
    return self.num_devices // num_each

  def check(self, estimate: Estimate) -> None:
    """
    Raises:
      UserError: the race may take more device-hours than it is allowed to.
    """
    hours = estimate.device_hours
    if self.max_hours is not None and hours.at_most > self.max_hours:
      raise errors.UserError(
        f'The race may take {hours.at_most:.3g} device-hours (expected: {hours.expected:.3g}), '
        f'more than the {self.max_hours:g} of --max_hours. Take fewer submissions, workloads or '
        'studies, or raise the cap.'
      )

  def price(self, device_hours: Bounds) -> Bounds | None:
    return None if self.price_per_hour is None else device_hours.times(self.price_per_hour)


def store(estimate: Estimate, folder: Path) -> None:
  """Writes an estimate beside the runs, to be compared with their real cost.

  The estimate of a race that has begun is not written, because it uses results of the race.

  Raises:
    UserError: it could not be written.
  """
  if not estimate.num_done:
    race_files.write_estimate(folder, estimate.trials)


# From the budgets alone.


def from_budgets(race: Race, limits: BudgetLimits) -> Estimate:
  """Prices a race by the seconds of its budgets; the code of its workloads need not exist.

  Raises:
    UserError: a name is unknown, the suite is raced in steps, or there are too few devices.
  """
  suite = registry.suite(race.suite)
  tuning = suite.rules_of(race.ruleset)
  _check(race)
  num_each = (race.studies or tuning.num_studies) * (race.trials or tuning.num_trials)
  names, provisional = _priced_workloads(race)
  trials = []
  cells = itertools.product(names, race.frameworks)
  for name, framework, entry in with_submissions(race, cells):
    found, _ = submissions.locate(entry.submission, race.ruleset, framework)
    budget = budget_of(registry.workload(name, race.suite), suite, race.ruleset)
    if budget.max_sec is None:
      raise errors.UserError(
        f'The budgets of the suite {suite.name} are in steps and do not say what a step takes; '
        'without --from_budget it is probed.'
      )
    trials.append(
      PlannedTrials(
        submission=entry.name or found,
        workload=name,
        framework=framework,
        num_trials=num_each,
        at_most_sec=budget.max_sec,
        expected_sec=budget.max_sec * float(EXPECTED_SHARE),
        off_clock_sec=0.0,
        basis=f'assumed: {EXPECTED_SHARE} of the budget',
      )
    )
  all_sec = [sec for one in trials for sec in [_bounds_of(one)] * one.num_trials]
  num_parallel = limits.num_parallel(suite.num_accelerators, default=1)
  hours = _sum(all_sec).times(suite.num_accelerators / 3600)
  return Estimate(
    trials=tuple(trials),
    num_runs=len(all_sec),
    num_parallel=num_parallel,
    num_devices=suite.num_accelerators,
    wall_sec=_wall_sec(all_sec, num_parallel),
    device_hours=hours,
    price=limits.price(hours),
    basis=f'the budgets of {suite.name}, on {suite.hardware}',
    left_out=('starting, compiling, evaluations and checkpoints', *provisional),
  )


def _check(race: Race) -> None:
  """What `expand` makes sure of where trials can be run."""
  for name, value in (('studies', race.studies), ('trials', race.trials)):
    if value is not None and value <= 0:
      raise errors.UserError(f'--{name} must be positive; it is {value}.')
  for framework in race.frameworks:
    if framework not in backends.FRAMEWORKS:
      raise errors.unknown('framework', framework, backends.FRAMEWORKS)


def _priced_workloads(race: Race) -> tuple[Sequence[str], tuple[str, ...]]:
  """The workloads of a race, able to run or not, and which are left out, in words."""
  if race.workloads is not None:
    return race.workloads, ()
  members = registry.members(race.suite)
  if race.options.allow_provisional:
    return tuple(members), ()
  provisional = [name for name, definition in members.items() if definition.target.provisional]
  left_out = f'workloads whose target is provisional: {", ".join(provisional)}'
  return [name for name in members if name not in provisional], (left_out,) * bool(provisional)


# From probes.


def from_probes(
  race: Race,
  limits: BudgetLimits,
  *,
  evidence: Path | None = None,
  retry_failed: bool = False,
  on_probe: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
  """Prices a race by probes on this machine.

  Args:
    evidence: a folder of earlier runs, which say where trials stop; None is that of the race.
    retry_failed: whether trials that failed by their own fault, or are invalid, are run again.
    on_probe: is told how many probes are done, and of how many.

  Raises:
    UserError: something in the race is wrong, there are too few devices, or no submission gets
      through its first steps on a workload.
  """
  shares = slots(race.devices, race.workers)
  configs = expand(race)
  probes, failures = probe_all(configs, shares, on_probe)
  stand_ins = {cell: _stand_in(cell, probes, failures) for cell in failures}
  probes |= {cell: probes[other] for cell, other in stand_ins.items()}
  records = [*state.records(race.folder if evidence is None else evidence).values()]
  costs = {
    cell_of(config): _cost_bounds(config, probes[cell_of(config)], records) for config in configs
  }
  for cell, (other, *_) in stand_ins.items():
    costs[cell] = replace(costs[cell], basis=f'unknown, as its first steps fail; by {other}')
  to_do = configs if race.overwrite else _to_run(configs, retry_failed)
  num_devices = max(probe.num_devices for probe in probes.values())
  num_parallel = limits.num_parallel(num_devices, default=len(shares))
  timings = _timings(race, configs, probes, shares[0]) if race.is_weighed else {}
  all_sec: list[Bounds] = []
  timing_sec = 0.0
  for config in to_do:
    timing = timings.pop((config.study, config.workload, config.framework), None)
    if timing is not None:  # before the first trial of its study
      all_sec.append(Bounds(expected=timing, at_most=timing))
      timing_sec += timing
    all_sec.append(costs[cell_of(config)].sec)
  hours = _sum(all_sec).times(num_devices / 3600)
  return Estimate(
    trials=_planned(configs, costs, probes),
    num_runs=len(configs),
    num_done=len(configs) - len(to_do),
    num_parallel=num_parallel,
    num_devices=num_devices,
    wall_sec=_wall_sec(all_sec, num_parallel),
    device_hours=hours,
    timing_sec=timing_sec,
    price=limits.price(hours),
    disk_bytes=_sum([costs[cell_of(config)].disk_bytes for config in to_do]),
    peak_memory_bytes=_peak_memory(race, probes, num_parallel),
    basis='steps and batches that were probed on this machine',
    left_out=('scoring and the report',),
    problems=tuple(_problem(cell, stand_ins[cell], reason) for cell, reason in failures.items()),
  )


def _stand_in(cell: Cell, probes: Mapping[Cell, Probe], failures: Mapping[Cell, str]) -> Cell:
  """The slowest on the workload of a submission that fails, by whose steps it is priced."""
  others = [other for other in probes if other[1:] == cell[1:]]
  if not others:
    _, workload, framework = cell
    why = [f'{other[0]}: {reason}' for other, reason in failures.items() if other[1:] == cell[1:]]
    raise errors.UserError(
      'An estimate needs the first steps of a trial, and no submission completes them on '
      f'{workload} ({framework}). Fix one, or leave the workload out. {"; ".join(why)}'
    )
  return max(others, key=lambda other: probes[other].step_sec)


def _problem(cell: Cell, stand_in: Cell, reason: str) -> str:
  submission, workload, framework = cell
  return (
    f'{submission} on {workload} ({framework}) is priced by the steps of {stand_in[0]}, as its own '
    f'fail: {reason}'
  )


def _to_run(configs: Sequence[TrialConfig], retry_failed: bool) -> list[TrialConfig]:
  return [one.config for one in state.scan(configs) if one.is_to_run(retry_failed=retry_failed)]


@dataclass(frozen=True, kw_only=True)
class _TrialCostBounds:
  """What one trial is expected to cost, and at most."""

  sec: Bounds
  disk_bytes: Bounds
  basis: str


def _cost_bounds(
  config: TrialConfig, probe: Probe, records: Sequence[TrialRecord]
) -> _TrialCostBounds:
  rules, share = trial_estimate.rules_of(config), trial_estimate.expected_share(config, records)
  expected = trial_estimate.trial(
    rules, probe, checkpoints=config.options.save_checkpoints, share=share.share
  )
  at_most = trial_estimate.trial(rules, probe, checkpoints=config.options.save_checkpoints)
  return _TrialCostBounds(
    sec=Bounds(expected=expected.sec, at_most=at_most.sec),
    disk_bytes=Bounds(expected=expected.disk_bytes, at_most=at_most.disk_bytes),
    basis=share.basis,
  )


def _planned(
  configs: Sequence[TrialConfig],
  costs: Mapping[Cell, _TrialCostBounds],
  probes: Mapping[Cell, Probe],
) -> tuple[PlannedTrials, ...]:
  numbers = Counter(map(cell_of, configs))
  return tuple(
    PlannedTrials(
      submission=submission,
      workload=workload,
      framework=framework,
      num_trials=numbers[submission, workload, framework],
      at_most_sec=one.sec.at_most,
      expected_sec=one.sec.expected,
      off_clock_sec=probes[submission, workload, framework].off_clock_sec,
      basis=one.basis,
    )
    for (submission, workload, framework), one in costs.items()
  )


def _timings(
  race: Race, configs: Sequence[TrialConfig], probes: Mapping[Cell, Probe], slot: Slot
) -> dict[tuple[int, str, str], float]:
  """Seconds to time the steps that are not timed yet, by study, workload and framework."""
  num_cpus = len(slot.cpus) or num_usable_cpus()
  costs = [] if race.overwrite else step_cost.measured_here(race_files.read_costs(race.folder))
  done = {(one.study, one.workload, one.framework, one.submission) for one in costs}
  known = {(one.workload, one.framework, one.submission) for one in costs}
  found: dict[tuple[int, str, str], float] = {}
  for config in configs:
    key = (config.study, config.workload, config.framework)
    if key not in found:
      group = {cell[0]: probe for cell, probe in probes.items() if cell[1:] == key[1:]}
      name = registry.suite(config.suite).baseline_among(group)
      slowest = max(group.values(), key=lambda probe: probe.step_sec)
      unit = slowest if name is None else group.pop(name)  # a baseline that is not probed
      left = [other for other in group if (*key, other) not in done]
      cells = {(*key[1:], other) for other in left}
      found[key] = step_cost.expected_sec(
        (unit, *(group[other] for other in left)), num_cpus, is_first=not cells <= known
      )
      known |= cells
  return found


def _peak_memory(race: Race, probes: Mapping[Cell, Probe], num_parallel: int) -> dict[str, int]:
  """Of as many trials as run at a time, and of those that are there together to be timed."""
  number = num_parallel
  if race.is_weighed and len(race.entries) > 1:
    number += step_cost.num_alive(len(race.entries), race.devices) - 1  # while trials run elsewhere
  kinds = {kind for probe in probes.values() for kind in probe.peak_memory_bytes}
  most = {
    kind: max(one.peak_memory_bytes.get(kind, 0) for one in probes.values()) for kind in kinds
  }
  return {kind: most[kind] * (number if kind == 'host' else 1) for kind in sorted(most)}


# Arithmetic.


def _bounds_of(trials: PlannedTrials) -> Bounds:
  return Bounds(expected=trials.expected_sec, at_most=trials.at_most_sec)


def _sum(amounts: Sequence[Bounds]) -> Bounds:
  return Bounds(
    expected=sum(one.expected for one in amounts), at_most=sum(one.at_most for one in amounts)
  )


def _wall_sec(amounts: Sequence[Bounds], num_parallel: int) -> Bounds:
  return Bounds(
    expected=wall_sec([one.expected for one in amounts], num_parallel),
    at_most=wall_sec([one.at_most for one in amounts], num_parallel),
  )


def wall_sec(seconds: Iterable[float], num_parallel: int) -> float:
  """When the last job ends, if each starts in its order as soon as a place is free."""
  seconds = tuple(seconds)
  free_at = [0.0] * min(num_parallel, max(1, len(seconds)))
  for each in seconds:
    heapq.heapreplace(free_at, free_at[0] + each)
  return max(free_at)
