"""A trial without a framework: a clock set by hand, and a submission as slow as it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency import spec
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial import guard, loop
from algorithmic_efficiency.trial.inputs import InputQueue
from algorithmic_efficiency.trial.stopping import StoppingRules
from algorithmic_efficiency.trial.submission import Submission


class FakeClock:
  def __init__(self) -> None:
    self.now = 100.0

  def __call__(self) -> float:
    return self.now

  def spend(self, seconds: float) -> None:
    self.now += seconds


class FakeStream:
  def __init__(self) -> None:
    self.position = 0
    self.num_pauses = 0

  def __next__(self) -> dict[str, int]:
    self.position += 1
    return {'number': self.position}

  def state(self) -> dict[str, int]:
    return {'position': self.position}

  def restore(self, state: dict[str, int]) -> None:
    self.position = state['position']

  def pause(self) -> None:
    self.num_pauses += 1


class FakeMachine:
  """A device with work in flight that takes time only when it is waited for."""

  world_size = 1

  def __init__(self, clock: FakeClock):
    self._clock = clock
    self.in_flight = 0.0
    self.largest_in_flight = 0.0

  def queue(self, seconds: float) -> None:
    self.in_flight += seconds
    self.largest_in_flight = max(self.largest_in_flight, self.in_flight)

  def key(self, key_data: Any) -> Any:
    return key_data

  def synchronize(self, outputs: Any = None) -> None:
    self._clock.spend(self.in_flight)
    self.in_flight = 0.0

  def sync_max(self, value: float) -> float:
    return value

  def all_finite(self, params: Any) -> bool:
    return math.isfinite(params)


class FakeWorkload:
  model_params_types = None
  loss_type = spec.LossType.SOFTMAX_CROSS_ENTROPY


class FakeRecorder:
  def __init__(self, clock: FakeClock, seconds: float = 0.0):
    self._clock = clock
    self._seconds = seconds
    self.rows: list[dict[str, float]] = []
    self.logged: list[tuple[int, Mapping[str, Any]]] = []
    self.checkpoints: list[Mapping[str, Any]] = []
    self.reports: list[Mapping[str, Any]] = []

  def evaluation(self, row: Mapping[str, float], global_step: int) -> None:
    self.rows.append({**row, 'global_step': global_step})
    self._clock.spend(self._seconds)

  def metrics(self, rows: list[tuple[int, Mapping[str, Any]]]) -> None:
    self.logged.extend(rows)

  def checkpoint(self, state: Mapping[str, Any]) -> None:
    self.checkpoints.append(state)
    self._clock.spend(self._seconds)

  def progress(self, state: Mapping[str, Any]) -> None:
    self.reports.append(state)

  def finish(self, final: Mapping[str, float], **fields: Any) -> int:
    return 0


def draw_one(workload, queue, optimizer_state, params, model_state, hyperparameters, step, rng):
  return next(queue)


def rules(**changes: Any) -> StoppingRules:
  fields: dict[str, Any] = {
    'axis': 'seconds',
    'max_sec': 10.0,
    'max_steps': None,
    'eval_period_sec': 2.0,
    'eval_period_steps': None,
    'free_init_sec': 120.0,
    **changes,
  }
  return StoppingRules(**fields)


def step_rules(max_steps: int = 20, period: int = 5, **changes: Any) -> StoppingRules:
  return rules(
    axis='cost_adjusted_steps',
    max_sec=None,
    eval_period_sec=None,
    max_steps=max_steps,
    eval_period_steps=period,
    **changes,
  )


class FakeTrial:
  """Builds a `TrialRun` around a function that plays the submission's update.

  Args:
    update: called with the keyword arguments of `update_params`; may return None for no change.
    accuracy: the validation accuracy that an evaluation at a step gives.
    test_accuracy: that on test; None for the same.
    partial: what one that looks at a few batches gives.
    generated: a metric that an evaluation has if it generates, or None for the accuracy itself.

  Attributes:
    evaluations: each one: step, whether partial, whether it generates, and whether as the last.
  """

  def __init__(
    self,
    rules: StoppingRules,
    *,
    update: Callable[..., Any] = lambda **arguments: None,
    data_selection: Callable[..., Any] = draw_one,
    prepare_for_eval: Callable[..., Any] | None = None,
    accuracy: Callable[[int], float] = lambda step: 0.0,
    test_accuracy: Callable[[int], float] | None = None,
    partial: Callable[[int], float] = lambda step: 0.0,
    generated: str | None = 'bleu',
    step_sec: float = 0.125,
    queued_sec: float = 0.0,
    eval_sec: float = 1.0,
    log_sec: float = 0.0,
    wants_train_state: bool = False,
  ):
    self.clock = FakeClock()
    self.machine = FakeMachine(self.clock)
    self.recorder = FakeRecorder(self.clock, log_sec)
    self.stream = FakeStream()
    self.calls: list[dict[str, Any]] = []
    self.seen: list[tuple[Any, int]] = []
    self.seeds: list[int] = []
    self.evaluations: list[tuple[int, bool, bool, bool]] = []

    def update_params(**arguments: Any) -> Any:
      self.calls.append(arguments)
      self.clock.spend(step_sec)
      self.machine.queue(queued_sec)
      result = update(**arguments)
      return ('state', 1.0, None) if result is None else result

    def evaluate(
      params: Any,
      model_state: Any,
      step: int,
      splits: tuple[str, ...] = ('validation', 'test'),
      max_batches: int | None = None,
      generate: bool = False,
      is_last: bool = False,
    ) -> dict[str, float]:
      self.evaluations.append((step, max_batches is not None, generate, is_last))
      self.machine.synchronize()  # an evaluation waits for what is in flight
      self.clock.spend(eval_sec)
      value = accuracy(step) if max_batches is None else partial(step)
      values = {f'{split}/accuracy': value for split in splits}
      if test_accuracy is not None and 'test' in splits:
        values['test/accuracy'] = test_accuracy(step)
      if generated is None:
        return values if generate else {}
      return values | ({f'validation/{generated}': float(step)} if generate else {})

    self.run = loop.TrialRun(
      rules=rules,
      target=Target(metric='accuracy', direction='max', validation=0.9, test=0.8),
      machine=self.machine,
      submission=Submission(
        file=Path('fake.py'),
        get_batch_size=lambda name: 8,
        init_optimizer_state=lambda *arguments: None,
        update_params=update_params,
        data_selection=data_selection,
        prepare_for_eval=prepare_for_eval,
        get_eval_batch_size=None,
        wants_train_state=wants_train_state,
      ),
      workload=FakeWorkload(),  # type: ignore[arg-type]
      hyperparameters=None,
      queue=InputQueue(self.stream, lambda batch: batch),
      params=1.0,
      model_state=None,
      optimizer_state='state',
      watch=Stopwatch(start=self.clock.now, now=self.clock),
      hooks=loop.Hooks(
        evaluate=evaluate,
        reseed=self.seeds.append,
        before_evaluation=lambda params, step: self.seen.append((params, step)),
      ),
      recorder=self.recorder,
      guard=guard.Guard(),
      seed=1,
    )

  @property
  def rows(self) -> list[dict[str, float]]:
    return self.recorder.rows
