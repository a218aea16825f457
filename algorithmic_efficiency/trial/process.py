"""Takes a trial through its stages in its own process, and ends it from the stage it has reached.

Each stage is a value made from the one before: `Parts`, `Opened` and `Assembled`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import clock, errors, seeds, trust
from algorithmic_efficiency.backends.base import Backend
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.benchmark.definition import Split
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.results import former_names, submission_info
from algorithmic_efficiency.results.environment import num_usable_cpus
from algorithmic_efficiency.trial import evaluation, failure, guard, rounding, stopping
from algorithmic_efficiency.trial import submission as submissions
from algorithmic_efficiency.trial.checkpoint import Checkpoints, Loaded
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.inputs import InputQueue, MetricsLogger
from algorithmic_efficiency.trial.kept_params import ParamsKeeper
from algorithmic_efficiency.trial.loop import (
  BeforeEvaluation,
  Evaluate,
  Hooks,
  TrialRun,
  unwatched,
)
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.parts import Parts, gather
from algorithmic_efficiency.trial.position import Position
from algorithmic_efficiency.trial.recorder import STATE, NullRecorder, Recorder, TrialRecorder
from algorithmic_efficiency.trial.step_timer import mean_step_sec


@dataclass(frozen=True, kw_only=True)
class Context:
  """What every stage of a trial shares.

  Attributes:
    report: tells the parent process.
    watch: the trial's clock; it started when the core was imported.
  """

  config: TrialConfig
  report: Reporter
  watch: clock.Stopwatch
  guard: guard.Guard


@dataclass(frozen=True, kw_only=True)
class Opened:
  """A trial whose data and recorder are open and whose model is initialized.

  Attributes:
    stream: numpy batches of the training split.
    saved: the checkpoint to resume from, if there is one.
  """

  parts: Parts
  stream: streams.TrainStream
  recorder: Recorder
  saved: Loaded | None
  params: Any
  model_state: Any


@dataclass(frozen=True, kw_only=True)
class Assembled:
  """A trial that stands before its first step, or before the first after its checkpoint."""

  opened: Opened
  run: TrialRun

  @property
  def parts(self) -> Parts:
    return self.opened.parts


class TrialProcess:
  """A trial in this process: what the workers start, and end whatever has become of it."""

  def __init__(self, config: TrialConfig, report: Reporter):
    cache = config.devices.compilation_cache
    self._context = Context(
      config=config,
      report=report,
      watch=clock.Stopwatch(start=clock.PROCESS_START),
      guard=guard.Guard(
        unwritable=(config.path,), writable=(Path(cache),) if cache is not None else ()
      ),
    )
    self._reached: Parts | Opened | Assembled | None = None

  def run(self) -> str:
    """Runs the trial to its end and returns its stop reason; raises what `prepare` raises."""
    return self.prepare().run.run()

  def prepare(self, before_evaluation: BeforeEvaluation = unwatched) -> Assembled:
    """Does everything that comes before the first step.

    Args:
      before_evaluation: sees the parameters and the global step at each evaluation.

    Raises:
      UserError: a mistake that the user can correct.
      IntegrityError: the submission broke a rule.
    """
    context = self._context
    self._reached = parts = gather(context.config, context.watch)
    self._reached = opened = open_trial(context, parts)
    self._reached = assembled = assemble(context, opened, before_evaluation)
    context.watch.lap('setup')
    context.report.send('begin')
    return assembled

  # The end.

  @property
  def parts(self) -> Parts | None:
    """What the trial is made of; None while that is not known."""
    reached = self._reached
    return reached.parts if isinstance(reached, (Opened, Assembled)) else reached

  def missing_requirement(self, error: BaseException) -> failure.MissingRequirementError | None:
    """Names what the submission lacks here, if that ended the trial before its first step."""
    reached, parts = self._reached, self.parts
    has_made_a_step = isinstance(reached, Assembled) and reached.run.has_made_a_step
    if parts is None or has_made_a_step:
      return None
    return failure.missing_requirement(error, parts.submission.file, parts.backend.world_size)

  def one_line(self, error: BaseException) -> str:
    """A one-line summary of an exception, with the lines of submission and task that led to it."""
    if self.parts is None:
      return failure.summary(error)
    task = registry.task_of(self.parts.definition).folder
    return failure.one_line(error, self.parts.submission.file, task)

  def finish(self, *, status: str, stop_reason: str, reason: str) -> None:
    """Ends the trial from the stage it has reached: writes its record and tells the parent.

    Raises:
      UserError: the record could not be written.
    """
    context = self._context
    context.guard.disarm()
    submissions.leave()
    outcome = {'status': status, 'stop_reason': stop_reason, 'reason': reason}
    bucket, log_offset = 'setup', 0
    match self._reached:
      case Opened(saved=saved) as opened:
        opened.stream.close()
        if saved is not None:
          _carry_clock(context.watch, saved)
        position = Position() if saved is None else _position(saved)
        log_offset = _close_recorder(context, opened, position, bucket, outcome)
      case Assembled(opened=opened, run=run):
        bucket = 'log'
        opened.stream.close()
        run.write_what_was_logged()
        waited = {'data_wait_sec': run.queue.wait_sec}
        log_offset = _close_recorder(context, opened, run.position, bucket, outcome, **waited)
    context.watch.lap(bucket)
    context.report.send(
      'ended', **outcome, wall_sec=context.watch.session_sec, log_offset=log_offset
    )
    if self.parts is not None and status == 'finished':
      self.parts.backend.stop()


# From the parts to an open trial.


def open_trial(context: Context, parts: Parts) -> Opened:
  """Opens data and recorder, and initializes the model; closes the data if that fails.

  Raises:
    UserError: the data set, the checkpoint or the trial folder cannot be used.
  """
  config, backend = context.config, parts.backend
  with contextlib.ExitStack() as undo:
    num_workers = _num_data_workers(config, parts)
    with context.guard.learning():
      stream = _open_stream(config, parts, num_workers)
    undo.callback(stream.close)
    stream.start()
    checkpoints = Checkpoints(config.path) if config.options.save_checkpoints else None
    saved = _saved(config, parts, checkpoints)
    _reseed(backend, seeds.derive(config.seed, 'setup'))
    key = backend.key(seeds.key_data(config.seed, 'init'))
    params, model_state = parts.workload.init_model_fn(key)
    if config.rounding_seed is not None:
      params = rounding.changed(backend, params, config.rounding_seed)
    parts.eval_workload.copy_metadata(parts.workload)
    parts.eval_workload.remember_frozen(params, model_state)
    recorder = _open_recorder(context, parts, checkpoints, saved, num_workers)
    undo.pop_all()
  context.guard.arm()
  return Opened(
    parts=parts,
    stream=stream,
    recorder=recorder,
    saved=saved,
    params=params,
    model_state=model_state,
  )


def _num_data_workers(config: TrialConfig, parts: Parts) -> int:
  """The data workers of this process: as the option says, or chosen by data and cores."""
  asked = config.options.num_data_workers
  if asked is not None:
    return asked
  num_cpus = max(1, int(num_usable_cpus()) // parts.backend.world_size)
  return streams.num_workers(parts.task.data, parts.root, num_cpus)


def _open_stream(config: TrialConfig, parts: Parts, num_workers: int) -> streams.TrainStream:
  shard = (parts.backend.rank, parts.backend.world_size)
  seed = seeds.derive(config.seed, 'data')
  data = parts.task.data
  return streams.train_stream(
    data,
    parts.definition,
    parts.root,
    parts.batch_size,
    seed,
    shard=shard,
    num_workers=num_workers,
  )


def _saved(config: TrialConfig, parts: Parts, checkpoints: Checkpoints | None) -> Loaded | None:
  """The checkpoint to resume from, if the trial resumes and there is one."""
  if checkpoints is None or not config.resume:
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


def _open_recorder(
  context: Context,
  parts: Parts,
  checkpoints: Checkpoints | None,
  saved: Loaded | None,
  num_workers: int,
) -> Recorder:
  config = context.config
  keeper = _params_keeper(config, parts)
  if parts.backend.rank != 0:
    return NullRecorder(parts.backend, checkpoints=config.options.save_checkpoints, keeper=keeper)
  record = dataclasses.replace(
    config.record(),
    batch_size=parts.batch_size,
    num_data_workers=num_workers,
    definition_hash=parts.definition.content_hash(),
    suite_hash=registry.suite(config.suite).rules_hash(config.ruleset),
    submission_hash=submissions.source_hash(parts.submission.file),
    submission_info=submission_info.facts(parts.submission.file.parent),
    notes=(*parts.notes, *(saved.problems if saved else ())),
  )
  return TrialRecorder(
    config,
    record,
    backend=parts.backend,
    workload=parts.eval_workload,
    report=context.report,
    checkpoints=checkpoints,
    saved=saved,
    keeper=keeper,
  )


def _params_keeper(config: TrialConfig, parts: Parts) -> ParamsKeeper | None:
  if config.options.keep_params == 'none':
    return None
  return ParamsKeeper(
    config.path,
    config.options.keep_params,
    target=parts.definition.target,
    eval_batch_size=parts.eval_workload.eval_batch_size,
  )


# From an open trial to a run.


def assemble(context: Context, opened: Opened, before_evaluation: BeforeEvaluation) -> Assembled:
  """Initializes the state of the submission, and restores a checkpoint if there is one.

  Raises:
    UserError: the checkpoint leaves no step to make.
    IntegrityError: the initialization changed the model, or took too long on the step axis.
    ValueError: the checkpoint does not fit the state; the message names the path.
  """
  config, parts = context.config, opened.parts
  backend, workload = parts.backend, parts.workload
  hyperparameters = search_space.as_object(config.hyperparameters)
  logger = MetricsLogger()
  if backend.rank == 0:
    workload.attach_metrics_logger(logger)
  workload.refuse = context.guard.refuse
  run = TrialRun(
    rules=parts.rules,
    target=parts.definition.target,
    machine=backend,
    submission=parts.submission,
    workload=workload,
    hyperparameters=hyperparameters,
    queue=InputQueue(opened.stream, backend.place),
    params=opened.params,
    model_state=opened.model_state,
    optimizer_state=_init_optimizer_state(context, opened, hyperparameters),
    watch=context.watch,
    hooks=Hooks(
      evaluate=_evaluator(config, opened),
      reseed=functools.partial(_reseed, backend),
      before_evaluation=before_evaluation,
    ),
    recorder=opened.recorder,
    guard=context.guard,
    seed=config.seed,
    logger=logger,
  )
  if opened.saved is not None:
    _restore(run, opened, opened.saved)
  return Assembled(opened=opened, run=run)


def _init_optimizer_state(context: Context, opened: Opened, hyperparameters: Any) -> Any:
  """Calls `init_optimizer_state`: timed, mostly free, and not allowed to change the model."""
  parts, watch = opened.parts, context.watch
  backend = parts.backend
  before = backend.change_marker(opened.params)
  start = watch.lap('setup')
  with trust.submission():
    optimizer_state = parts.submission.init_optimizer_state(
      parts.workload,
      opened.params,
      opened.model_state,
      hyperparameters,
      backend.key(seeds.key_data(context.config.seed, 'init_optimizer')),
    )
  backend.synchronize()
  init_sec = parts.init_sec + watch.lap('init_optimizer') - start
  watch.charge(stopping.charged_init_sec(parts.rules, init_sec))
  if backend.change_marker(opened.params) != before:
    raise trust.IntegrityError(
      'init_optimizer_state changed the parameters of the model.', 'init_changes_model'
    )
  return optimizer_state


def _restore(run: TrialRun, opened: Opened, saved: Loaded) -> None:
  payload, backend = saved.payload, opened.parts.backend
  fresh = {name: getattr(run, name) for name in STATE}
  restored = backend.overlay(fresh, payload, fixed=('params',))
  for name, tree in restored.items():
    setattr(run, name, tree)
  # They were checked before they were saved; another machine may round initial values differently.
  opened.parts.eval_workload.remember_frozen(run.params, run.model_state)
  run.queue.restore(payload['data'])
  run.resume(_position(saved), payload['preemption_count'] + 1)
  _carry_clock(run.watch, saved)


def _position(saved: Loaded) -> Position:
  return Position(**former_names.renamed(saved.payload['position'], former_names.POSITION))


def _carry_clock(watch: clock.Stopwatch, saved: Loaded) -> None:
  watch.carry(saved.payload['buckets'], saved.payload['charged'])


def _evaluator(config: TrialConfig, opened: Opened) -> Evaluate:
  """How the trial evaluates: with its own workload, on its own splits unless told otherwise."""
  parts = opened.parts

  def evaluate(
    params: Any,
    model_state: Any,
    global_step: int,
    *,
    splits: tuple[Split, ...] | None = None,
    max_batches: int | None = None,
    generate: bool = False,
    is_last: bool = False,
  ) -> dict[str, float]:
    parts.eval_workload.check_frozen(params, model_state)
    return evaluation.evaluate(
      parts.backend,
      parts.eval_workload,
      parts.task,
      params=params,
      model_state=model_state,
      root=parts.root,
      key_data=seeds.key_data(config.seed, 'eval', global_step),
      splits=splits or config.options.splits,
      max_batches=max_batches,
      generate=generate,
      is_last=is_last,
      workers=opened.stream.workers,
    )

  return evaluate


def _reseed(backend: Backend, value: int) -> None:
  """Sets every global random state, differently in each process of the trial."""
  random.seed(seeds.derive(value, 'python', backend.rank))
  np.random.seed(seeds.derive(value, 'numpy', backend.rank) % 2**32)
  backend.seed(seeds.derive(value, 'framework', backend.rank))


# From any stage to the record.


def _close_recorder(
  context: Context,
  opened: Opened,
  position: Position,
  bucket: str,
  outcome: dict[str, str],
  **fields: Any,
) -> int:
  """Writes how the trial ended. Returns where the rows of this process begin in the log, in bytes.

  Args:
    bucket: what the time since the last lap is charged to.
    fields: further fields of the record.
  """
  watch = context.watch
  is_finished = outcome['status'] == 'finished'
  final = {'score': watch.submission_time} if is_finished else {}
  watch.lap(bucket)
  return opened.recorder.finish(
    final,
    **outcome,
    **fields,
    global_step=position.global_step,
    charged_steps=position.charged_steps,
    submission_time_sec=watch.submission_time,
    step_time_sec=mean_step_sec(position.step_times),
    buckets=watch.buckets(),
    wall_sec=watch.session_sec,
    peak_memory_bytes=opened.parts.backend.peak_memory_bytes(),
  )
