"""The timed loop of one trial: step, synchronize if due, evaluate if due, stop.

Everything that touches a framework, a file or a process comes in as an argument. So tests run the
loop with a clock that is set by hand.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from algorithmic_efficiency import clock, seeds, spec, trust
from algorithmic_efficiency.backends.base import Machine
from algorithmic_efficiency.benchmark.definition import Split, Target
from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial import stopping
from algorithmic_efficiency.trial.guard import Guard, UntimedWork
from algorithmic_efficiency.trial.inputs import InputQueue, MetricsLogger
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.recorder import Recorder
from algorithmic_efficiency.trial.step_timer import StepTimer
from algorithmic_efficiency.trial.stopping import StoppingRules
from algorithmic_efficiency.trial.submission import Submission, copied_results

_PROGRESS_PERIOD_SEC = 0.5
_MAX_BUFFERED_ROWS = 256
_STREAMS = 3  # random keys of a step: data selection, update, preparation for evaluation


class Evaluate(Protocol):
  """Evaluates parameters: metrics by `<prefix>/<name>`.

  Args:
    splits: None for those of the trial.
    max_batches: of each split; None for all of them.
    generate: whether outputs are generated, and the metrics that need them given.
    is_last: whether the trial ends with this evaluation.
  """

  def __call__(
    self,
    params: Any,
    model_state: Any,
    global_step: int,
    *,
    splits: tuple[Split, ...] | None = None,
    max_batches: int | None = None,
    generate: bool = False,
    is_last: bool = False,
  ) -> dict[str, float]: ...


BeforeEvaluation = Callable[[Any, int], None]
"""Called with the parameters and the global step."""


def unwatched(params: Any, global_step: int) -> None:
  """The hook of a trial that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
  """What the loop calls besides the submission.

  Attributes:
    evaluate: gives the metrics of the present parameters.
    reseed: sets every global random state; called at the start and after each evaluation.
    before_evaluation: sees the parameters and the global step at each evaluation; not timed.
  """

  evaluate: Evaluate
  reseed: Callable[[int], None]
  before_evaluation: BeforeEvaluation = unwatched


