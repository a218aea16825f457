"""Puts a trial together in its process: the plan becomes a run, and the run becomes records."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import (
  backends,
  clock,
  errors,
  seeds,
  trust,
)
from algorithmic_efficiency.backends.base import Backend, DefinedWorkload, TaskCode
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.benchmark.definition import Split, WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import Suite
from algorithmic_efficiency.data import fake
from algorithmic_efficiency.results import former_names
from algorithmic_efficiency.trial import evaluation, failure, guard, stopping
from algorithmic_efficiency.trial import submission as submissions
from algorithmic_efficiency.trial.checkpoint import Checkpoints, Loaded
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.inputs import InputQueue, MetricsLogger
from algorithmic_efficiency.trial.loop import BeforeEvaluation, Hooks, TrialRun, unwatched
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.recorder import NoRecords, Records, TrialRecords
from algorithmic_efficiency.trial.step_timer import median_step_sec
from algorithmic_efficiency.trial.stopping import StoppingRules
from algorithmic_efficiency.trial.submission import Submission


@dataclass(frozen=True, kw_only=True)
class Parts:
  """What a trial is made of, before anything is initialised.

  `workload` is the object that the submission sees; `eval_workload` evaluates, and the submission
  never gets hold of it. `root` is None for generated data.
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
  notes: tuple[str, ...]


