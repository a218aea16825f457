"""The checks of an entry's rows: when evaluations came, what they took, and what they reached.

A trial has one clock, whose buckets sum to its wall time. So the times of its rows, of its record
and of its parent depend on each other. Someone who changes all of them alike is found only by
running the trial again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from algorithmic_efficiency.benchmark.definition import Budget
from algorithmic_efficiency.clock import SUBMISSION_BUCKETS
from algorithmic_efficiency.entries.checks import Entry, Found, as_check
from algorithmic_efficiency.entries.trials import EntryTrial
from algorithmic_efficiency.entries.verdict import Finding, Severity
from algorithmic_efficiency.launch.outcome import CLOCK_TOLERANCE, CLOCK_TOLERANCE_SEC
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import stopping
from algorithmic_efficiency.trial.config import budget_of
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.stopping import StoppingRules

_SUBMISSION, _TOTAL = 'accumulated_submission_time', 'total_duration'
_EVAL, _LOG = 'accumulated_eval_time', 'accumulated_logging_time'
_TIMES = (_SUBMISSION, _TOTAL, _EVAL, _LOG)
_ROUNDING_SEC = 1e-3  # of sums of clock readings
_STEP_TIME_RATIO = 1.5  # by which the mean step time of the rows may differ from the recorded one
_BY_TARGET = ('targets_reached', 'validation_target_reached')

Row = Mapping[str, float]
Faults = Iterator[tuple[Severity, str]]


def _budget(entry: Entry, one: EntryTrial) -> Budget | None:
  """The budget of a trial; None on a workload that is not scored."""
  scoring = entry.rules.scoring
  definition = scoring.members.get(one.workload)
  return None if definition is None else budget_of(definition, scoring.suite, scoring.ruleset)


# When evaluations came.


@as_check('rows')
def scheduled(entry: Entry, found: Found) -> Iterator[Finding]:
  in_steps = entry.rules.scoring.suite.fixes_batch_size
  for one in entry.trials:
    budget = _budget(entry, one)
    if budget is None or not one.rows:
      continue
    faults = _in_steps(one, budget) if in_steps else _in_seconds(one, budget)
    for severity, text in faults:
      yield found(severity, one.name, text)


def _in_seconds(one: EntryTrial, budget: Budget) -> Faults:
  """Faults of a trial whose budget is a time: no row comes after it."""
  spent = one.rows[-1].get(_SUBMISSION, math.nan)
  if budget.max_sec is not None and spent > budget.max_sec + _ROUNDING_SEC:
    severity: Severity = 'refused' if one.record else 'note'  # AlgoPerf evaluates once more
    yield severity, f'Its last row is at {spent:,.1f} s, beyond {budget.max_sec:,.1f} s.'
  record = one.record
  if record is None:
    return
  if one.rows[0]['global_step'] != 1:
    yield 'refused', f'Its first row is of step {one.rows[0]["global_step"]:.0f}, not of step 1.'
  is_over = budget.max_sec is None or record.submission_time_sec >= budget.max_sec - _slack(one)
  if record.stop_reason == 'budget_spent' and not is_over:
    yield 'refused', f'It did not spend its budget: {record.submission_time_sec:,.1f} s.'


def _in_steps(one: EntryTrial, budget: Budget) -> Faults:
  """Faults of a trial whose budget is a number of charged steps: it is evaluated by steps, too."""
  record = one.record
  if record is None or record.options.get('full_eval_every', 1) != 1:
    return
  if one.rows[0]['global_step'] != 1:
    yield 'refused', f'Its first row is of step {one.rows[0]["global_step"]:.0f}, not of step 1.'
  for before, row in itertools.pairwise(one.rows):
    yield from _at_its_time(one, budget, before, row)
  if record.status != 'finished':
    return
  last = one.rows[-1]['global_step']
  if last != record.global_step:
    yield 'refused', f'Its last row is of step {last:.0f}, and it ended at {record.global_step}.'
  most = budget.max_steps
  if record.stop_reason == 'budget_spent' and most is not None and record.charged_steps < most:
    yield 'refused', f'It did not spend its budget: {record.charged_steps} of {most} steps.'


def _at_its_time(one: EntryTrial, budget: Budget, before: Row, row: Row) -> Faults:
  """Faults of a row after another: an evaluation is due at each multiple of the period."""
  period, most = budget.eval_period_steps, budget.max_steps
  charged_before, charged = _charged(before), _charged(row)
  num_steps = row['global_step'] - before['global_step']
  most_of_last_step = charged - charged_before - (num_steps - 1)  # each other step took one
  where = f'the rows of steps {before["global_step"]:.0f} and {row["global_step"]:.0f}'
  if period is not None:
    due = (charged_before // period + 1) * period
    if charged - most_of_last_step >= due:
      yield 'refused', f'A row is missing between {where}: one was due at step {due:.0f}.'
    if charged < due and row is not one.rows[-1]:
      yield 'refused', f'A row was added: at step {charged:.0f} no evaluation was due.'
  if most is not None and charged - most_of_last_step >= most:
    yield 'refused', f'It went on beyond its budget of {most} steps, between {where}.'


def _charged(row: Row) -> float:
  return row.get('charged_steps', row['global_step'])


# What they took.


@as_check('times')
def add_up(entry: Entry, found: Found) -> Iterator[Finding]:
  for one in entry.trials:
    missing = [name for name in _TIMES if any(name not in row for row in one.rows)]
    if missing:
      severity: Severity = 'refused' if one.record else 'unchecked'
      yield found(severity, one.name, f'Its rows lack {", ".join(missing)}.')
      continue
    faults = list(_in_rows(one))
    if one.record is not None and one.record.status == 'finished':
      faults += _in_record(one, one.record)
    for severity, text in faults:
      yield found(severity, one.name, text)


def _in_rows(one: EntryTrial) -> Faults:
  severity: Severity = 'refused' if one.record else 'doubtful'
  for row in one.rows:
    where = f'At step {row["global_step"]:.0f}'
    parts, total = sum(row[name] for name in (_SUBMISSION, _EVAL, _LOG)), row[_TOTAL]
    if parts > total * (1 + 1e-6) + _slack(one):
      yield severity, f'{where} its times sum to {parts:.3f} s, more than {total:.3f} s in all.'
    if not math.isclose(row.get('score', row[_SUBMISSION]), row[_SUBMISSION]):
      yield severity, f'{where} its score is not its submission time.'
  for before, row in itertools.pairwise(one.rows):
    for name in (_TOTAL, _EVAL, _SUBMISSION):
      if not row[name] > before[name]:
        text = f'{name} does not grow from step {before["global_step"]:.0f} to the next row.'
        yield severity, text
  if one.record is not None and one.num_processes == 1:
    yield from _in_sessions(one)


def _slack(one: EntryTrial) -> float:
  """Seconds by which the slowest of several processes may be ahead of the first."""
  return _ROUNDING_SEC if one.num_processes == 1 else 1.0


def _untracked(row: Row) -> float:
  """What a row's total has besides its parts: starting, less what was charged of it."""
  return row[_TOTAL] - row[_SUBMISSION] - row[_EVAL] - row[_LOG]


