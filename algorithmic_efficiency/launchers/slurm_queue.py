"""Asks SLURM by its own commands. No accounting is needed, which many clusters lack."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from algorithmic_efficiency import errors

COMMANDS = ('sbatch', 'squeue', 'scancel', 'scontrol')

_TIMEOUT_SEC = 120.0
_DEFAULT_ARRAY_SIZE = 1001  # SLURM's own
_IDS_A_COMMAND = 500
_ENDED = frozenset(
  ('BOOT_FAIL', 'CANCELLED', 'COMPLETED', 'DEADLINE', 'FAILED', 'NODE_FAIL', 'OUT_OF_MEMORY')
) | {'PREEMPTED', 'REVOKED', 'TIMEOUT'}
# Reasons to wait that pass by themselves.
_PASSING = ('None', 'Priority', 'Resources', 'BeginTime', 'JobArrayTaskLimit', 'Prolog', 'Cleaning')


class RefusedError(errors.UserError):
  """SLURM does not do what a command asks for."""


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
  """A task of an array as SLURM knows it.

  Attributes:
    job_id: what SLURM calls it.
    state: SLURM's word for its state, such as RUNNING.
    reason: SLURM's word for what it waits for.
  """

  job_id: str
  state: str
  reason: str

  @property
  def is_over(self) -> bool:
    """True if it runs no more, and waits no more."""
    return self.state in _ENDED

  @property
  def is_held(self) -> bool:
    """True if it waits for something that may never come."""
    return self.state == 'PENDING' and self.reason not in _PASSING


def require() -> None:
  """Makes sure that SLURM is there.

  Raises:
    UserError: its commands or submitit are missing, or its controller does not answer.
  """
  import importlib.util

  missing = [name for name in COMMANDS if shutil.which(name) is None]
  if missing:
    raise errors.UserError(
      f'--launcher slurm needs the commands of SLURM; {", ".join(missing)} not found. Run it on a '
      'login node of the cluster, or leave --launcher out to run here.'
    )
  if importlib.util.find_spec('submitit') is None:
    raise errors.UserError(
      '--launcher slurm needs submitit, which is not installed: '
      "pip install 'algorithmic-efficiency[slurm]'."
    )
  _call('scontrol', 'ping')


def max_array_size() -> int:
  """Gives the number of tasks that an array may have."""
  found = re.search(r'MaxArraySize\s*=\s*(\d+)', _call('scontrol', 'show', 'config'))
  return max(1, int(found[1])) if found else _DEFAULT_ARRAY_SIZE


def tasks(names: Collection[str]) -> dict[tuple[str, int], QueuedTask]:
  """Finds the tasks of arrays that SLURM still knows, by the array's name and their index.

  SLURM forgets a task some minutes after its end.

  Raises:
    RefusedError: SLURM does not answer.
  """
  if not names:
    return {}
  text = _call(
    'squeue',
    '--noheader',
    '--array',
    '--states=all',
    f'--name={",".join(names)}',
    '--format=%j|%K|%F|%T|%r',
  )
  found = {}
  for line in text.splitlines():
    name, index, array, state, reason = line.split('|', 4)
    is_array = index.isdecimal()  # a single job has no index
    found[name, int(index) if is_array else 0] = QueuedTask(
      job_id=f'{array}_{index}' if is_array else array, state=state, reason=reason
    )
  return found


def cancel(job_ids: Iterable[str]) -> None:
  """Cancels jobs, whether they wait or run.

  Raises:
    RefusedError: SLURM does not answer.
  """
  ids = list(job_ids)
  for begin in range(0, len(ids), _IDS_A_COMMAND):
    _call('scancel', *ids[begin : begin + _IDS_A_COMMAND])


def in_words(text: str) -> str:
  """The first complaint in what a command of SLURM has printed."""
  lines = [re.sub(r'^\w+: (error: )?', '', line.strip()) for line in text.splitlines()]
  return next(filter(None, lines), 'it does not say why').rstrip('.')


def _call(command: str, *words: str) -> str:
  try:
    done = subprocess.run(
      [command, *words], capture_output=True, text=True, timeout=_TIMEOUT_SEC, check=False
    )
  except subprocess.TimeoutExpired:
    raise RefusedError(
      f'SLURM does not answer {command} within {_TIMEOUT_SEC:g} s. Try again later.'
    ) from None
  if done.returncode:
    raise RefusedError(
      f'SLURM refuses {command}: {in_words(done.stderr or done.stdout)}. Ask `scontrol ping` '
      'whether its controller is up.'
    )
  return done.stdout
