"""The protocol that sets the target and the budget of a workload, and its record.

The protocol is AlgoPerf's (G. E. Dahl et al., 2023, https://arxiv.org/abs/2306.07179):

1. A search runs the same number of points of the search space of each of several submissions.
2. The best point of all runs again with several seeds.
3. The median of the best validation values of the reruns is the validation target.
4. Of the reruns that reach it, the worst of the best test values is the test target.
5. The step hint is a third more steps than these runs had. The budget is `budget_factor` times as
   many, so that submissions much slower than a tuned one are ranked, too.

`timing.py` tells whether such a target can be timed.
"""

from __future__ import annotations

import dataclasses
import fractions
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import Budget, Target
from algorithmic_efficiency.experiments.calibration import robust
from algorithmic_efficiency.experiments.calibration.timing import Timing
from algorithmic_efficiency.results import files, schema
from algorithmic_efficiency.results.schema import Count

HINT_FACTOR = fractions.Fraction(4, 3)  # AlgoPerf's step hint, of the steps of the calibrating runs
BUDGET_FACTOR = fractions.Fraction(4)  # the ratio of times at which a time counts as a miss
EVALS_PER_RUN = 30
_SIGNIFICANT_DIGITS = 6
_MEDIAN_SPREAD = math.sqrt(math.pi / 2)  # standard error of a median, divided by that of a mean


@dataclass(frozen=True, kw_only=True)
class Run:
  """One run of a calibration.

  Attributes:
    number: number of the trial in the search; number of the study in the rerun.
    best_validation, best_test: best values over all evaluations; None without a finite one.
    best_step: first step that reached the best validation value.
  """

  submission: str
  number: Count
  point: Mapping[str, Any]
  stop_reason: str
  best_validation: float | None
  best_test: float | None
  best_step: Count | None


@dataclass(frozen=True, kw_only=True)
class FrameworkAgreement:
  """The best validation values of one point in two frameworks, with the same seeds.

  Attributes:
    frameworks: this one, and that of the earlier record.
    medians: median over seeds of the best validation values in each.
    noise: twice the standard error of the difference of the medians, by `robust.spread`.
  """

  frameworks: tuple[str, str]
  medians: tuple[float, float]
  noise: float

  @classmethod
  def of(
    cls, frameworks: tuple[str, str], values: Sequence[float], others: Sequence[float]
  ) -> FrameworkAgreement:
    """Compares the best validation values of the seeds of both."""
    deviation = robust.spread(values, others)
    return cls(
      frameworks=frameworks,
      medians=(statistics.median(values), statistics.median(others)),
      noise=2 * _MEDIAN_SPREAD * deviation * math.sqrt(1 / len(values) + 1 / len(others)),
    )

  @property
  def agree(self) -> bool:
    return abs(self.medians[0] - self.medians[1]) <= self.noise

  @property
  def sentence(self) -> str:
    one, other = self.frameworks
    verdict = 'agree within their noise' if self.agree else 'differ by more than their noise'
    return (
      f'{one} and {other} {verdict}: the medians of the best validation values are '
      f'{self.medians[0]:.6g} and {self.medians[1]:.6g}. They differ by '
      f'{abs(self.medians[0] - self.medians[1]):.3g}; twice the standard error is {self.noise:.3g}.'
    )


@dataclass(frozen=True, kw_only=True)
class Protocol:
  """The numbers of a calibration.

  Attributes:
    submissions: submissions whose search spaces are searched.
    num_trials: points of each search space.
    num_seeds: reruns of the best point; its times to target are measured with twice as many.
    step_budget: steps of every run, which schedules span.
    eval_period_steps: steps between evaluations, in these runs and in races.
    budget_factor: budget as a multiple of `step_budget`; a fraction, such as '4/3'.
    max_variation: largest accepted variation of the time to target.
    seed: root seed of all runs.
  """

  submissions: tuple[str, ...]
  num_trials: Count
  num_seeds: Count
  step_budget: Count
  eval_period_steps: Count
  budget_factor: str
  max_variation: float
  seed: int

  @property
  def budget(self) -> Budget:
    return Budget(
      step_hint=math.ceil(self.step_budget * HINT_FACTOR),
      max_steps=math.ceil(self.step_budget * fractions.Fraction(self.budget_factor)),
      eval_period_steps=self.eval_period_steps,
    )

  @property
  def flags(self) -> list[str]:
    """The flags of `algoeff calibrate`, but for the framework."""
    words = ['--submissions', ','.join(self.submissions)]
    words += ['--trials', str(self.num_trials), '--seeds', str(self.num_seeds)]
    words += ['--step_budget', str(self.step_budget), '--budget_factor', self.budget_factor]
    words += ['--eval_period_steps', str(self.eval_period_steps)]
    return [*words, '--max_variation', f'{self.max_variation:g}', '--seed', str(self.seed)]