def _in_sessions(one: EntryTrial) -> Faults:
  """Faults between rows of one process: nothing but the start is outside of the parts."""
  for before, row in itertools.pairwise(one.rows):
    change = _untracked(row) - _untracked(before)
    is_resumed = row.get('preemption_count', 0) != before.get('preemption_count', 0)
    if abs(change) > _rounding(row) and not (is_resumed and change > 0):
      text = f'From step {before["global_step"]:.0f} to step {row["global_step"]:.0f} its times do'
      yield 'refused', f'{text} not add up: {abs(change):.3f} s are missing or too many.'


def _rounding(row: Row) -> float:
  return _ROUNDING_SEC + 1e-9 * row[_TOTAL]


def _in_record(one: EntryTrial, record: TrialRecord) -> Faults:
  """Faults between the rows, the record and the parent's clock."""
  buckets, slack = record.buckets, _slack(one)
  total = sum(buckets.values())
  timed = sum(buckets.get(name, 0.0) for name in SUBMISSION_BUCKETS)
  start = buckets.get('setup', 0.0) + buckets.get('init_optimizer', 0.0)
  charged = record.submission_time_sec - timed
  if not -slack <= charged <= start + slack:
    text = f'{record.submission_time_sec:.3f} s where its buckets sum to {timed:.3f} s'
    yield 'refused', f'Its submission time is {text}.'
  if record.submission_time_sec > total + slack:
    yield 'refused', 'Its submission time is longer than its wall time.'
  was_resumed = any(row.get('preemption_count', 0) for row in one.rows)
  shorter = total < record.wall_sec - slack
  if shorter or (not was_resumed and total > record.wall_sec + slack):
    yield 'refused', f'Its buckets sum to {total:.3f} s; its wall time is {record.wall_sec:.3f} s.'
  parent = record.parent_wall_sec
  if parent is not None:
    allowed = max(CLOCK_TOLERANCE * parent, CLOCK_TOLERANCE_SEC)
    if abs(parent - record.wall_sec) > allowed:
      text = f'{parent:.3f} s; its own clock says {record.wall_sec:.3f} s'
      yield 'doubtful', f'By the clock of its parent it took {text}.'
  if not one.rows:
    return
  last = one.rows[-1]
  for what, in_row, in_all in (
    ('submission time', last[_SUBMISSION], record.submission_time_sec),
    ('evaluation time', last[_EVAL], buckets.get('eval', 0.0)),
    ('wall time', last[_TOTAL], total),
  ):
    if in_row > in_all + slack:
      yield 'refused', f'The {what} of its last row is longer than that of the trial.'
  if one.num_processes == 1 and abs(_untracked(last) - start + charged) > _rounding(last):
    text = f'{_untracked(last):.3f} s in its rows and {start - charged:.3f} s in its record'
    yield 'refused', f'The time before its first step is {text}.'
  yield from _step_time(one, record, is_plain=not was_resumed)


