"""One trial as data: all that its process needs to know, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark.definition import Budget, Split, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Ruleset, Suite
from algorithmic_efficiency.results.trial_record import Options, TrialRecord

StopAt = Literal['both', 'validation', 'never']

SMOKE_BUDGET = Budget(step_hint=20, max_steps=20, eval_period_steps=10)
"""What a smoke run may spend, on the step axis, in every suite."""

ALL_SPLITS: tuple[Split, ...] = ('eval_train', 'validation', 'test')


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
  """One run of one hyperparameter point on one workload.

  Attributes:
    submission: the name under which it is scored.
    submission_path: the module file.
    hyperparameters: the point, in the order of the search space; None for self tuning.
    seed: the trial's own seed, derived from the study's, which is derived from the root seed.
    folder: the trial folder.
    overwrite: whether the trial replaces one that lies in its folder.
    stop_at: which targets end the trial: both, the one on validation alone, or none.
    heartbeat_timeout_sec: seconds that the trial may be silent before it is ended from outside.
    splits: the splits that an evaluation covers.
    full_eval_every: of the evaluations that are due, each so-many-th covers all examples; those
      between look at the first batch of validation, and cover all where it reaches the target.
    budget: what it may spend instead of what its suite says; for trials that are never scored.
    watched: whether its process reports what the submission does that `faults` has.
    eval_steps: the steps after which it is evaluated, the last of which ends it, whatever its suite
      says of evaluations and budgets; for trials that are never scored.
    trackers: names of what else the rows are sent to, such as 'tensorboard'.
    suite_file: the file that the suite was read from, if it is one of a user's.
    flags: the command's own flags, written down as they were.
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
  data_dir: str
  folder: str
  devices: Devices = field(default_factory=Devices)
  smoke: bool = False
  resume: bool = False
  overwrite: bool = False
  max_global_steps: int | None = None
  stop_at: StopAt = 'both'
  stop_on_divergence: bool = False
  heartbeat_timeout_sec: float = 3_600.0
  save_checkpoints: bool = True
  evaluate: bool = True
  splits: tuple[Split, ...] = ALL_SPLITS
  full_eval_every: int = 1
  eval_steps: tuple[int, ...] = ()
  budget: Budget | None = None
  watched: bool = False
  trackers: tuple[str, ...] = ()
  roots: tuple[str, ...] = ()
  task_folders: tuple[str, ...] = ()
  suite_file: str = ''
  flags: Mapping[str, Any] = field(default_factory=dict)

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, text: str) -> TrialConfig:
    fields = json.loads(text)
    fields['devices'] = Devices(**fields['devices'])
    if fields['budget'] is not None:
      fields['budget'] = Budget(**fields['budget'])
    for name in ('splits', 'eval_steps', 'trackers', 'roots', 'task_folders'):
      fields[name] = tuple(fields[name])
    return cls(**fields)

  @property
  def path(self) -> Path:
    return Path(self.folder)

  @property
  def seeds(self) -> dict[str, int]:
    """The seeds by name, as the trial's record has them."""
    return {'seed': self.root_seed, 'study': self.study_seed, 'trial': self.seed}

  @property
  def options(self) -> Options:
    """What the trial is spared or not, as its record has it."""
    return {
      'stop_at': self.stop_at,
      'stop_on_divergence': self.stop_on_divergence,
      'splits': list(self.splits),
      'full_eval_every': self.full_eval_every,
      **({'eval_steps': list(self.eval_steps)} if self.eval_steps else {}),
    }

  def record(self) -> TrialRecord:
    """The trial's record as far as the plan knows it, before anything has run."""
    return TrialRecord(
      workload=self.workload,
      framework=self.framework,
      submission=self.submission,
      suite=self.suite,
      ruleset=self.ruleset,
      study=self.study,
      trial=self.trial,
      smoke=self.smoke,
      hyperparameters=self.hyperparameters,
      seeds=self.seeds,
      options=self.options,
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
