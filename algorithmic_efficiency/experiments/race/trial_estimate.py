"""What one trial takes, from the rules that it runs by and a probe of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.race.probe import Probe
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.run_options import are_same
from algorithmic_efficiency.trial.stopping import StoppingRules

EXPECTED_SHARE = Fraction(3, 4)
"""Of its budget, where nothing is known: a cautious guess."""

_CHECKPOINTS_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Share:
  """The part of its budget that a trial is expected to take, and how that is known."""

  share: float
  basis: str


@dataclass(frozen=True, kw_only=True)
class TrialCost:
  """The cost of one trial: wall seconds, and bytes that stay on the disk."""

  sec: float
  disk_bytes: float


def expected_share(config: TrialConfig, records: Iterable[TrialRecord]) -> Share:
  """Returns the share of its budget that a trial is expected to spend.

  It comes from earlier trials of the same submission, workload and rules: in the same framework,
  else in the other one, which takes as many steps. Without any, it is the assumption.
  """
  if config.options.stop_at == 'never':
    return Share(share=1.0, basis='the whole budget')
  definition = registry.workload(config.workload, config.suite)
  rules = rules_of(config)
  alike = [
    record
    for record in records
    if record.status == 'finished'
    and record.stop_reason != 'step_limit'  # which says nothing of targets
    and (record.submission, record.workload) == (config.submission, config.workload)
    and record.smoke == config.options.smoke
    and record.definition_hash == definition.content_hash()
    and are_same(record.options, config.options.recorded())
  ]
  same = [record for record in alike if record.framework == config.framework]
  shares = [_share(record, rules) for record in same or alike]
  if not shares:
    return Share(share=float(EXPECTED_SHARE), basis=f'assumed: {EXPECTED_SHARE} of the budget')
  number = f'{len(shares)} trial{"s" if len(shares) > 1 else ""}'
  return Share(share=sum(shares) / len(shares), basis=f'{number} that ran before')


def _share(record: TrialRecord, rules: StoppingRules) -> float:
  if rules.axis == 'seconds':
    return record.submission_time_sec / _known(rules.max_sec)
  return record.charged_steps / _known(rules.max_steps)


def rules_of(config: TrialConfig) -> StoppingRules:
  suite = registry.suite(config.suite)
  definition = registry.workload(config.workload, config.suite)
  budget = budget_of(definition, suite, config.ruleset, config.options.smoke)
  return StoppingRules.of(config, suite, budget, definition.generation)


def trial(
  rules: StoppingRules, probe: Probe, *, checkpoints: bool, share: float = 1.0
) -> TrialCost:
  """A trial that takes this share of its budget."""
  if rules.axis == 'seconds':
    training = share * _known(rules.max_sec)
    if rules.max_global_steps is not None:
      training = min(training, _steps_sec(probe, rules.max_global_steps))
    num_evals = 1 + math.floor(training / _known(rules.eval_period_sec))
  else:
    num_steps = max(1, round(share * _known(rules.max_steps)))
    num_steps = min(num_steps, rules.max_global_steps or num_steps)
    training = _steps_sec(probe, num_steps)
    num_evals = 1 + math.ceil((num_steps - 1) / _known(rules.eval_period_steps))
  num_whole = math.ceil(num_evals / rules.full_eval_every)
  evaluating = probe.first_eval_sec + num_whole * probe.eval_sec + num_evals * probe.record_sec
  evaluating += (num_evals - num_whole) * probe.partial_eval_sec
  evaluating += _generating_sec(rules, probe, num_whole)
  kept = min(num_evals, _CHECKPOINTS_KEPT) if checkpoints else 0
  return TrialCost(
    sec=probe.start_sec + training + evaluating + probe.end_sec,
    disk_bytes=probe.folder_bytes + num_evals * probe.row_bytes + kept * probe.checkpoint_bytes,
  )


def _steps_sec(probe: Probe, num_steps: int) -> float:
  return probe.first_step_sec + (num_steps - 1) * probe.step_sec


def _generating_sec(rules: StoppingRules, probe: Probe, num_whole: int) -> float:
  """What outputs take: in the first full evaluation, in every so-many-th, and in the last."""
  generation = rules.generation
  if generation is None:
    return 0.0
  last = num_whole - 1
  number = 1 if generation.every is None else 1 + last // generation.every
  is_apart = last > 0 and (generation.every is None or last % generation.every != 0)
  return probe.first_generation_sec + (number + is_apart) * probe.generation_sec


def _known(value: float | None) -> float:
  assert value is not None, 'the axis of the suite has a budget'
  return value