@dataclass(kw_only=True)
class TrialRun:
  """One trial, ready to run."""

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
  hooks: Hooks
  recorder: Recorder
  guard: Guard
  seed: int
  logger: MetricsLogger = field(default_factory=MetricsLogger)
  position: Position = field(default_factory=Position)
  preemption_count: int = 0

  def __post_init__(self) -> None:
    self._keys = seeds.StepKeys(self.seed, _STREAMS)
    self._past = copied_results(self.position.eval_results)
    self._timer = StepTimer(self.watch.last)
    self._last_eval_end = self.watch.last
    self._last_progress = -math.inf
    self._untimed = UntimedWork()
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
    """Continues from a checkpoint; the arrays are restored by the caller.

    Raises:
      UserError: the step limit leaves no step to make.
    """
    stopping.check_steps_remain(self.rules, position)
    position.eval_results = [(step, dict(values)) for step, values in position.eval_results]
    position.step_times = [(seconds, steps) for seconds, steps in position.step_times]
    self.position = position
    self.preemption_count = preemption_count
    self._past = copied_results(position.eval_results)

  # The loop.

  def run(self) -> str:
    """Runs the trial to its end and returns the stop reason.

    Raises:
      UserError: the submission returned something that is no update.
      IntegrityError: the submission broke a rule.
    """
    return self._run(self.rules, self.hooks.evaluate)

  def run_interval(
    self, rules: StoppingRules, *, max_batches: int | None = None, timer: StepTimer | None = None
  ) -> str:
    """Runs until `rules` stop it, which may be before or after the trial's own would.

    Args:
      max_batches: how many batches of each split an evaluation takes; None for all.
      timer: times the steps of this interval; None takes the trial's own timer.

    Returns:
      The reason that ended the interval. Raises what `run` raises.
    """
    self.position.stop_reason = None

    def evaluate(*state: Any, **options: Any) -> dict[str, float]:
      """Evaluates as amid a trial, which no interval ends."""
      return self.hooks.evaluate(*state, **options | {'max_batches': max_batches, 'is_last': False})

    own, self._timer = self._timer, timer or self._timer
    try:
      return self._run(rules, evaluate)
    finally:
      self._timer = own
      own.skip_to(self.watch.last)

  def _run(self, rules: StoppingRules, evaluate: Evaluate) -> str:
    position = self.position
    self.hooks.reseed(self._random_seed())
    self._update_train_state()
    while position.stop_reason is None:
      complete = self._step()
      is_synchronized = self._synchronize_if_due()
      spent_sec, since_eval_sec = self._seconds(rules, is_synchronized)
      reason = stopping.limit_reached(rules, position, complete=complete, spent_sec=spent_sec)
      if reason and stopping.ends_without_evaluation(rules, reason):
        position.stop_reason = reason
      elif reason or stopping.evaluation_due(rules, position, since_eval_sec=since_eval_sec):
        self._evaluate(rules, evaluate, reason)
    self.machine.synchronize()
    self.watch.lap('update')
    self._write_metrics()
    self._check_integrity()
    return position.stop_reason

  def _step(self) -> bool:
    """Calls `data_selection` and `update_params` once. Returns True if training is complete."""
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
    """Waits for the device every few steps, so that it is behind by a bounded number of them."""
    if not self._timer.count_step():
      return False
    self.machine.synchronize((self.params, self.model_state))
    now = self.watch.lap('update')
    self._timer.fit_window(self.machine.sync_max(self._end_burst(now)))
    if now - self._last_progress > _PROGRESS_PERIOD_SEC:
      self._last_progress = now
      self._report_progress()
    if len(self.logger.rows) > _MAX_BUFFERED_ROWS:
      self._write_metrics()
      self.watch.lap('update')  # what a submission logs beyond measure, it pays for
    return True

  def _end_burst(self, now: float) -> float:
    return self._timer.end_burst(now, compiles=self.position.global_step <= 1)

  def _seconds(self, rules: StoppingRules, is_synchronized: bool) -> tuple[float, float]:
    """Submission time, and time since the last evaluation; 0 on the step axis.

    Processes must decide alike, so several of them compare clocks, where they wait anyway.
    """
    if rules.axis != 'seconds':
      return 0.0, 0.0
    spent, since = self.watch.submission_time, self.watch.last - self._last_eval_end
    if self.machine.world_size == 1:
      return spent, since
    if not is_synchronized:
      return -math.inf, -math.inf
    return self.machine.sync_max(spent), self.machine.sync_max(since)

  # Evaluation.

  def _evaluate(self, rules: StoppingRules, evaluate: Evaluate, reason: str | None) -> None:
    """Prepares (timed), evaluates (not timed), and decides whether the trial ends here."""
    position, watch = self.position, self.watch
    self.machine.synchronize()
    self._end_burst(watch.lap('update'))
    self._prepare_for_eval()
    if rules.axis == 'seconds':  # what `prepare_for_eval` took may have spent it
      spent_sec = self.machine.sync_max(watch.submission_time)
      if stopping.budget_is_spent(rules, position, spent_sec):
        position.stop_reason = 'budget_spent'
        return
    if rules.evaluate:
      self._untimed.begin()
      self._report_progress(is_evaluating=True)
      values = self._values(rules, evaluate, reason)
      watch.lap('eval')
      worked = self._untimed.end()
      if worked is not None:
        self.guard.violations.append(trust.IntegrityError(worked, 'left_running'))
      if values is not None:
        self._record(values)
        position.stop_reason = self._reason_in(rules, values)
    position.stop_reason = position.stop_reason or reason
    segment = self._timer.end_segment()
    if segment is not None:
      position.step_times.append(segment)
    position.next_eval_steps = stopping.next_eval_steps(rules, position)
    self._write_metrics()
    self._check_integrity()
    watch.lap('log')
    self.recorder.checkpoint(self._checkpoint())
    watch.lap('checkpoint')
    self.hooks.reseed(self._random_seed())
    self._last_eval_end = watch.last
    self._timer.skip_to(watch.last)
    self._update_train_state()

  def _values(
    self, rules: StoppingRules, evaluate: Evaluate, reason: str | None
  ) -> dict[str, float] | None:
    """Runs a full or partial evaluation.

    A partial one takes the first validation batch. The full one follows if that batch reaches the
    target or is not finite. Partial results are logged as metrics and count nowhere else. A full
    one that is the first to reach a target generates outputs, too, even if it was not its turn.

    Returns:
      The metrics; None if a partial evaluation was due and needs no full one.
    """
    position = self.position
    position.num_evals += 1
    self.hooks.before_evaluation(self.params, position.global_step)
    state = (self.params, self.model_state, position.global_step)
    if stopping.is_partial(rules, position, reason):
      generate = stopping.generates_for(rules, self.target.metric)
      partial = evaluate(*state, splits=('validation',), max_batches=1, generate=generate)
      row = {f'partial/{name}': value for name, value in partial.items()}
      self.recorder.metrics([(position.global_step, row)])  # not the submission's: past its logger
      if stopping.decides_nothing(self.target, partial):
        return None
    generate = stopping.generates(rules, position, reason)
    values = evaluate(*state, generate=generate, is_last=reason is not None)
    reaches_a_target = self._note_targets(values)
    if rules.generation is None or generate or not reaches_a_target:
      return values
    is_last = stopping.target_reason(rules, position) is not None
    return {**evaluate(*state, generate=True, is_last=is_last), **values}

  def _note_targets(self, values: Mapping[str, float]) -> bool:
    """Notes the targets that a full evaluation reaches. Returns True if it is the first to do so.

    A target once reached stays so.
    """
    position = self.position
    before = (position.validation_reached, position.test_reached)
    validation, test = stopping.targets_reached(self.target, values)
    position.validation_reached |= validation
    position.test_reached |= test
    return (position.validation_reached, position.test_reached) != before

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
    self._timer.prepared(self.watch.lap('prepare_for_eval') - begin)
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

  def _reason_in(self, rules: StoppingRules, values: Mapping[str, float]) -> str | None:
    """The stop reason that an evaluation gives, if it gives one."""
    reason = stopping.target_reason(rules, self.position)
    if reason is not None or not rules.stop_on_divergence:
      return reason
    return 'diverged' if not stopping.is_finite(values) or self._has_bad_params() else None

  def _has_bad_params(self) -> bool:
    """Whether any process has parameters that are not finite; all of them must stop alike."""
    return self.machine.sync_max(float(not self.machine.all_finite(self.params))) > 0.0

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
    """Writes the rows that a failed run left unwritten, if the device still gives them."""
    with contextlib.suppress(RuntimeError, TypeError, ValueError):  # the device may be what failed
      self._write_metrics()

  def _report_progress(self, *, is_evaluating: bool = False) -> None:
    position = self.position
    self.recorder.progress(
      {
        'global_step': position.global_step,
        'charged_steps': position.charged_steps,
        'submission_time': self.watch.submission_time,
        'total_duration': self.watch.total(),
        'eval': dict(position.eval_results[-1][1]) if position.eval_results else None,
        'steps_per_sec': self._timer.steps_per_sec(position.step_times),
        'is_evaluating': is_evaluating,
      }
    )

  def _update_train_state(self) -> None:
    """Refreshes AlgoPerf's `train_state`, as far as a submission may know it.

    Durations are in seconds; points in time are in seconds since 1970, 0 for one that never was.
    """
    position, buckets = self.position, self.watch.buckets()
    self._train_state.update(
      validation_goal_reached=position.validation_reached,
      test_goal_reached=position.test_reached,
      is_time_remaining=True,
      last_eval_time=clock.epoch_sec(self._last_eval_end) if position.num_evals else 0,
      training_complete=False,
      accumulated_submission_time=self.watch.submission_time,
      accumulated_eval_time=buckets['eval'],
      accumulated_logging_time=buckets['log'] + buckets['checkpoint'],
      last_step_end_time=clock.epoch_sec(self.watch.last),
    )

  def _random_seed(self) -> int:
    """The seed of the global random states: by position, so that resuming needs to save none."""
    return seeds.derive(self.seed, 'global', self.position.global_step)

  def _check_integrity(self) -> None:
    if self.guard.violations:
      raise self.guard.violations[0]
