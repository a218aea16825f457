"""Measures what a trial takes on this machine, by some steps and a part of its evaluation."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.launch import pool
from algorithmic_efficiency.launch.local import OnMessage
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.stepper import Stepper, StepperError
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.trial_record import Status
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.messages import Interval

SEC_PER_WORKLOAD = 30.0  # per framework, shared by the submissions; their start comes on top
_WARM_UP_STEPS = 3  # after the first: a program may be compiled again for its own output
_BURST_SEC = 0.5
_MAX_BURSTS = 7
_ROW_FILES = (measurements.LOG_FILE, measurements.EVAL_FILE, measurements.ALL_FILE)

Cell = tuple[str, str, str]  # submission, workload, framework


@dataclass(frozen=True, kw_only=True)
class Probe:
  """The seconds and bytes that the parts of a trial take.

  Attributes:
    start_sec: from the start of its process to its first step.
    first_step_sec: the first step, with its compilation.
    step_sec: a charged step after that, as the median over bursts.
    first_eval_sec: the excess of the first evaluation over the others.
    eval_sec: a full evaluation, estimated from one or two batches of each split.
    partial_eval_sec: one batch of the validation split, with outputs if the target needs them.
    first_generation_sec: the excess of the first evaluation that generates outputs.
    generation_sec: the outputs of a full evaluation, estimated from one batch of each split.
    record_sec, row_bytes: time for rows and checkpoint, and size of the rows, of an evaluation.
    end_sec: from the last step until its processes are gone.
    off_clock_sec: the part of `start_sec` and `end_sec` that is not on the trial's own clock.
    checkpoint_bytes: size of a checkpoint; 0 without checkpoints.
    folder_bytes: size of the other files in its folder.
    peak_memory_bytes: high-water marks of one process: 'host', and 'device' where it is known.
    host: the hash of what it ran on.
  """

  start_sec: float
  first_step_sec: float
  step_sec: float
  first_eval_sec: float
  eval_sec: float
  partial_eval_sec: float
  record_sec: float
  end_sec: float
  off_clock_sec: float
  checkpoint_bytes: int
  row_bytes: float
  folder_bytes: int
  peak_memory_bytes: Mapping[str, int]
  num_devices: int
  host: str
  first_generation_sec: float = 0.0
  generation_sec: float = 0.0


def probe_all(
  configs: Sequence[TrialConfig],
  slots: Sequence[Slot],
  on_probe: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[Cell, Probe], dict[Cell, str]]:
  """Probes each submission on each workload with each framework.

  Each slot runs one probe at a time: so trials slow each other down as they will in the race.

  Args:
    configs: trials; one of each cell is enough.
    on_probe: called with the number of finished probes and of all.

  Returns:
    The probes, and the messages of those that failed, both by cell.
  """
  first: dict[Cell, TrialConfig] = {}
  for config in configs:
    first.setdefault(cell_of(config), config)
  shares = [(workload, framework) for _, workload, framework in first]
  jobs = [
    _Job(config, SEC_PER_WORKLOAD / shares.count((config.workload, config.framework)))
    for config in first.values()
  ]
  done = 0

  def take(event: pool.Event) -> None:
    nonlocal done
    done += event.kind == 'ended'
    on_probe(done, len(jobs))

  pool.run(jobs, slots=slots, on_event=take)
  found = {cell_of(job.config): job.found for job in jobs}
  return (
    {cell: one for cell, one in found.items() if isinstance(one, Probe)},
    {cell: one for cell, one in found.items() if isinstance(one, str)},
  )


def cell_of(config: TrialConfig) -> Cell:
  return config.submission, config.workload, config.framework


class _Job:
  """Probes one trial, as a job of the pool; `found` is the probe, or the message of a failure."""

  def __init__(self, config: TrialConfig, limit_sec: float):
    self.config = config
    self._limit_sec = limit_sec
    self.found: Probe | str = ''

  def __call__(self, slot: Slot, tell: OnMessage, canceled: threading.Event) -> Outcome:
    try:
      self.found = probe(self.config, slot, limit_sec=self._limit_sec, canceled=canceled)
    except (StepperError, errors.UserError) as error:
      self.found = str(error)
    status: Status = 'finished' if isinstance(self.found, Probe) else 'failed'
    return Outcome(folder=self.config.path, status=status, stop_reason='', reason='')


def probe(
  config: TrialConfig,
  slot: Slot,
  *,
  limit_sec: float = SEC_PER_WORKLOAD,
  canceled: threading.Event | None = None,
) -> Probe:
  """Probes one trial.

  Trials may share a compilation cache. The trial that fills it takes longer than those that find it
  filled, so it is then probed a second time.

  Raises:
    StepperError: the trial failed.
    UserError: the trial failed because of a mistake that the user can correct.
  """
  cache = config.devices.compilation_cache
  shared = (
    Path(cache) if cache is not None and not Path(cache).is_relative_to(config.path) else None
  )
  before = _num_files(shared)
  found = _probe(config, slot, limit_sec, canceled)
  return _probe(config, slot, limit_sec, canceled) if _num_files(shared) > before else found


def _num_files(folder: Path | None) -> int:
  return 0 if folder is None else sum(1 for _ in folder.rglob('*'))


def _probe(
  config: TrialConfig, slot: Slot, limit_sec: float, canceled: threading.Event | None
) -> Probe:
  begin = time.perf_counter()
  with Stepper(config, slot, canceled=canceled) as stepper:
    stepper.wait()
    ready = time.perf_counter()
    first = stepper.go(1, max_batches=1)
    warm = stepper.go(_WARM_UP_STEPS)
    intervals = _bursts(stepper, _num_steps(config, warm), begin + limit_sec)
    batch_size = stepper.start.eval_batch_size
    batches = _num_batches(config, batch_size)
    further = [stepper.go(1, max_batches=2)] if max(batches) > 1 else []
    generated = _num_generated_batches(config, batch_size)
    num_times = 2 if generated else 0  # the first compiles
    generating = [stepper.go(1, max_batches=1, generate=True) for _ in range(num_times)]
    environment = stepper.environment()
    end_sec = stepper.close()
    sizes = {path.name: path.stat().st_size for path in stepper.folder.rglob('*') if path.is_file()}
  checkpoints = [size for name, size in sizes.items() if name.startswith('checkpoint_')]
  rows = [size for name, size in sizes.items() if name in _ROW_FILES]
  others = [*intervals, *further, *generating]
  eval_sec = _median(intervals, 'eval')
  first_sec, batch_sec = _generation_sec(generating, eval_sec, len(generated))
  return Probe(
    start_sec=ready - begin,
    first_step_sec=first.sec,
    step_sec=statistics.median(interval.step_sec for interval in intervals),
    first_eval_sec=max(0.0, first.buckets['eval'] - eval_sec),
    eval_sec=eval_sec + sum(_rest_sec(interval, eval_sec, batches) for interval in further),
    partial_eval_sec=eval_sec / len(batches) + batch_sec * _target_is_generated(config),
    first_generation_sec=first_sec,
    generation_sec=batch_sec * sum(generated),
    record_sec=_median(intervals, 'prepare_for_eval', 'log', 'checkpoint'),
    end_sec=end_sec,
    off_clock_sec=ready - begin - stepper.start.clock_sec + end_sec,
    checkpoint_bytes=max(checkpoints, default=0),
    row_bytes=sum(rows) / len([first, *others]),
    folder_bytes=sum(sizes.values()) - sum(checkpoints) - sum(rows),
    peak_memory_bytes=dict(others[-1].peak_memory_bytes),
    num_devices=int(environment['devices'].get('num_devices', 1)),
    host=environment['host_hash'],
  )


def _bursts(stepper: Stepper, num_steps: int, until: float) -> list[Interval]:
  """Makes bursts of steps, each with an evaluation after it, until the time is over."""
  intervals = [stepper.go(num_steps, max_batches=1)]
  while len(intervals) < _MAX_BURSTS and time.perf_counter() < until:
    intervals.append(stepper.go(num_steps, max_batches=1))
  return intervals


def _num_steps(config: TrialConfig, warm: Interval) -> int:
  suite = registry.suite(config.suite)
  definition = registry.workload(config.workload, config.suite)
  period = budget_of(definition, suite, config.ruleset, config.options.smoke).eval_period_steps
  enough = math.ceil(_BURST_SEC * warm.num_steps / warm.sec)
  return enough if period is None else min(period, enough)


def _definition(config: TrialConfig) -> WorkloadDefinition:
  definition = registry.workload(config.workload, config.suite)
  return definition.for_smoke() if config.options.smoke else definition


def _num_batches(config: TrialConfig, batch_size: int) -> list[int]:
  """Counts the batches of each split that is evaluated."""
  splits = _definition(config).splits
  return [
    math.ceil((splits.num_examples(split) or 0) / batch_size) for split in config.options.splits
  ]


def _num_generated_batches(config: TrialConfig, batch_size: int) -> list[int]:
  """Counts the batches of each split for which a full evaluation may generate outputs."""
  definition = _definition(config)
  generation = definition.generation
  if generation is None:
    return []
  limit = math.inf if generation.max_examples is None else generation.max_examples
  sizes = [
    min(limit, definition.splits.num_examples(split) or 0)
    for split in config.options.splits
    if split in generation.splits
  ]
  return [math.ceil(size / batch_size) for size in sizes if size]


def _target_is_generated(config: TrialConfig) -> bool:
  definition = _definition(config)
  generation = definition.generation
  return generation is not None and definition.target.metric in generation.metrics


def _generation_sec(
  intervals: Sequence[Interval], one_sec: float, num_splits: int
) -> tuple[float, float]:
  """Estimates the seconds that generation takes: the excess of the first time, and a batch.

  Args:
    intervals: two with an evaluation that generates outputs for a batch of each of `num_splits`
      splits; none if nothing is generated.
    one_sec: seconds of the same evaluation without generated outputs.
  """
  if not intervals:
    return 0.0, 0.0
  first, second = (interval.buckets['eval'] for interval in intervals)
  return max(0.0, first - second), max(0.0, second - one_sec) / num_splits


def _rest_sec(two: Interval, one_sec: float, batches: Sequence[int]) -> float:
  """Estimates the seconds of an evaluation after the first batch of each split.

  Args:
    two: an interval with an evaluation of two batches of each split.
    one_sec: seconds of an evaluation of one batch of each split.
    batches: number of batches of each split.
  """
  second = max(0.0, two.buckets['eval'] - one_sec) / sum(count > 1 for count in batches)
  return second * sum(count - 1 for count in batches if count > 1)


def _median(intervals: Sequence[Interval], *buckets: str) -> float:
  return statistics.median(
    sum(interval.buckets[name] for name in buckets) for interval in intervals
  )
