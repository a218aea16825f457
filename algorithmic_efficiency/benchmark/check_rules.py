"""What `algoeff check` looks for in a submission: a closed set, each with its rule and remedy.

The table in RULES.md is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal['error', 'warning']
Subject = Literal['rules', 'runs', 'finite', 'learns', 'memory', 'saved', 'resumed']


@dataclass(frozen=True, kw_only=True)
class Kind:
  """One thing that may be wrong.

  Attributes:
    subject: the column of the result in which it stands.
    found_by: reading the sources, running them, or both.
    what: what is wrong, as a clause.
    remedy: what to do, as a sentence.
    severity: a fault breaks a rule, or something later; a remark is for people to look at.
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
    what='names a workload outside `get_batch_size`, `get_eval_batch_size` and what they alone use',
    remedy='Let shapes, types and roles of parameters and the step hint decide, not names.',
  ),
  'workload_identity': Kind(
    subject='rules',
    found_by='reading',
    what='asks which workload it has: its name, its class, or figures that give it away',
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
    what='changes settings that hold for the whole process: threads, devices, precision',
    remedy='Leave them to the harness; pass what the algorithm needs to the calls that need it.',
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
    remedy='See that each has ended before the call that started it returns.',
  ),
  'data': Kind(
    subject='rules',
    found_by='both',
    what='reads data, or evaluates, by itself',
    remedy='Take batches from the input queue, and evaluations from `eval_results`.',
  ),
  'files': Kind(
    subject='rules',
    found_by='reading',
    severity='warning',
    what='reads arrays or objects from files',
    remedy='See that nothing was trained, or derived from data, before.',
  ),
  'harness': Kind(
    subject='rules',
    found_by='both',
    what='reaches into the harness, its clock, its files or the workload object',
    remedy='Use `spec` and the arguments of the call, and change neither.',
  ),
  'untimed_hook': Kind(
    subject='rules',
    found_by='reading',
    what='has code run outside the timed calls',
    remedy='Do the work in `update_params`, `data_selection` or `prepare_for_eval`.',
  ),
  'network': Kind(
    subject='rules',
    found_by='both',
    what='uses the network',
    remedy='Ship what is needed with the submission.',
  ),
  'init_changes_model': Kind(
    subject='rules',
    found_by='running',
    what='changes parameters of the model in `init_optimizer_state`',
    remedy='Work on copies; parameters change in `update_params`.',
  ),
  'init_too_long': Kind(
    subject='rules',
    found_by='running',
    what='takes longer in `get_batch_size` and `init_optimizer_state` than is free',
    remedy='Prepare state there and compute in the timed calls.',
  ),
  'init_work': Kind(
    subject='rules',
    found_by='running',
    severity='warning',
    what='spends much longer in `init_optimizer_state` than in steps',
    remedy='See that it only prepares state.',
  ),
  'interface': Kind(
    subject='runs',
    found_by='running',
    what='does not keep to the interface, or needs what is not here',
    remedy='`algoeff new submission NAME` makes one whose functions are as they must be.',
  ),
  'exception': Kind(
    subject='runs',
    found_by='running',
    what='raises an exception',
    remedy='A crash is a miss; mend it, or catch what is meant to happen.',
  ),
  'ended': Kind(
    subject='runs',
    found_by='running',
    what='is ended from outside: it is silent for too long, or its process dies',
    remedy='Every call must return, in the memory there is.',
  ),
  'not_finite': Kind(
    subject='finite',
    found_by='running',
    what='makes parameters that are not finite',
    remedy='Guard divisions, roots and logarithms, or lower the learning rate.',
  ),
  'no_change': Kind(
    subject='learns',
    found_by='running',
    what='changes no parameter from one evaluation to the next',
    remedy='Return the updated parameters; in PyTorch, hand all of them to the optimizer.',
  ),
  'loss_rises': Kind(
    subject='learns',
    found_by='running',
    severity='warning',
    what='ends with a loss on training examples that is higher than at the first evaluation',
    remedy='See that gradients are subtracted, and that the learning rate is no misprint.',
  ),
  'memory_grows': Kind(
    subject='memory',
    found_by='running',
    what='holds more memory with every step',
    remedy='Keep no batches, losses or graphs from step to step; detach what is logged.',
  ),
  'not_saved': Kind(
    subject='saved',
    found_by='running',
    what='has a state that cannot be saved',
    remedy='Use arrays, numbers, strings, containers and objects with `state_dict`.',
  ),
  'not_restored': Kind(
    subject='resumed',
    found_by='running',
    what='cannot go on from a checkpoint',
    remedy='`init_optimizer_state` gives a state of the structure that `update_params` returns.',
  ),
  'resume_differs': Kind(
    subject='resumed',
    found_by='running',
    what='trains otherwise after a resume',
    remedy='Keep in the optimizer state whatever steps depend on: no module globals, clocks or '
    'random states of its own.',
  ),
}


@dataclass(frozen=True, kw_only=True)
class Finding:
  """Something found, and where.

  Attributes:
    kind: its name in `KINDS`.
    text: what was found, as a sentence.
    file, line: the place in the submission; line 0 is unknown.
  """

  kind: str
  text: str
  file: str
  line: int