class TrialProcess:
  """Everything that happens in the process of a trial, from its plan to its record."""

  def __init__(self, config: TrialConfig, report: Reporter):
    self._config = config
    self._report = report
    self._watch = clock.Stopwatch(start=clock.PROCESS_START)
    self._free_sec = 0.0
    cache = config.devices.compilation_cache
    self._guard = guard.Guard(
      unwritable=(config.path,), writable=(Path(cache),) if cache is not None else ()
    )
    self._parts: Parts | None = None
    self._stream: Any = None
    self._records: Records | None = None
    self._run: TrialRun | None = None

  @property
  def parts(self) -> Parts:
    """What the trial is made of, once it has been prepared."""
    assert self._parts is not None
    return self._parts

  def run(self) -> str:
    """Runs the trial to its end and returns its stop reason; raises what `prepare` raises."""
    return self.prepare().run()

  def prepare(self, before_evaluation: BeforeEvaluation = unwatched) -> TrialRun:
    """Everything before the first step.

    Args:
      before_evaluation: sees the parameters and the global step at each evaluation.

    Raises:
      UserError: a mistake that the user can mend.
      IntegrityError: the submission broke a rule.
    """
    self._parts = parts = self._gather()
    with self._guard.learning():
      self._stream = self._open_stream(parts)
    checkpoints = Checkpoints(self._config.path) if self._config.options.save_checkpoints else None
    saved = self._saved(parts, checkpoints)
    self._reseed(seeds.derive(self._config.seed, 'setup'))
    key = parts.backend.key(seeds.key_data(self._config.seed, 'init'))
    params, model_state = parts.workload.init_model_fn(key)
    parts.eval_workload.copy_metadata(parts.workload)
    self._records = records = self._open_records(parts, checkpoints, saved)
    self._guard.arm()
    self._run = run = self._assemble(parts, records, params, model_state, before_evaluation)
    if saved is not None:
      self._restore(run, saved)
    self._watch.lap('setup')
    self._report.send('begin')
    return run

  # From the plan to the parts.

  def _gather(self) -> Parts:
    config = self._config
    suite = registry.suite(config.suite)
    definition = registry.workload(config.workload, suite.name)
    budget = config.budget or budget_of(definition, suite, config.ruleset, config.options.smoke)
    if config.options.smoke:
      definition = definition.for_smoke()
    backend = backends.start(config.framework, config.devices)
    folder = registry.task_of(definition)
    task = TaskCode(
      data=folder.module('data'), model=folder.module(registry.MODEL_FILES[config.framework])
    )
    _prepare_absl()
    start = self._watch.lap('setup')
    submission = submissions.load(Path(config.submission_path), config.framework)
    backend = backend.for_submission(submission.uses)
    with trust.submission():
      batch_size, notes = _batch_size(
        submission, definition, backend.num_devices, _fixes_batch_size(suite, config.options.smoke)
      )
      eval_batch_size = submission.eval_batch_size(
        (definition.name, definition.base), definition.batch_sizes.eval, backend.num_devices
      )
    self._free_sec += self._watch.lap('setup') - start
    return Parts(
      definition=definition,
      rules=StoppingRules.of(config, suite, budget),
      backend=backend,
      task=task,
      submission=submission,
      batch_size=batch_size,
      workload=backend.workload(definition, task, budget, eval_batch_size=eval_batch_size),
      eval_workload=backend.workload(definition, task, budget, eval_batch_size=eval_batch_size),
      root=None if config.options.smoke else config.data_dir / definition.dataset,
      notes=(
        *notes,
        *(f'Put back for the entry, which is older: {name}.' for name in submission.restored),
      ),
    )

  def _open_stream(self, parts: Parts) -> Any:
    shard = (parts.backend.rank, parts.backend.world_size)
    seed = seeds.derive(self._config.seed, 'data')
    data = parts.task.data
    if parts.root is None:
      return fake.train_stream(data, parts.definition, parts.batch_size, seed, shard=shard)
    return data.train_stream(parts.definition, parts.root, parts.batch_size, seed, shard=shard)

  def _saved(self, parts: Parts, checkpoints: Checkpoints | None) -> Loaded | None:
    if checkpoints is None or not self._config.resume:
      return None
    saved = checkpoints.load()
    if saved is None:
      return None
    if saved.payload['definition_hash'] != parts.definition.content_hash():
      raise errors.UserError(
        f'A trial resumes on the workload it began with; {parts.definition.name} has been changed '
        'since. Start it anew with --overwrite.'
      )
    return saved

  def _open_records(
    self, parts: Parts, checkpoints: Checkpoints | None, saved: Loaded | None
  ) -> Records:
    config = self._config
    if parts.backend.rank != 0:
      return NoRecords(parts.backend, checkpoints=config.options.save_checkpoints)
    record = dataclasses.replace(
      config.record(),
      batch_size=parts.batch_size,
      definition_hash=parts.definition.content_hash(),
      suite_hash=registry.suite(config.suite).rules_hash(config.ruleset),
      submission_hash=submissions.source_hash(parts.submission.file),
      notes=(*parts.notes, *(saved.problems if saved else ())),
    )
    return TrialRecords(
      config,
      record,
      backend=parts.backend,
      workload=parts.eval_workload,
      report=self._report,
      checkpoints=checkpoints,
      saved=saved,
    )

  # From the parts to the run.

  def _assemble(
    self,
    parts: Parts,
    records: Records,
    params: Any,
    model_state: Any,
    before_evaluation: BeforeEvaluation,
  ) -> TrialRun:
    config, backend, workload = self._config, parts.backend, parts.workload
    hyperparameters = search_space.as_object(config.hyperparameters)
    logger = MetricsLogger()
    if backend.rank == 0:
      workload.attach_metrics_logger(logger)
    workload.refuse = self._guard.refuse
    before = backend.change_marker(params)
    start = self._watch.lap('setup')
    with trust.submission():
      optimizer_state = parts.submission.init_optimizer_state(
        workload,
        params,
        model_state,
        hyperparameters,
        backend.key(seeds.key_data(config.seed, 'init_optimizer')),
      )
    backend.synchronize()
    self._free_sec += self._watch.lap('init_optimizer') - start
    self._watch.charge(stopping.charged_init_sec(parts.rules, self._free_sec))
    if backend.change_marker(params) != before:
      raise trust.IntegrityError(
        'init_optimizer_state changed the parameters of the model.', 'init_changes_model'
      )
    return TrialRun(
      rules=parts.rules,
      target=parts.definition.target,
      machine=backend,
      submission=parts.submission,
      workload=workload,
      hyperparameters=hyperparameters,
      queue=InputQueue(self._stream, backend.place),
      params=params,
      model_state=model_state,
      optimizer_state=optimizer_state,
      watch=self._watch,
      hooks=Hooks(evaluate=self.evaluate, reseed=self._reseed, before_evaluation=before_evaluation),
      recorder=records,
      guard=self._guard,
      seed=config.seed,
      logger=logger,
    )

  def _restore(self, run: TrialRun, saved: Loaded) -> None:
    payload, backend = saved.payload, self.parts.backend
    run.params = backend.overlay(run.params, payload['params'])
    run.model_state = backend.overlay(run.model_state, payload['model_state'])
    run.optimizer_state = backend.overlay(run.optimizer_state, payload['optimizer_state'])
    self._stream.restore(payload['data'])
    self._watch.carry(payload['buckets'], payload['charged'])
    position = former_names.renamed(payload['position'], former_names.POSITION)
    run.resume(Position(**position), payload['preemption_count'] + 1)

  def evaluate(
    self,
    params: Any,
    model_state: Any,
    global_step: int,
    *,
    splits: tuple[Split, ...] | None = None,
    max_batches: int | None = None,
  ) -> dict[str, float]:
    """The metrics of the splits, those of the plan unless told otherwise."""
    parts = self.parts
    return evaluation.evaluate(
      parts.backend,
      parts.eval_workload,
      parts.task,
      params=params,
      model_state=model_state,
      root=parts.root,
      key_data=seeds.key_data(self._config.seed, 'eval', global_step),
      splits=splits or self._config.options.splits,
      max_batches=max_batches,
    )

  def _reseed(self, value: int) -> None:
    """Sets every global random state, differently in each process of the trial."""
    backend = self.parts.backend
    random.seed(seeds.derive(value, 'python', backend.rank))
    np.random.seed(seeds.derive(value, 'numpy', backend.rank) % 2**32)
    backend.seed(seeds.derive(value, 'framework', backend.rank))

  # The end.

  def missing_requirement(self, error: BaseException) -> str | None:
    """What the submission lacks on this machine, if that ended the trial where it began."""
    if self._parts is None or (self._run is not None and self._run.has_made_a_step):
      return None
    parts = self._parts
    return failure.missing_requirement(error, parts.submission.file, parts.backend.world_size)

  def one_line(self, error: BaseException) -> str:
    """An exception in a line, with the place in the submission where it came from, if it did."""
    if self._parts is None:
      return f'{type(error).__name__}: {error}'.splitlines()[0]
    return failure.one_line(error, self._parts.submission.file)

  def finish(self, *, status: str, stop_reason: str, reason: str) -> None:
    """Writes the trial's record and tells the parent how it ended."""
    self._guard.disarm()
    submissions.leave()
    if self._stream is not None:
      self._stream.close()
    offset = 0
    if self._run is not None:
      self._run.write_what_was_logged()
    if self._records is not None:
      final = {'score': self._watch.submission_time} if status == 'finished' else {}
      offset = self._records.finish(final, **self._summary(status, stop_reason, reason))
    self._watch.lap('log' if self._run is not None else 'setup')
    self._report.send(
      'ended',
      status=status,
      stop_reason=stop_reason,
      reason=reason,
      wall_sec=self._watch.session_sec,
      log_offset=offset,
    )
    if self._parts is not None and status == 'finished':
      self._parts.backend.stop()

  def _summary(self, status: str, stop_reason: str, reason: str) -> dict[str, Any]:
    run, watch = self._run, self._watch
    watch.lap('log' if run is not None else 'setup')
    position = run.position if run is not None else Position()
    return {
      'global_step': position.global_step,
      'charged_steps': position.charged_steps,
      'status': status,
      'stop_reason': stop_reason,
      'reason': reason,
      'submission_time_sec': watch.submission_time,
      'step_time_sec': median_step_sec(position.step_times),
      'buckets': watch.buckets(),
      'wall_sec': watch.session_sec,
      'peak_memory_bytes': self.parts.backend.peak_memory_bytes(),
    }


