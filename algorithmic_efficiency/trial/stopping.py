"""When a trial is evaluated and when it stops: pure functions of its rules, position and clock."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.benchmark.definition import Budget, Generation, Target
from algorithmic_efficiency.benchmark.suites import Axis, Suite
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.run_options import StopAt


@dataclass(frozen=True, kw_only=True)
class StoppingRules:
  """When a trial is evaluated and when it stops.

  Attributes:
    axis: what is raced, seconds or steps; it decides which budget and which period count.
    max_sec, max_steps: the budget: seconds of submission time, and charged steps; None is none.
    eval_period_sec, eval_period_steps: what lies between two evaluations.
    free_init_sec: seconds that `get_batch_size` and `init_optimizer_state` may take uncharged.
    max_global_steps: the step limit of the command; None is none.
    stop_at: which targets end the trial.
    stop_on_divergence: whether values that are not finite end the trial.
    evaluate: whether there are evaluations at all.
    full_eval_every: every so-many-th evaluation is a full one; those between are partial.
    eval_steps: evaluate after these steps, instead of after the periods.
    generation: which metrics need generated outputs, and in which evaluations; None for none.
  """

  axis: Axis
  max_sec: float | None
  max_steps: int | None
  eval_period_sec: float | None
  eval_period_steps: int | None
  free_init_sec: float
  max_global_steps: int | None = None
  stop_at: StopAt = 'both'
  stop_on_divergence: bool = False
  evaluate: bool = True
  full_eval_every: int = 1
  eval_steps: tuple[int, ...] = ()
  generation: Generation | None = None

  @classmethod
  def of(
    cls,
    config: TrialConfig,
    suite: Suite,
    budget: Budget,
    generation: Generation | None = None,
  ) -> StoppingRules:
    """The rules of a trial in a suite; `budget` is the one of its ruleset (`budget_of`)."""
    options = config.options
    rules = cls(
      axis='cost_adjusted_steps' if options.smoke else suite.axis,
      max_sec=budget.max_sec,
      max_steps=budget.max_steps,
      eval_period_sec=budget.eval_period_sec,
      eval_period_steps=budget.eval_period_steps,
      free_init_sec=suite.free_init_sec,
      max_global_steps=options.max_global_steps,
      stop_at=options.stop_at,
      stop_on_divergence=bool(options.stop_on_divergence),
      evaluate=options.evaluate,
      full_eval_every=options.full_eval_every,
      eval_steps=options.eval_steps,
      generation=generation if options.generate else None,
    )
    if not options.eval_steps:
      return rules
    last = options.eval_steps[-1]
    return dataclasses.replace(rules, max_sec=None, max_steps=None, max_global_steps=last)

  def for_interval(
    self, last_step: int, *, evaluate: bool, generate: bool = False
  ) -> StoppingRules:
    """The rules of an interval that ends after `last_step`, whatever was spent by then.

    Args:
      evaluate: whether an evaluation ends the interval. One follows the trial's first step, too.
      generate: whether evaluations generate what the definition has generated.
    """
    return dataclasses.replace(
      self,
      axis='seconds',
      max_sec=None,
      eval_period_sec=math.inf,
      max_global_steps=last_step,
      evaluate=evaluate,
      generation=self.generation if generate else None,
    )


def limit_reached(
  rules: StoppingRules, position: Position, *, complete: bool, spent_sec: float
) -> str | None:
  """The stop reason after a step; None if the trial goes on.

  Args:
    complete: whether the submission has raised `TrainingCompleteError`.
    spent_sec: submission time in seconds; unused on the step axis.
  """
  if complete:
    return 'training_complete'
  if rules.max_global_steps is not None and position.global_step >= rules.max_global_steps:
    return 'step_limit'
  return 'budget_spent' if budget_is_spent(rules, position, spent_sec) else None


def budget_is_spent(rules: StoppingRules, position: Position, spent_sec: float) -> bool:
  """Whether the budget of the axis is used up, to the last second or step."""
  if rules.axis == 'seconds':
    return rules.max_sec is not None and spent_sec >= rules.max_sec
  return rules.max_steps is not None and position.charged_steps >= rules.max_steps


def ends_without_evaluation(rules: StoppingRules, reason: str | None) -> bool:
  """Whether the trial ends at once: what comes after the last second of a budget is too late."""
  return reason == 'budget_spent' and rules.axis == 'seconds'


def evaluation_due(rules: StoppingRules, position: Position, *, since_eval_sec: float) -> bool:
  """Whether an evaluation follows a step that reached no limit.

  Args:
    since_eval_sec: seconds since the last evaluation ended; unused on the step axis.
  """
  if not rules.evaluate:
    return False
  if rules.eval_steps:
    return position.global_step in rules.eval_steps
  if position.global_step == 1:
    return True
  if rules.axis == 'seconds':
    assert rules.eval_period_sec is not None
    return since_eval_sec >= rules.eval_period_sec
  return position.charged_steps >= position.next_eval_steps


def next_eval_steps(rules: StoppingRules, position: Position) -> int:
  """The next multiple of the evaluation period, in charged steps."""
  period = rules.eval_period_steps
  return (
    position.next_eval_steps if period is None else (position.charged_steps // period + 1) * period
  )


def is_partial(rules: StoppingRules, position: Position, reason: str | None) -> bool:
  """Whether evaluation number `position.num_evals`, from 1, is partial; never the last one."""
  return reason is None and (position.num_evals - 1) % rules.full_eval_every != 0


def generates(rules: StoppingRules, position: Position, reason: str | None) -> bool:
  """Whether the full evaluation that is due generates outputs.

  The first one does, every so-many-th after it, and that of a trial which then ends.
  """
  generation = rules.generation
  if generation is None:
    return False
  number = len(position.eval_results)  # of full evaluations, which a checkpoint keeps
  is_nth = generation.every is not None and number % generation.every == 0
  return number == 0 or is_nth or reason is not None


def generates_for(rules: StoppingRules, metric: str) -> bool:
  """Whether a metric needs generated outputs."""
  return rules.generation is not None and metric in rules.generation.metrics


def decides_nothing(target: Target, partial: Mapping[str, float]) -> bool:
  """Whether a partial evaluation needs no full one: finite, and the target is not reached."""
  value = partial[f'validation/{target.metric}']
  return math.isfinite(value) and not target.reached('validation', value)


def targets_reached(target: Target, values: Mapping[str, float]) -> tuple[bool, bool]:
  """Whether an evaluation reaches the target on validation, and that on test."""
  validation, test = (values.get(f'{split}/{target.metric}') for split in ('validation', 'test'))
  return target.reached('validation', validation), target.reached('test', test)


def target_reason(rules: StoppingRules, position: Position) -> str | None:
  """The stop reason that the targets reached so far give, if they give one."""
  if position.validation_reached and position.test_reached and rules.stop_at != 'never':
    return 'targets_reached'
  if position.validation_reached and rules.stop_at == 'validation':
    return 'validation_target_reached'
  return None


def is_finite(values: Mapping[str, float]) -> bool:
  """Whether every validation metric is finite."""
  return all(
    math.isfinite(value) for name, value in values.items() if name.startswith('validation/')
  )


def check_steps_remain(rules: StoppingRules, position: Position) -> None:
  """Checks that a trial which resumes has a step to make.

  Raises:
    UserError: the step limit leaves it none.
  """
  limit, done = rules.max_global_steps, position.global_step
  if position.stop_reason is None and limit is not None and limit <= done:
    raise errors.UserError(
      f'The trial stands at step {done}, so --max_global_steps {limit} leaves it none to make. '
      'Ask for more, or for no limit.'
    )


def charged_init_sec(rules: StoppingRules, init_sec: float) -> float:
  """The seconds of `get_batch_size` and `init_optimizer_state` beyond what is free.

  Args:
    init_sec: what both took together.

  Raises:
    IntegrityError: they took more than is free on the step axis, where seconds are not charged.
  """
  excess = max(0.0, init_sec - rules.free_init_sec)
  if excess and rules.axis != 'seconds':
    raise trust.IntegrityError(
      f'get_batch_size and init_optimizer_state may take {rules.free_init_sec:.0f} s; they took '
      f'{init_sec:.0f} s.',
      'init_too_long',
    )
  return excess
