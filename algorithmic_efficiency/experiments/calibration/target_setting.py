"""The protocol that sets the target and the budget of a workload, and its record.

The protocol is AlgoPerf's (G. E. Dahl et al., 2023, https://arxiv.org/abs/2306.07179):

1. A search runs the same number of points of the search space of each of several submissions.
2. The best point of all runs again with several seeds.
3. The median of the best validation values of the reruns is the validation target.
4. Of the reruns that reach it, the worst of the best test values is the test target.
5. The budget is a third more steps than these runs had, or `budget_factor` times as many. A larger
   factor also ranks submissions that are much slower than a tuned one.
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
from algorithmic_efficiency.results import files, former_names, schema
from algorithmic_efficiency.results.schema import Count

BUDGET_FACTOR = fractions.Fraction(4, 3)  # AlgoPerf's, of the steps of the runs that set the target
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
class Record:
  """A calibration: its options, its environment, every run, and the results.

  Attributes:
    budget_factor: budget as a multiple of the steps of these runs; a fraction, such as '4/3'.
    present: previous target of the definition.
    target, budget: results. Target values have six digits, rounded so that the runs that set them
      reach them.
    environment: environment of the reruns, one record for each host.
  """

  workload: str
  framework: str
  submissions: tuple[str, ...]
  num_trials: Count
  num_seeds: Count
  step_budget: Count
  budget_factor: str
  seed: int
  present: Target
  target: Target
  budget: Budget
  search: tuple[Run, ...]
  reruns: tuple[Run, ...]
  environment: tuple[Mapping[str, Any], ...]

  @property
  def command(self) -> str:
    """The command that reproduces this record."""
    words = ['algoeff', 'calibrate', self.workload, '--submissions', ','.join(self.submissions)]
    words += ['--trials', str(self.num_trials), '--seeds', str(self.num_seeds)]
    words += ['--step_budget', str(self.step_budget), '--budget_factor', self.budget_factor]
    words += ['--framework', self.framework]
    return shlex.join([*words, '--seed', str(self.seed)])

  @property
  def validation(self) -> list[float]:
    """The best validation value of each rerun."""
    return [_known(run.best_validation) for run in self.reruns]

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
      value = schema.read_json(path)
      return schema.convert(former_names.renamed(value, former_names.CALIBRATION), cls)
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


def target_of(reruns: Sequence[Run], present: Target) -> Target:
  """Returns the target that the reruns set, on the metric of the previous one."""
  values = [_known(run.best_validation) for run in reruns]
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


def budget_of(step_budget: int, factor: fractions.Fraction = BUDGET_FACTOR) -> Budget:
  """Returns the budget in steps, which is also the step hint."""
  steps = math.ceil(step_budget * factor)
  return Budget(step_hint=steps, max_steps=steps)


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


# Comparison of two calibrations.


@dataclass(frozen=True, kw_only=True)
class FrameworkAgreement:
  """The difference of two calibrations of a workload, and its noise.

  Attributes:
    difference: median over seeds of the first, minus that of the second.
    noise: twice the standard error of that difference.
  """

  difference: float
  noise: float

  @property
  def agree(self) -> bool:
    return abs(self.difference) <= self.noise


def check_like(record: Record, **asked: Any) -> None:
  """Checks that a calibration with these attributes is comparable with a record.

  Raises:
    UserError: an attribute differs.
  """
  for what, value in asked.items():
    if getattr(record, what) != value:
      raise errors.UserError(
        f'Calibrations compare where {what} is the same; these have {value} and '
        f'{getattr(record, what)}.'
      )


def agreement(one: Record, other: Record) -> FrameworkAgreement:
  """Compares two calibrations.

  Raises:
    UserError: they differ in workload, metric or number of steps.
  """
  check_like(other, workload=one.workload, step_budget=one.step_budget)
  values = (one.validation, other.validation)
  difference = statistics.median(values[0]) - statistics.median(values[1])
  variances = [statistics.variance(each) / len(each) for each in values]
  return FrameworkAgreement(
    difference=difference, noise=2 * _MEDIAN_SPREAD * math.sqrt(sum(variances))
  )


def agreement_sentence(one: Record, other: Record) -> str:
  """Returns the result of `agreement` as a sentence."""
  found = agreement(one, other)
  verdict = 'agree within their noise' if found.agree else 'differ by more than their noise'
  return (
    f'{one.framework} and {other.framework} {verdict}: the medians of the best validation '
    f'{one.target.metric} over {one.num_seeds} and {other.num_seeds} seeds are '
    f'{statistics.median(one.validation):.6g} and {statistics.median(other.validation):.6g}. They '
    f'differ by {abs(found.difference):.3g}; twice the standard error is {found.noise:.3g}.'
  )
