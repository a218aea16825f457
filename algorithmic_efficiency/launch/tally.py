"""Counts what has become of the trials of a command, from the events of the pool.

It says how far each trial is, which have ended and how, who leads, and what time is left.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.launch import outcome as outcomes
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.pool import Event
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.messages import Begin, Progress
from algorithmic_efficiency.trial.stopping import StoppingRules

Stage = Literal['left', 'running', 'done', 'failed']
Row = tuple[str, str, str]  # submission, workload, framework

_SPREAD = 1.25  # of the time of a trial around those of the trials before it


class Timing(NamedTuple):
  """A job that times the steps of all submissions of a study."""

  workload: str
  framework: str
  study: int


class Left(NamedTuple):
  """The seconds that are left: at least and at most."""

  low: float
  high: float


@dataclass
class Running:
  """A job that runs.

  Attributes:
    began: when it started, by the source of time of the tally.
    is_heard: whether its messages come here; those of a trial on a cluster do not.
    has_begun: whether the process of the trial stands before its first step, or is beyond it.
    message: the last message on its progress.
  """

  began: float
  is_heard: bool = True
  has_begun: bool = False
  message: Progress | None = None

  @property
  def phase(self) -> str:
    if not self.is_heard:
      return 'running'
    if self.message is None:
      return 'compiling' if self.has_begun else 'starting'
    return 'evaluating' if self.message.is_evaluating else 'training'


@dataclass(frozen=True, kw_only=True)
class Standing:
  """Where a submission stands in a framework, in plain steps to the validation target.

  A study counts with its best trial that has ended; a miss is infinite.

  Attributes:
    steps: the median over studies, by workload; NaN where no trial has ended.
    reached, ended: the numbers of studies that have reached the target, and that count.
    times: the geometric mean of its steps over the fewest, on the workloads where all submissions
      have a trial that ended; NaN if there is none. A ratio counts at most as the suite's cut-off.
  """

  submission: str
  framework: str
  steps: Mapping[str, float]
  reached: Mapping[str, int]
  ended: Mapping[str, int]
  times: float


class Tally:
  """Counts trials by stage, and keeps what their processes say.

  Args:
    configs: all trials of the command.
    jobs: for each job the index of its trial, or what it times.
    earlier: the records of trials that are not run, by their index.
    num_slots: number of jobs that run at a time.
    hears: whether the messages of trials come here.
    now: the source of time, in seconds.
  """

  def __init__(
    self,
    configs: Sequence[TrialConfig],
    jobs: Sequence[int | Timing],
    *,
    earlier: Mapping[int, TrialRecord],
    num_slots: int = 1,
    hears: bool = True,
    now: Callable[[], float] = time.monotonic,
  ):
    self.configs = configs
    self._jobs = jobs
    self._todo = [index for index in jobs if isinstance(index, int)]
    self._num_slots = num_slots
    self._hears = hears
    self._now = now
    self.running: dict[int, Running] = {}  # by the index of the job
    self._job_of = {index: job for job, index in enumerate(jobs) if isinstance(index, int)}
    self._timed: dict[int, float] = {}  # seconds of the timings that have ended, by job
    self._seconds: defaultdict[Row, list[float]] = defaultdict(list)
    self._elapsed: dict[int, float] = {}  # of the trials that ended, by trial
    self._steps: dict[int, float] = {}  # to the target, by trial
    self._outcomes: dict[int, Outcome] = {}
    for index, record in earlier.items():
      self._outcomes[index] = outcomes.recorded(configs[index].path, record)
      if record.status == 'finished':
        self._seconds[row_of(configs[index])].append(sum(record.buckets.values()))

  def take(self, event: Event) -> None:
    """Counts an event of a job."""
    if event.kind == 'started':
      self.running[event.index] = Running(began=self._now(), is_heard=self._hears)
    elif event.kind == 'message':
      running = self.running[event.index]
      running.has_begun |= isinstance(event.message, Begin)
      if isinstance(event.message, Progress):
        running.message = event.message
    elif event.outcome is not None:
      self._end(event.index, event.outcome)

  def _end(self, job: int, outcome: Outcome) -> None:
    seconds = self._now() - self.running.pop(job).began
    index = self._jobs[job]
    if not isinstance(index, int):
      self._timed[job] = seconds
      return
    self._elapsed[index] = seconds
    self._outcomes[index] = outcome
    if outcome.status == 'finished':
      self._seconds[row_of(self.configs[index])].append(seconds)

  def running_of(self, index: int) -> Running:
    """Gives how far a running trial is."""
    return self.running[self._job_of[index]]

  def trial(self, job: int) -> int | None:
    """Gives the index of the trial of a job; None if it times steps."""
    index = self._jobs[job]
    return index if isinstance(index, int) else None

  def timing(self, job: int) -> Timing | None:
    """Gives what a job times; None if it is a trial."""
    one = self._jobs[job]
    return None if isinstance(one, int) else one

  def complete_studies(self) -> list[tuple[str, int]]:
    """Gives the studies, by workload, of which all trials of all submissions have ended."""
    found = {(one.workload, one.study): True for one in self.configs}
    for index, one in enumerate(self.configs):
      found[one.workload, one.study] &= index in self._outcomes
    return [study for study, is_complete in found.items() if is_complete]

  @property
  def times_steps(self) -> bool:
    """Whether steps are being timed, or are the next thing that a free slot does."""
    num_started = len(self.running) + len(self._timed) + len(self._elapsed)
    near = {*self.running, *range(num_started, num_started + self._num_slots)}
    return any(self.timing(job) is not None for job in near if job < len(self._jobs))

  def outcomes(self) -> dict[int, Outcome]:
    """Gives the outcome of every trial that has ended, by its index, in order."""
    return dict(sorted(self._outcomes.items()))

  def outcome(self, index: int) -> Outcome | None:
    return self._outcomes.get(index)

  def elapsed(self, index: int) -> float:
    """Gives the seconds of a trial that has run here: until its end, or until now."""
    ended = self._elapsed.get(index)
    return self.age(self._job_of[index]) if ended is None else ended

  def age(self, job: int) -> float:
    """Gives the seconds since a running job started."""
    return self._now() - self.running[job].began

  def stage(self, index: int) -> Stage:
    outcome = self._outcomes.get(index)
    if outcome is not None:
      return 'done' if outcome.status == 'finished' else 'failed'
    return 'running' if self._job_of.get(index) in self.running else 'left'

  def total(self) -> Counter[Stage]:
    return Counter(map(self.stage, range(len(self.configs))))

  def target(self, index: int) -> Target:
    """Gives the target of a trial's workload."""
    config = self.configs[index]
    return registry.workload(config.workload, registry.suite(config.suite).name).target

  def rules(self, index: int) -> StoppingRules:
    """Gives the rules by which a trial stops."""
    config = self.configs[index]
    suite = registry.suite(config.suite)
    definition = registry.workload(config.workload, suite.name)
    budget = budget_of(definition, suite, config.ruleset, config.options.smoke)
    return StoppingRules.of(config, suite, budget)

  def share(self, index: int) -> tuple[float, float, str] | None:
    """Gives how much of its budget a running trial has spent, the budget, and its unit."""
    message = self.running_of(index).message
    rules = self.rules(index)
    if message is None:
      return None
    if rules.axis == 'seconds' and rules.max_sec is not None:
      return message.submission_time, rules.max_sec, 's'
    most = min(filter(None, (rules.max_steps, rules.max_global_steps)), default=0)
    return message.charged_steps, most, 'steps'

  def steps_to_target(self, index: int) -> float:
    """Gives the plain steps of a trial that has ended, to its validation target; inf for a miss."""
    if index not in self._steps:
      self._steps[index] = _steps_to_target(self.configs[index], self.target(index))
    return self._steps[index]

  def standings(self) -> list[Standing]:
    """Compares the submissions by the trials that have ended; who leads comes first."""
    found: defaultdict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(dict)
    for config in self.configs:
      found[config.submission, config.framework].setdefault(config.workload, {})
    for index in self._outcomes:
      config = self.configs[index]
      studies = found[config.submission, config.framework][config.workload]
      steps = self.steps_to_target(index)
      studies[config.study] = min(studies.get(config.study, math.inf), steps)
    medians = {
      key: {name: _median(studies.values()) for name, studies in workloads.items()}
      for key, workloads in found.items()
    }
    standings = [
      Standing(
        submission=key[0],
        framework=key[1],
        steps=medians[key],
        reached={
          name: sum(map(math.isfinite, studies.values())) for name, studies in workloads.items()
        },
        ended={name: len(studies) for name, studies in workloads.items()},
        times=times,
      )
      for (key, workloads), times in zip(found.items(), self._ratios(medians), strict=True)
    ]
    return sorted(standings, key=lambda one: (math.isnan(one.times), one.times))

  def _ratios(self, medians: Mapping[tuple[str, str], Mapping[str, float]]) -> list[float]:
    names = dict.fromkeys(itertools.chain.from_iterable(medians.values()))
    shared = [
      name
      for name in names
      if not any(math.isnan(steps.get(name, math.nan)) for steps in medians.values())
    ]
    if not shared:
      return [math.nan] * len(medians)
    most = registry.suite(self.configs[0].suite).max_ratio
    fewest = {name: min(steps[name] for steps in medians.values()) for name in shared}
    return [
      statistics.geometric_mean(
        most if math.isinf(steps[name]) else min(most, steps[name] / fewest[name])
        for name in shared
      )
      for steps in medians.values()
    ]

  def left(self) -> Left | None:
    """Estimates the seconds left, from trials of the same row, else of the same workload, else any.

    Where no trial has finished, one that runs says what its budget takes at most. Steps that are
    still to be timed count with the longest timing of the same workload, else of any. It precedes
    the trials of its study; before the first one has ended it counts nothing.

    Returns:
      None before anything is known.
    """
    timing = self._timing_left()
    low, high = timing / _SPREAD, timing * _SPREAD
    expectation = functools.cache(self._expected)
    for index in self._todo:
      stage = self.stage(index)
      if stage in ('done', 'failed'):
        continue
      expected = expectation(row_of(self.configs[index]))
      if expected is None:
        return None
      gone = self.elapsed(index) if stage == 'running' else 0.0
      low += max(0.0, expected.low - gone)
      high += max(0.0, expected.high - gone)
    return Left(low / self._num_slots, high / self._num_slots)

  def _timing_left(self) -> float:
    """Estimates the seconds of timings that have not ended."""
    ended: defaultdict[tuple[str, str], float] = defaultdict(float)
    timings = {job: one for job, one in enumerate(self._jobs) if isinstance(one, Timing)}
    for job, seconds in self._timed.items():
      place = timings[job][:2]
      ended[place] = max(ended[place], seconds)
    longest = max(ended.values(), default=0.0)
    return sum(
      max(0.0, (ended[one[:2]] or longest) - (self.age(job) if job in self.running else 0.0))
      for job, one in timings.items()
      if job not in self._timed
    )

  def _expected(self, row: Row) -> Left | None:
    """Gives the seconds of a whole trial of a row; None before anything is known."""
    alike = (
      self._seconds.get(row, []),
      [sec for other, found in self._seconds.items() if other[1:] == row[1:] for sec in found],
      [sec for other, found in self._seconds.items() if other[1] == row[1] for sec in found],
      [sec for found in self._seconds.values() for sec in found],
    )
    for found in alike:
      if found:
        return Left(min(found) / _SPREAD, max(found) * _SPREAD)
    budgets = [self._budget_sec(job, index) for job, index in self._running_trials(row[1])]
    known = [sec for sec in budgets if sec is not None]
    return Left(0.0, max(known)) if known else None

  def _running_trials(self, workload: str) -> list[tuple[int, int]]:
    pairs = ((job, self.trial(job)) for job in self.running)
    return [
      (job, index)
      for job, index in pairs
      if index is not None and self.configs[index].workload == workload
    ]

  def _budget_sec(self, job: int, index: int) -> float | None:
    """Estimates the seconds of a running trial that spends its budget; None if it is too early."""
    share, message = self.share(index), self.running[job].message
    if share is None or message is None:
      return None
    spent, budget, unit = share
    rate = 1.0 if unit == 's' else message.steps_per_sec
    return self.age(job) + max(0.0, budget - spent) / rate if rate and budget else None


def row_of(config: TrialConfig) -> Row:
  return config.submission, config.workload, config.framework


def _steps_to_target(config: TrialConfig, target: Target) -> float:
  """Reads the charged steps to the first evaluation that reaches the target; inf for none."""
  try:
    rows = measurements.read(config.path).evals
  except errors.UserError:  # it ended before its first row
    return math.inf
  for row in rows:
    if target.reached('validation', row.get(f'validation/{target.metric}')):
      return float(row.get('charged_steps', row['global_step']))
  return math.inf


def _median(steps: Iterable[float]) -> float:
  """The median, in which a miss takes part; NaN of nothing."""
  found = sorted(steps)
  if not found:
    return math.nan
  low, high = found[(len(found) - 1) // 2], found[len(found) // 2]
  return low if low == high else (low + high) / 2