@dataclass(frozen=True, kw_only=True)
class Record:
  """A calibration: its protocol, its environment, every run, and the results.

  Attributes:
    from_record: path of the earlier record whose best point was used; '' if spaces were searched.
    present: previous target of the definition.
    target: the result. Values have six digits, rounded so that the runs that set them reach them.
    chosen: the run with the best point.
    search: runs of the search; none where the best point of another framework runs again.
    timing: how well the target can be timed; None where the target is that of another framework.
    agreement: difference from the earlier record, where that is of another framework.
    environment: environment of the reruns, one record for each host.
  """

  workload: str
  framework: str
  from_record: str = ''
  protocol: Protocol
  present: Target
  target: Target
  chosen: Run
  search: tuple[Run, ...]
  reruns: tuple[Run, ...]
  timing: Timing | None = None
  agreement: FrameworkAgreement | None = None
  environment: tuple[Mapping[str, Any], ...]

  @property
  def command(self) -> str:
    """The command that reproduces this record."""
    source = ['--from_record', self.from_record] if self.from_record else self.protocol.flags
    return shlex.join(
      ['algoeff', 'calibrate', self.workload, '--framework', self.framework, *source]
    )

  @property
  def faults(self) -> list[str]:
    """The reasons for which the target is not accepted, as sentences; none if it is."""
    found = [] if self.timing is None else self.timing.faults(self.protocol.max_variation)
    if self.agreement is not None and not self.agreement.agree:
      found.append(self.agreement.sentence)
    return found

  def write(self, path: Path) -> None:
    """Writes the record as JSON.

    Raises:
      UserError: the file could not be written.
    """
    files.make_folder(path.parent)
    files.write_json_atomic(path, dataclasses.asdict(self))

  @classmethod
  def read(cls, path: Path) -> Record:
    """Reads a record.

    Raises:
      UserError: there is no record, or it is damaged.
    """
    try:
      return schema.convert(schema.read_json(path), cls)
    except FileNotFoundError:
      raise errors.UserError(
        f'The record of a calibration must be a file; {path} does not exist.'
      ) from None
    except schema.DamagedRecordError as error:
      raise errors.UserError(
        f'{path} is no record of a calibration ({error}); `algoeff calibrate` writes one, a .json '
        'file.'
      ) from None


def best(runs: Sequence[Run], direction: str) -> Run:
  """Returns the run with the best validation value; of equal ones, that which reached it first.

  Raises:
    UserError: no run has a finite value.
  """
  able = [run for run in runs if run.best_validation is not None]
  if not able:
    raise errors.UserError(
      'A target needs runs with finite validation values; the search has none. Look at its '
      'trials, and search smaller learning rates.'
    )
  sign = -1.0 if direction == 'max' else 1.0
  return min(able, key=lambda run: (sign * _known(run.best_validation), run.best_step))


def validation_values(reruns: Sequence[Run]) -> list[float]:
  """Returns the best validation value of each rerun."""
  return [_known(run.best_validation) for run in reruns]


def target_of(reruns: Sequence[Run], present: Target) -> Target:
  """Returns the target that the reruns set, on the metric of the previous one."""
  values = validation_values(reruns)
  target = Target(
    metric=present.metric,
    direction=present.direction,
    validation=_rounded(statistics.median(values), present.direction),
  )
  if present.test is None:
    return target
  reaching = [run for run in reruns if target.reached('validation', run.best_validation)]
  tests = [_known(run.best_test) for run in reaching]
  worst = min(tests) if target.direction == 'max' else max(tests)
  return dataclasses.replace(target, test=_rounded(worst, present.direction))


def _known(value: float | None) -> float:
  assert value is not None
  return value


def _rounded(value: float, direction: str) -> float:
  """Rounds to six significant digits, so that a run that reached the value reaches the result."""
  if value == 0:
    return 0.0
  digits = _SIGNIFICANT_DIGITS - 1 - math.floor(math.log10(abs(value)))
  scaled = fractions.Fraction(value) * fractions.Fraction(10) ** digits
  whole = math.floor(scaled) if direction == 'max' else math.ceil(scaled)
  return float(fractions.Fraction(whole) / fractions.Fraction(10) ** digits)
