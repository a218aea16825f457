"""A trial that steps when it is told to, without a process: it only moves a clock."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from algorithmic_efficiency import clock
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.launch.stepper import StepperError
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Interval, Ready


def race_configs(
  *names: str,
  study: int = 1,
  workload: str = 'quick_vision',
  framework: str = 'jax',
  file: str = str(Path(__file__).with_name('work.py')),  # any small one, as it is hashed
) -> list[TrialConfig]:
  """The first trials of submissions in one study of a race of `quick`."""
  return [
    TrialConfig(
      workload=workload,
      framework=framework,
      submission=name,
      submission_path=file,
      suite='quick',
      ruleset='self',
      study=study,
      trial=1,
      hyperparameters=None,
      seed=3,
      study_seed=study,
      root_seed=1,
      folder='nowhere',
    )
    for name in names
  ]


@dataclass(kw_only=True)
class FakeHost:
  """What trials find: how long things take, and what has been asked of whom.

  Attributes:
    step_sec: of a call of each submission, on a host that does not drift.
    prepare_sec: what each takes to prepare for an evaluation, of those that do.
    draws: batches that a call draws, of those that draw more than one.
    extra: additional seconds of every so-many-th step, of submissions with periodic work.
    compile_sec: additional seconds of the first such step of each process.
    process_noise, burst_noise: standard deviations of the log seconds of a step, from process to
      process and from interval to interval.
    slow_steps: share of steps during which others have the processor, and the mean of what these
      take more, as a share of themselves.
    drift: by how much the host becomes slower in a second, as an exponent.
    fails: submissions that fail, with the reason.
    generation_sec: of the outputs of an evaluation; the first time it takes 1 s more.
    calls: every interval: submission, steps, batches of an evaluation.
    traces: the steps of every interval in which each was timed by itself.
    name: its hash in records.
    started: the submissions in the order in which they began.
    alive, most_alive: trials in memory, now and at most.
    at_work, most_at_work: trials that make steps, now and at most.
  """

  step_sec: Mapping[str, float]
  prepare_sec: Mapping[str, float] = field(default_factory=dict)
  draws: Mapping[str, int] = field(default_factory=dict)
  extra: Mapping[str, tuple[int, float]] = field(default_factory=dict)
  compile_sec: float = 0.0
  process_noise: float = 0.0
  burst_noise: float = 0.0
  slow_steps: tuple[float, float] = (0.0, 0.0)
  rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
  fails: Mapping[str, str] = field(default_factory=dict)
  drift: float = 0.0
  start_sec: float = 2.0
  eval_sec: Callable[[int], float] = lambda num_batches: 0.5
  generation_sec: Callable[[int], float] = lambda num_batches: 0.0
  num_devices: int = 1
  name: str = 'some host'
  now: float = 0.0
  calls: list[tuple[str, int, int | None]] = field(default_factory=list)
  traces: list[int] = field(default_factory=list)
  started: list[str] = field(default_factory=list)
  alive: int = 0
  most_alive: int = 0
  at_work: int = 0
  most_at_work: int = 0

  def stepper(self, config: TrialConfig, slot: Slot, **options: Any) -> FakeStepper:
    return FakeStepper(self, config)

  def noise(self, spread: float) -> float:
    """Draws a factor, whose logarithm is normal."""
    return math.exp(spread * self.rng.standard_normal())

  def beside(self, num_steps: int) -> list[float]:
    """Draws by what share each of some steps is longer because others are at work."""
    share, mean = self.slow_steps
    if not share:
      return [0.0] * num_steps
    slow = self.rng.random(num_steps) < share
    return (slow * self.rng.exponential(mean, num_steps)).tolist()


class FakeStepper:
  """Stands in for `Stepper`."""

  def __init__(self, host: FakeHost, config: TrialConfig):
    self._host = host
    self._name = config.submission
    self._slower = host.noise(host.process_noise)
    self._done = 0
    self._has_generated = False

  def __enter__(self) -> Self:
    self._folder = tempfile.TemporaryDirectory()
    self.folder = Path(self._folder.name)
    self._host.alive += 1
    self._host.started.append(self._name)
    self._host.most_alive = max(self._host.most_alive, self._host.alive)
    return self

  def __exit__(self, *exception: object) -> None:
    self._host.alive -= 1
    self._folder.cleanup()

  def wait(self) -> None:
    self._host.now += self._host.start_sec
    self.start = Ready(eval_batch_size=100, clock_sec=self._host.start_sec - 0.25)

  def go(
    self,
    num_steps: int,
    *,
    max_batches: int | None = None,
    generate: bool = False,
    each_step: bool = False,
  ) -> Interval:
    self.begin(num_steps, max_batches=max_batches, generate=generate, each_step=each_step)
    return self.finish()

  def begin(
    self,
    num_steps: int,
    *,
    max_batches: int | None = None,
    generate: bool = False,
    each_step: bool = False,
  ) -> None:
    self._order = num_steps, max_batches, generate, each_step
    self._host.at_work += 1
    self._host.most_at_work = max(self._host.most_at_work, self._host.at_work)

  def finish(self) -> Interval:
    host = self._host
    num_steps, max_batches, generate, each_step = self._order
    host.at_work -= 1
    host.calls.append((self._name, num_steps, max_batches))
    if each_step:
      host.traces.append(num_steps)
    if self._name in host.fails:
      raise StepperError(host.fails[self._name])
    buckets = dict.fromkeys(clock.BUCKETS, 0.0)
    slower = host.noise(host.burst_noise) * self._slower * 2.0 ** (host.drift * host.now)
    beside = host.beside(num_steps)
    step_secs = [
      slower * (1.0 + beside[step]) * self._step_sec(self._done + step) for step in range(num_steps)
    ]
    buckets['data'] = sum(step_secs)
    buckets['prepare_for_eval'] = host.prepare_sec.get(self._name, 0.0)
    if max_batches is not None:
      buckets['eval'] = host.eval_sec(max_batches) + (self._done == 0)  # the first takes 1 s more
      if generate:
        buckets['eval'] += host.generation_sec(max_batches) + (not self._has_generated)
        self._has_generated = True
      buckets['log'], buckets['checkpoint'] = 0.125, 0.125
      for name in (measurements.LOG_FILE, measurements.ALL_FILE):
        with open(self.folder / name, 'ab') as file:
          file.write(bytes(50))
      (self.folder / 'checkpoint_1').write_bytes(bytes(1000))
    buckets['update'] = float(self._done == 0)  # and so does the first step
    self._done += num_steps
    host.now += sum(buckets.values())
    return Interval(
      num_steps=num_steps,
      charged_steps=num_steps * host.draws.get(self._name, 1),
      buckets=buckets,
      peak_memory_bytes={'host': 1000},
      step_secs=step_secs if each_step else [],
    )

  def _step_sec(self, step: int) -> float:
    """The seconds of a step; periodic work is at the end of each period."""
    usual = self._host.step_sec[self._name]
    if self._name not in self._host.extra:
      return usual
    period, seconds = self._host.extra[self._name]
    is_due = step % period == period - 1
    return usual + seconds * is_due + self._host.compile_sec * (step == period - 1)

  def environment(self) -> Mapping[str, Any]:
    return {'host_hash': self._host.name, 'devices': {'num_devices': self._host.num_devices}}

  def let_go(self) -> None:
    pass

  def close(self) -> float:
    return 0.25
