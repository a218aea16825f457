"""From the config of a trial to its parts: definition, backend, submission and workloads."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from algorithmic_efficiency import backends, trust
from algorithmic_efficiency.backends.base import Backend, DefinedWorkload, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Suite
from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial import submission as submissions
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.stopping import StoppingRules
from algorithmic_efficiency.trial.submission import Submission


@dataclass(frozen=True, kw_only=True)
class Parts:
  """What a trial is made of, before anything is initialized.

  Attributes:
    batch_size: examples of a global training batch.
    workload: what the submission sees.
    eval_workload: what evaluates; the submission never gets hold of it.
    root: the prepared data set; None for generated data.
    init_sec: seconds that the import of the submission and its `get_batch_size` took.
    notes: what a reader of the result should know of the batch size and of the submission.
  """

  definition: WorkloadDefinition
  rules: StoppingRules
  backend: Backend
  task: TaskCode
  submission: Submission
  batch_size: int
  workload: DefinedWorkload
  eval_workload: DefinedWorkload
  root: Path | None
  init_sec: float
  notes: tuple[str, ...]


def gather(config: TrialConfig, watch: Stopwatch) -> Parts:
  """Starts the backend, and loads the submission.

  Raises:
    UserError: the devices or the submission do not fit.
    IntegrityError: the submission broke a rule.
  """
  suite = registry.suite(config.suite)
  definition = registry.workload(config.workload, suite.name)
  budget = config.budget or budget_of(definition, suite, config.ruleset, config.options.smoke)
  if config.options.smoke:
    definition = definition.for_smoke()
  backend = backends.start(config.framework, config.devices)
  task = TaskCode.of(definition, config.framework)
  _prepare_absl()
  start = watch.lap('setup')
  submission = submissions.load(Path(config.submission_path), config.framework)
  backend = backend.for_submission(submission.uses)
  with trust.submission():
    batch_size, notes = train_batch_size(
      submission,
      definition,
      backend.num_devices,
      fixed_by=batch_size_is_fixed_by(suite, smoke=config.options.smoke),
    )
    eval_batch_size = submission.eval_batch_size(
      (definition.name, definition.base), definition.batch_sizes.eval, backend.num_devices
    )
  init_sec = watch.lap('setup') - start
  workload = functools.partial(
    backend.workload,
    definition,
    task,
    budget,
    eval_batch_size=eval_batch_size,
    running_average_bn=suite.running_average_bn,
  )
  return Parts(
    definition=definition,
    rules=StoppingRules.of(config, suite, budget, definition.generation),
    backend=backend,
    task=task,
    submission=submission,
    batch_size=batch_size,
    workload=workload(),
    eval_workload=workload(),
    root=None if config.options.smoke else config.data_dir / definition.dataset,
    init_sec=init_sec,
    notes=(
      *notes,
      *(
        f'Given back to the submission, which is older than the framework: {name}.'
        for name in submission.restored
      ),
    ),
  )


def train_batch_size(
  submission: Submission, definition: WorkloadDefinition, num_devices: int, fixed_by: str | None
) -> tuple[int, tuple[str, ...]]:
  """The global training batch size, and notes about it.

  Args:
    fixed_by: what fixes the batch size, if anything does. What the submission asks for is then only
      noted, and need not suit the devices.

  Raises:
    UserError: the batch size is no positive integer, or not divisible by the devices.
  """
  default = definition.batch_sizes.train
  names = (definition.name, definition.base)
  if fixed_by is not None:
    size, _ = submission.batch_size((), default, num_devices)
    asked, known_as = submission.batch_size(names, default, num_devices=1)
    if known_as and asked != size:
      return size, (
        f'{fixed_by} fixes the batch size at {size}; the submission asked for {asked}.',
      )
    return size, ()
  size, known_as = submission.batch_size(names, default, num_devices)
  if known_as == definition.name:
    return size, ()
  source = f'that of {known_as}' if known_as else "the definition's"
  return size, (f'The submission knows no batch size for {definition.name}; {source} was used.',)


def batch_size_is_fixed_by(suite: Suite, *, smoke: bool) -> str | None:
  """What fixes the batch size whatever the submission asks for; None if nothing does."""
  if smoke:
    return 'A smoke run'
  return f'The suite {suite.name}' if suite.fixes_batch_size else None


def _prepare_absl() -> None:
  """Makes absl's flags and logging usable for a submission that expects an absl application."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
