"""The errors and warnings that `algoeff check` can report, each with its rule and remedy.

`make rules` writes the table in RULES.md from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal['error', 'warning']
Subject = Literal['rules', 'runs', 'finite', 'learns', 'memory', 'saved', 'resumed']


@dataclass(frozen=True, kw_only=True)
class Kind:
  """One kind of error or warning.

  Attributes:
    subject: column of the result in which it is shown.
    found_by: reading the sources, running the submission, or both.
    what: what is wrong, as a clause whose subject is the submission.
    remedy: what to do, as a sentence.
    severity: an error breaks a rule or would fail in a race; a warning is for people to review.
  """

  subject: Subject
  found_by: Literal['reading', 'running', 'both']
  what: str
  remedy: str
  severity: Severity = 'error'


KINDS: Mapping[str, Kind] = {
  'workload_name': Kind(
    subject='rules',
    found_by='reading',
    what='names a workload outside `get_batch_size`, `get_eval_batch_size` and their own helpers',
    remedy='Decide by shapes, types and roles of parameters and by the step hint, not by names.',
  ),
  'workload_identity': Kind(
    subject='rules',
    found_by='reading',
    what='asks which workload it has: by its name, its class, or figures that identify it',
    remedy='Treat all workloads by one rule; only the batch size may depend on the workload.',
  ),
  'environment': Kind(
    subject='rules',
    found_by='both',
    what='changes environment variables',
    remedy='Leave the environment as it is.',
  ),
  'settings': Kind(
    subject='rules',
    found_by='both',
    what='changes settings of the whole process: threads, devices, precision',
    remedy='Leave them to the harness; pass options to the calls that need them.',
  ),
  'left_running': Kind(
    subject='rules',
    found_by='running',
    what='leaves a thread or a process running between the timed calls',
    remedy='End it before the call that started it returns.',
  ),
  'threads': Kind(
    subject='rules',
    found_by='reading',
    severity='warning',
    what='starts threads or processes',
    remedy='Make sure that each ends before the call that started it returns.',
  ),
  'data': Kind(
    subject='rules',
    found_by='both',
    what='reads data or evaluates by itself',
    remedy='Take batches from the input queue and evaluations from `eval_results`.',
  ),
  'files': Kind(
    subject='rules',
    found_by='reading',
    severity='warning',
    what='reads arrays or objects from files',
    remedy='Make sure that none of them was trained or derived from data.',
  ),
  'harness': Kind(
    subject='rules',
    found_by='both',
    what='reaches into the harness, its clock, its files or the workload object',
    remedy='Use `spec` and the arguments of the call; change neither.',
  ),
  'untimed_hook': Kind(
    subject='rules',
    found_by='reading',
    what='runs code outside the timed calls',
    remedy='Do the work in `update_params`, `data_selection` or `prepare_for_eval`.',
  ),
  'network': Kind(
    subject='rules',
    found_by='both',
    what='uses the network',
    remedy='Put all files that it needs into the submission folder.',
  ),
  'info': Kind(
    subject='rules',
    found_by='reading',
    what='has a `submission_info.yml` that AlgoPerf would refuse',
    remedy='Write it as `algoeff new submission NAME` does, with every field.',
  ),
  'init_changes_model': Kind(
    subject='rules',
    found_by='running',
    what='changes parameters of the model in `init_optimizer_state`',
    remedy='Work on copies; parameters change in `update_params`.',
  ),
  'frozen_params': Kind(
    subject='rules',
    found_by='running',
    what='changes parameters that the workload has frozen',
    remedy='Pass the model state on as `model_fn` returns it; in PyTorch, change no buffer.',
  ),
  'init_too_long': Kind(
    subject='rules',
    found_by='running',
    what='exceeds the free time of `get_batch_size` and `init_optimizer_state`',
    remedy='Only prepare state there; compute in the timed calls.',
  ),
  'init_work': Kind(
    subject='rules',
    found_by='running',
    severity='warning',
    what='spends much longer in `init_optimizer_state` than in steps',
    remedy='Make sure that it only prepares state.',
  ),
  'syntax': Kind(
    subject='runs',
    found_by='reading',
    what='is not valid Python',
    remedy='Correct the file; nothing else was checked.',
  ),
  'interface': Kind(
    subject='runs',
    found_by='running',
    what='does not match the interface',
    remedy='`algoeff new submission NAME` writes a submission that matches the interface.',
  ),
  'cannot_run_here': Kind(
    subject='runs',
    found_by='running',
    what='needs a package, a device or a process that is not here, or refuses to run',
    remedy='Provide what it names, or check it on a machine that has that.',
  ),
  'exception': Kind(
    subject='runs',
    found_by='running',
    what='raises an exception',
    remedy='Fix it: a crash counts as a miss.',
  ),
  'ended': Kind(
    subject='runs',
    found_by='running',
    what='is ended from outside: no heartbeat within the timeout, or its process dies',
    remedy='Make sure that every call returns and fits in memory.',
  ),
  'not_finite': Kind(
    subject='finite',
    found_by='running',
    what='produces parameters that are not finite',
    remedy='Guard divisions, roots and logarithms, or lower the learning rate.',
  ),
  'no_change': Kind(
    subject='learns',
    found_by='running',
    what='changes no parameter',
    remedy='Return the updated parameters; in PyTorch, hand all of them to the optimizer.',
  ),
  'loss_rises': Kind(
    subject='learns',
    found_by='running',
    severity='warning',
    what='ends with a higher loss on training examples than at the first evaluation',
    remedy='Check the sign of the update and the learning rate.',
  ),
  'memory_grows': Kind(
    subject='memory',
    found_by='running',
    what='holds more memory with every step',
    remedy='Keep no batches, losses or graphs between steps; detach logged tensors.',
  ),
  'not_saved': Kind(
    subject='saved',
    found_by='running',
    what='has an optimizer state that cannot be saved',
    remedy='Use arrays, numbers, strings, containers and objects with `state_dict`.',
  ),
  'not_restored': Kind(
    subject='resumed',
    found_by='running',
    what='cannot continue from a checkpoint',
    remedy='Return a state of the same structure from `init_optimizer_state` and `update_params`.',
  ),
  'resume_differs': Kind(
    subject='resumed',
    found_by='running',
    what='trains differently after a resume',
    remedy='Keep all state in the optimizer state: no module globals, clocks or generators.',
  ),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
  """An error or warning that `algoeff check` found, and its location.

  Attributes:
    kind: key in `KINDS`.
    text: what was found, as a sentence.
    file: path within the submission.
    line: line number from 1; 0 if unknown.
  """

  kind: str
  text: str
  file: str
  line: int
