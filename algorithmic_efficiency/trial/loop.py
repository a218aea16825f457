"""The timed loop of one trial: step, evaluate if due, stop for one of a closed set of reasons.

Everything that touches a framework, a file or a process comes in as an argument, so the loop can be
tested with a clock that is set by hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from algorithmic_efficiency import (
  errors,
  seeds,
  spec,
  trust,
)
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial.config import StoppingRules
from algorithmic_efficiency.trial.guard import Guard, UntimedWork
from algorithmic_efficiency.trial.submission import Submission, copied_results

MAX_IN_FLIGHT = 32  # steps that the device may run ahead of the host between two stamps
_SYNC_PERIOD_SEC = 0.25
_PROGRESS_PERIOD_SEC = 0.5
_MAX_BUFFERED_ROWS = 256
_STREAMS = 3  # random key_data of a step: data selection, update, preparation for evaluation


class InputQueue:
  """The input queue of a submission: placed batches, counted as they are drawn."""

  def __init__(self, stream: Any, place: Callable[[Any], Any]):
    self._stream = stream
    self._place = place
    self.num_drawn = 0

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    with trust.harness():
      batch = self._place(next(self._stream))
    self.num_drawn += 1
    return batch

  def state(self) -> Any:
    return self._stream.state()


class MetricsLogger:
  """What a submission logs. Device scalars are kept as they are and fetched together later."""

  def __init__(self) -> None:
    self.rows: list[tuple[int, Mapping[str, Any]]] = []

  def append_scalar_metrics(
    self,
    metrics: Mapping[str, Any],
    global_step: int,
    preemption_count: int | None = None,
    is_eval: bool = False,
  ) -> None:
    self.rows.append((int(global_step), dict(metrics)))

  def finish(self) -> None:
    """Nothing to do: the runner writes the rows."""


class Recorder(Protocol):
  """Where rows, checkpoints and progress of a trial go."""

  def evaluation(self, row: Mapping[str, float], global_step: int) -> None: ...

  def metrics(self, rows: list[tuple[int, Mapping[str, Any]]]) -> None: ...

  def checkpoint(self, state: Mapping[str, Any]) -> None: ...

  def progress(self, state: Mapping[str, Any]) -> None: ...


class Machine(Protocol):
  """The part of a backend that the loop itself uses."""

  world_size: int

  def key(self, key_data: Any) -> Any: ...
  def synchronize(self, outputs: Any = None) -> None: ...
  def sync_max(self, value: float) -> float: ...
  def all_finite(self, params: Any) -> bool: ...


@dataclass
class Position:
  """How far a trial has come: what a checkpoint holds besides the arrays.

  `charged_steps` counts a step as often as it drew batches from the input queue, at least once, and
  each batch that was drawn to prepare for an evaluation.
  `step_times` has, for each stretch between two evaluations, the median seconds of a step, with its
  share of the preparation for the evaluation, and the number of steps.
  """

  global_step: int = 0
  charged_steps: int = 0
  next_eval_steps: int = 1
  num_evals: int = 0
  validation_reached: bool = False
  test_reached: bool = False
  eval_results: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
  step_times: list[tuple[float, int]] = field(default_factory=list)
  stop_reason: str | None = None


@dataclass(kw_only=True)
class TrialRun:
  """One trial, ready to run; `run` gives its stop reason."""

  rules: StoppingRules
  target: Target
  machine: Machine
  submission: Submission
  workload: spec.Workload
  hyperparameters: Any
  queue: InputQueue
  params: Any
  model_state: Any
  optimizer_state: Any
  watch: Stopwatch
  evaluate: Callable[..., dict[str, float]]
  reseed: Callable[[int], None]
  recorder: Recorder
  guard: Guard
  seed: int
  logger: MetricsLogger = field(default_factory=MetricsLogger)
  position: Position = field(default_factory=Position)
  preemption_count: int = 0

  def __post_init__(self) -> None:
    self._keys = seeds.StepKeys(self.seed, _STREAMS)
    self._past = copied_results(self.position.eval_results)
    self._last_eval_end = self.watch.last
    self._last_sync = self.watch.last
    self._last_progress = -math.inf
    self._untimed = UntimedWork()
    self._in_flight = 0
    self._window = 1
    self._segment: list[tuple[float, int]] = []
    self._prepare_sec = 0.0  # for the evaluation that ends the stretch
    self._train_state: dict[str, Any] = {}
    self.has_made_a_step = False
    self._step_arguments = self._constant_arguments()

  def _constant_arguments(self) -> dict[str, Any]:
    arguments = {
      'workload': self.workload,
      'current_params_types': self.workload.model_params_types,
      'hyperparameters': self.hyperparameters,
      'loss_type': self.workload.loss_type,
    }
    if self.submission.wants_train_state:
      arguments['train_state'] = MappingProxyType(self._train_state)
    return arguments

  def resume(self, position: Position, preemption_count: int) -> None:
    """Goes on from where a checkpoint was taken; the arrays are restored by the caller.

    Raises:
      UserError: the step limit leaves no step to make.
    """
    limit, done = self.rules.max_global_steps, position.global_step
    if position.stop_reason is None and limit is not None and limit <= done:
      raise errors.UserError(
        f'The trial stands at step {done}, so --max_global_steps {limit} leaves it none to make. '
        'Ask for more, or for no limit.'
      )
    position.eval_results = [(step, dict(values)) for step, values in position.eval_results]
    position.step_times = [(seconds, steps) for seconds, steps in position.step_times]
    self.position = position
    self.preemption_count = preemption_count
    self._past = copied_results(position.eval_results)

  # The loop.

  def run(self) -> str:
    """Runs to the end and returns the stop reason."""
    position = self.position
    self.reseed(self._random_seed())
    self._update_train_state()
    while position.stop_reason is None:
      complete = self._step()
      reached_sync = self._synchronize_if_due()
      reason = self._limit_reached(complete, reached_sync)
      if reason == 'budget_spent' and self.rules.axis == 'seconds':
        position.stop_reason = reason
      elif reason is not None or self._evaluation_due(reached_sync):
        self._evaluation(reason)
    self.machine.synchronize()
    self.watch.lap('update')
    self._write_metrics()
    self._check_integrity()
    return position.stop_reason

  def _step(self) -> bool:
    """One call of `data_selection` and one of `update_params`; True if training is complete."""
    position, watch, queue = self.position, self.watch, self.queue
    key_data = self._keys[position.global_step]
    complete = False
    drawn = queue.num_drawn
    with trust.submission():
      batch = self.submission.data_selection(
        self.workload,
        queue,
        self.optimizer_state,
        self.params,
        self.model_state,
        self.hyperparameters,
        position.global_step,
        self.machine.key(key_data[0]),
      )
      watch.lap('data')
      try:
        result = self.submission.update_params(
          current_param_container=self.params,
          model_state=self.model_state,
          batch=batch,
          optimizer_state=self.optimizer_state,
          eval_results=self._past,
          global_step=position.global_step,
          rng=self.machine.key(key_data[1]),
          **self._step_arguments,
        )
      except spec.TrainingCompleteError:
        complete = True
      else:
        self.optimizer_state, self.params, self.model_state = self.submission.unpack_update(
          'update_params', result
        )
    watch.lap('update')
    self.has_made_a_step = True
    position.global_step += 1
    position.charged_steps += max(1, queue.num_drawn - drawn)
    return complete

  def _synchronize_if_due(self) -> bool:
    """Waits for the device every few steps, so that it runs ahead by a bounded number of them."""
    self._in_flight += 1
    if self._in_flight < self._window:
      return False
    self.machine.synchronize((self.params, self.model_state))
    now = self.watch.lap('update')
    mean = self.machine.sync_max(self._note_step_time(now))
    self._window = max(1, min(MAX_IN_FLIGHT, int(_SYNC_PERIOD_SEC / max(mean, 1e-9))))
    if now - self._last_progress > _PROGRESS_PERIOD_SEC:
      self._last_progress = now
      self._report_progress()
    if len(self.logger.rows) > _MAX_BUFFERED_ROWS:
      self._write_metrics()
      self.watch.lap('update')  # what a submission logs beyond measure, it pays for
    return True

  def _note_step_time(self, now: float) -> float:
    """Closes the stretch since the last synchronisation; the mean seconds of its steps."""
    mean = (now - self._last_sync) / self._in_flight
    if self.position.global_step > 1:  # the first step compiles
      self._segment.append((mean, self._in_flight))
    self._in_flight, self._last_sync = 0, now
    return mean

  # When to evaluate, when to stop.

  def _limit_reached(self, complete: bool, reached_sync: bool) -> str | None:
    if complete:
      return 'training_complete'
    rules, position = self.rules, self.position
    if rules.max_global_steps is not None and position.global_step >= rules.max_global_steps:
      return 'step_limit'
    if rules.axis == 'seconds':
      spent = self._over_ranks(self.watch.submission_time, reached_sync)
      return 'budget_spent' if rules.max_sec is not None and spent >= rules.max_sec else None
    over = rules.max_steps is not None and position.charged_steps >= rules.max_steps
    return 'budget_spent' if over else None

  def _evaluation_due(self, reached_sync: bool) -> bool:
    rules, position = self.rules, self.position
    if not rules.evaluate:
      return False
    if rules.eval_steps:
      return position.global_step in rules.eval_steps
    if position.global_step == 1:
      return True
    if rules.axis == 'seconds':
      assert rules.eval_period_sec is not None
      since = self._over_ranks(self.watch.last - self._last_eval_end, reached_sync)
      return since >= rules.eval_period_sec
    return position.charged_steps >= position.next_eval_steps

  def _over_ranks(self, seconds: float, reached_sync: bool) -> float:
    """Processes must decide alike, so several of them compare clocks, where they wait anyway."""
    if self.machine.world_size == 1:
      return seconds
    return self.machine.sync_max(seconds) if reached_sync else -math.inf

  # Evaluation.

  def _evaluation(self, reason: str | None) -> None:
    """Prepares (timed), evaluates (not timed), and decides whether the trial ends here."""
    position, watch, rules = self.position, self.watch, self.rules
    self.machine.synchronize()
    now = watch.lap('update')
    if self._in_flight:
      self._note_step_time(now)
    self._prepare_for_eval()
    if rules.axis == 'seconds' and self._budget_is_spent():
      position.stop_reason = 'budget_spent'
      return
    if rules.evaluate:
      self._untimed.begin()
      values = self._values(must_be_whole=reason is not None)
      watch.lap('eval')
      worked = self._untimed.end()
      if worked is not None:
        self.guard.violations.append(trust.IntegrityError(worked, 'left_running'))
      if values is not None:
        self._record(values)
        position.stop_reason = self._reason_in(values)
    position.stop_reason = position.stop_reason or reason
    self._close_segment()
    self._plan_next_evaluation()
    self._write_metrics()
    self._check_integrity()
    watch.lap('log')
    self.recorder.checkpoint(self._checkpoint())
    watch.lap('checkpoint')
    self.reseed(self._random_seed())
    self._last_eval_end = self._last_sync = watch.last
    self._update_train_state()

  def _values(self, must_be_whole: bool) -> dict[str, float] | None:
    """What an evaluation gives; None where a partial was due and has shown nothing.

    A partial evaluation takes the first batch of validation. A full one follows if that batch
    reaches the target or is not finite. Partial results are logged, and count nowhere.
    """
    position = self.position
    position.num_evals += 1
    if not must_be_whole and (position.num_evals - 1) % self.rules.full_eval_every:
      state = (self.params, self.model_state, position.global_step)
      partial = self.evaluate(*state, splits=('validation',), max_batches=1)
      value = partial[f'validation/{self.target.metric}']
      row = {f'partial/{name}': shown for name, shown in partial.items()}
      self.recorder.metrics(
        [(position.global_step, row)]
      )  # past the submission, which has a logger
      if math.isfinite(value) and not self.target.reached('validation', value):
        return None
    return self.evaluate(self.params, self.model_state, position.global_step)

  def _budget_is_spent(self) -> bool:
    spent = self.machine.sync_max(self.watch.submission_time)
    return self.rules.max_sec is not None and spent >= self.rules.max_sec

  def _prepare_for_eval(self) -> None:
    prepare = self.submission.prepare_for_eval
    if prepare is None:
      return
    begin, drawn = self.watch.last, self.queue.num_drawn
    arguments = {
      name: value for name, value in self._step_arguments.items() if name != 'train_state'
    }
    with trust.submission():
      result = prepare(
        current_param_container=self.params,
        model_state=self.model_state,
        optimizer_state=self.optimizer_state,
        eval_results=self._past,
        global_step=self.position.global_step,
        rng=self.machine.key(self._keys[self.position.global_step - 1][2]),
        **arguments,
      )
    unpacked = self.submission.unpack_update('prepare_for_eval', result)
    self.optimizer_state, self.params, self.model_state = unpacked
    self.machine.synchronize()
    self._prepare_sec = self.watch.lap('prepare_for_eval') - begin
    self.position.charged_steps += self.queue.num_drawn - drawn

  def _record(self, values: dict[str, float]) -> None:
    watch, position = self.watch, self.position
    buckets = watch.buckets()
    submission_time = self.machine.sync_max(watch.submission_time)
    row = {
      **values,
      'score': submission_time,
      'total_duration': watch.total(),
      'accumulated_submission_time': submission_time,
      'accumulated_eval_time': buckets['eval'],
      'accumulated_logging_time': buckets['log'] + buckets['checkpoint'],
      'preemption_count': self.preemption_count,
      'charged_steps': position.charged_steps,
    }
    self.recorder.evaluation(row, position.global_step)
    position.eval_results.append(
      (position.global_step, {**row, 'global_step': position.global_step})
    )
    self._past = copied_results(position.eval_results)
    self._report_progress()

  def _reason_in(self, values: Mapping[str, float]) -> str | None:
    """Why the trial ends with an evaluation, if it does."""
    position, stop_at = self.position, self.rules.stop_at
    metric = self.target.metric
    position.validation_reached |= self.target.reached(
      'validation', values.get(f'validation/{metric}')
    )
    position.test_reached |= self.target.reached('test', values.get(f'test/{metric}'))
    if position.validation_reached and position.test_reached and stop_at != 'never':
      return 'targets_reached'
    if position.validation_reached and stop_at == 'validation':
      return 'validation_target_reached'
    if self.rules.stop_on_divergence:
      validation = [value for name, value in values.items() if name.startswith('validation/')]
      if not all(map(math.isfinite, validation)) or self._has_bad_params():
        return 'diverged'
    return None

  def _has_bad_params(self) -> bool:
    """Whether any process has parameters that are not finite; all of them must stop alike."""
    return self.machine.sync_max(float(not self.machine.all_finite(self.params))) > 0.0

  def _close_segment(self) -> None:
    median = step_time_sec(self._segment)
    if median is not None:
      steps = sum(count for _, count in self._segment)
      self.position.step_times.append((median + self._prepare_sec / steps, steps))
      self._segment.clear()
    self._prepare_sec = 0.0

  def _plan_next_evaluation(self) -> None:
    period = self.rules.eval_period_steps
    if period is not None:
      done = self.position.charged_steps // period
      self.position.next_eval_steps = (done + 1) * period

  # Records.

  def _checkpoint(self) -> dict[str, Any]:
    return {
      'params': self.params,
      'model_state': self.model_state,
      'optimizer_state': self.optimizer_state,
      'position': self.position,
      'data': self.queue.state(),
      'buckets': self.watch.buckets(),
      'charged': self.watch.charged,
    }

  def _write_metrics(self) -> None:
    if self.logger.rows:
      rows, self.logger.rows = self.logger.rows, []
      self.recorder.metrics(rows)

  def write_what_was_logged(self) -> None:
    """Writes the rows that a run which failed has left unwritten, as far as they can be fetched."""
    with contextlib.suppress(RuntimeError, TypeError, ValueError):  # the device may be what failed
      self._write_metrics()

  def _report_progress(self) -> None:
    position = self.position
    self.recorder.progress(
      {
        'global_step': position.global_step,
        'charged_steps': position.charged_steps,
        'submission_time': self.watch.submission_time,
        'total_duration': self.watch.total(),
        'eval': dict(position.eval_results[-1][1]) if position.eval_results else None,
        'steps_per_sec': self._steps_per_sec(),
      }
    )

  def _steps_per_sec(self) -> float | None:
    seconds = step_time_sec(self._segment or self.position.step_times[-1:])
    return 1.0 / seconds if seconds else None

  def _update_train_state(self) -> None:
    """AlgoPerf's `train_state`, as far as a submission may know it."""
    position, buckets = self.position, self.watch.buckets()
    self._train_state.update(
      validation_goal_reached=position.validation_reached,
      test_goal_reached=position.test_reached,
      is_time_remaining=True,
      last_eval_time=self._last_eval_end,
      training_complete=False,
      accumulated_submission_time=self.watch.submission_time,
      accumulated_eval_time=buckets['eval'],
      accumulated_logging_time=buckets['log'] + buckets['checkpoint'],
      last_step_end_time=self.watch.last,
    )

  def _random_seed(self) -> int:
    """Global random states are set anew at the start and after each evaluation, by position: a
    resumed trial sets them alike, so there is nothing to save."""
    return seeds.derive(self.seed, 'global', self.position.global_step)

  def _check_integrity(self) -> None:
    if self.guard.violations:
      raise self.guard.violations[0]


def charge_initialisation(run_sec: float, rules: StoppingRules, watch: Stopwatch) -> None:
  """Charges what `get_batch_size` and `init_optimizer_state` took beyond what is free.

  Raises:
    IntegrityError: on the step axis, where seconds are not raced and could not be charged.
  """
  excess = run_sec - rules.free_init_sec
  if excess <= 0:
    return
  if rules.axis != 'seconds':
    raise trust.IntegrityError(
      f'get_batch_size and init_optimizer_state may take {rules.free_init_sec:.0f} s; they took '
      f'{run_sec:.0f} s.',
      'init_too_long',
    )
  watch.charge(excess)


def step_time_sec(segments: list[tuple[float, int]]) -> float | None:
  """The median seconds of a step, from stretches of (seconds of a step, number of steps)."""
  middle = sum(steps for _, steps in segments) / 2
  for seconds, steps in sorted(segments):
    middle -= steps
    if middle <= 0:
      return seconds
  return None