def _step_time(one: EntryTrial, record: TrialRecord, *, is_plain: bool) -> Faults:
  """Holds the recorded time of a step against that of the rows, where both cover the same steps."""
  if not is_plain or record.step_time_sec is None or len(one.rows) < 3:
    return
  if record.options.get('full_eval_every', 1) != 1:
    return
  first, last = one.rows[1], one.rows[-1]
  num_steps = last['global_step'] - first['global_step']
  seconds = (last[_SUBMISSION] - first[_SUBMISSION]) / max(num_steps, 1)
  ratio = seconds / record.step_time_sec if record.step_time_sec else math.inf
  if not 1 / _STEP_TIME_RATIO <= ratio <= _STEP_TIME_RATIO:
    text = f'{seconds:.4g} s by its rows and {record.step_time_sec:.4g} s by its record'
    yield 'doubtful', f'A step takes {text}.'


# What they reached.


@as_check('targets')
def as_rows_reach(entry: Entry, found: Found) -> Iterator[Finding]:
  for one, record in entry.recorded:
    budget = _budget(entry, one)
    if budget is not None:
      for severity, text in _claims(entry, one, record, budget):
        yield found(severity, one.name, text)


def _claims(entry: Entry, one: EntryTrial, record: TrialRecord, budget: Budget) -> Faults:
  """Faults of the stop reason: a trial ends at the first row that reaches its targets."""
  target = entry.rules.definitions[one.workload].target
  rules = _stopping_rules(entry, record, budget)
  position, reason = Position(), None
  for row in one.rows:
    if reason is not None:
      yield 'refused', f'It reached its targets and went on to step {row["global_step"]:.0f}.'
      break
    validation, test = stopping.targets_reached(target, row)
    position.validation_reached |= validation
    position.test_reached |= test
    reason = stopping.target_reason(rules, position)
  if record.status != 'finished':
    return
  if reason is None and record.stop_reason in _BY_TARGET:
    yield 'refused', 'Its record says that it reached its target; no row does.'
  elif reason is not None and record.stop_reason != reason:
    yield 'refused', f'Its rows reach the target; its record says {record.stop_reason}.'


def _stopping_rules(entry: Entry, record: TrialRecord, budget: Budget) -> StoppingRules:
  suite = entry.rules.scoring.suite
  return StoppingRules(
    axis=suite.axis,
    max_sec=budget.max_sec,
    max_steps=budget.max_steps,
    eval_period_sec=budget.eval_period_sec,
    eval_period_steps=budget.eval_period_steps,
    free_init_sec=suite.free_init_sec,
    stop_at=record.options.get('stop_at', 'both'),  # type: ignore[arg-type]
  )