def _batch_size(
  submission: Submission, definition: WorkloadDefinition, num_devices: int, fixed_by: str | None
) -> tuple[int, tuple[str, ...]]:
  """The global batch size, and what is worth noting about it.

  Where something fixes it, what the entry asks for is only noted, and need not suit the devices.
  """
  default = definition.batch_sizes.train
  names = (definition.name, definition.base)
  if fixed_by is not None:
    size, _ = submission.batch_size((), default, num_devices)
    asked, known_as = submission.batch_size(names, default, num_devices=1)
    if known_as and asked != size:
      return size, (f'{fixed_by} fixes the batch size at {size}; the entry asked for {asked}.',)
    return size, ()
  size, known_as = submission.batch_size(names, default, num_devices)
  if known_as == definition.name:
    return size, ()
  source = f'that of {known_as}' if known_as else "the definition's"
  return size, (f'The entry knows no batch size for {definition.name}; {source} was used.',)


def _fixes_batch_size(suite: Suite, smoke: bool) -> str | None:
  """What fixes the batch size whatever the entry asks for, if anything does."""
  if smoke:
    return 'A smoke run'
  return f'The suite {suite.name}' if suite.fixes_batch_size else None


def _prepare_absl() -> None:
  """Makes absl's flags and logging usable for a submission that expects an absl application."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
