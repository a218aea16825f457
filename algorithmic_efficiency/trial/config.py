"""One trial as data: all that its process needs to know, as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark.definition import Budget, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Ruleset, Suite
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.run_options import RunOptions, data_dir

SMOKE_BUDGET = Budget(step_hint=20, max_steps=20, eval_period_steps=10)
"""What a smoke run may spend, on the step axis, in every suite."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
  """One run of one hyperparameter point on one workload.

  Attributes:
    submission: the name under which it is scored.
    submission_path: the module file.
    hyperparameters: the point, in the order of the search space; None for self tuning.
    seed: the trial's own seed, derived from the study's, which is derived from the root seed.
    folder: the trial folder.
    options: those of the command, with the suite's values where the command left them open.
    resume: True continues the trial that lies in its folder.
    overwrite: True replaces the trial that lies in its folder.
    budget: what it may spend instead of what its suite says; for trials that are never scored.
    watched: True if its process reports what the submission does against `benchmark.check_rules`.
    rounding_seed: seed by which its initial parameters are changed in their last bits; None changes
      nothing. For trials that are never scored.
    suite_file: the file of a user's own suite; '' for a suite of ours.
    flags: the flags of the command, as they are written to `flags_<n>.json`.
  """

  workload: str
  framework: str
  submission: str
  submission_path: str
  suite: str
  ruleset: Ruleset
  study: int
  trial: int
  hyperparameters: Mapping[str, Any] | None
  seed: int
  study_seed: int
  root_seed: int
  folder: str
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)
  resume: bool = False
  overwrite: bool = False
  budget: Budget | None = None
  watched: bool = False
  rounding_seed: int | None = None
  roots: tuple[str, ...] = ()
  task_folders: tuple[str, ...] = ()
  suite_file: str = ''
  flags: Mapping[str, Any] = field(default_factory=dict)

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, text: str) -> TrialConfig:
    import msgspec

    return msgspec.convert(json.loads(text), cls)

  @property
  def path(self) -> Path:
    return Path(self.folder)

  @property
  def data_dir(self) -> Path:
    """The folder of prepared data sets."""
    return data_dir(self.options.data_dir)

  @property
  def heartbeat_timeout_sec(self) -> float:
    """Seconds without a message after which the launcher ends the trial."""
    return self.options.heartbeat_timeout_sec or math.inf

  @property
  def seeds(self) -> dict[str, int]:
    """The seeds by name, as the trial's record has them."""
    return {'seed': self.root_seed, 'study': self.study_seed, 'trial': self.seed}

  def record(self) -> TrialRecord:
    """The trial's record as far as the config knows it, before anything has run."""
    return TrialRecord(
      workload=self.workload,
      framework=self.framework,
      submission=self.submission,
      suite=self.suite,
      ruleset=self.ruleset,
      study=self.study,
      trial=self.trial,
      smoke=self.options.smoke,
      hyperparameters=self.hyperparameters,
      seeds=self.seeds,
      options=self.options.recorded(),
      suite_file=self.suite_file,
    )


def budget_of(
  definition: WorkloadDefinition, suite: Suite, ruleset: Ruleset, smoke: bool = False
) -> Budget:
  """The budget of a workload, as its suite races it, times the factor of the ruleset."""
  if smoke:
    return SMOKE_BUDGET
  budget = definition.suites[suite.name]
  factor = suite.rules_of(ruleset).budget_factor
  if factor == 1.0:
    return budget
  return dataclasses.replace(
    budget,
    max_sec=None if budget.max_sec is None else budget.max_sec * factor,
    max_steps=None if budget.max_steps is None else round(budget.max_steps * factor),
  )
