"""Keeps the parameters of one evaluation of a trial beyond its end, in a file `params_<step>`.

Which evaluation it is follows from the rows of the trial alone. So the processes of a trial decide
alike, and a resumed trial goes on with the choice that it had made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import StateCopies
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.results import files
from algorithmic_efficiency.results.trial_record import KeptParams, TrialRecord
from algorithmic_efficiency.trial import checkpoint

_PREFIX = 'params_'

Rows = Sequence[tuple[int, Mapping[str, Any]]]
"""The evaluations of a trial: global step, and values by name."""


def _last(rows: Rows, target: Target) -> int | None:
  return rows[-1][0] if rows else None


def _best(rows: Rows, target: Target) -> int | None:
  """The first one with the best possible value of the target's metric on validation."""
  name = f'validation/{target.metric}'
  values = [
    (row[name], step) for step, row in rows if name in row and target.is_possible(row[name])
  ]
  if not values:
    return None
  sign = -1 if target.direction == 'max' else 1
  return min(values, key=lambda pair: sign * pair[0])[1]


# By the value of --keep_params, the global step of the evaluation that is kept; None for none.
_CHOICES: Mapping[str, Callable[[Rows, Target], int | None]] = {'last': _last, 'best': _best}


class ParamsKeeper:
  """Keeps parameters and model state of the last or the best evaluation of a trial.

  Args:
    folder: folder of the trial.
    keep: 'last' or 'best'.
    eval_batch_size: examples of a global evaluation batch, kept beside the parameters.
  """

  def __init__(self, folder: Path, keep: str, *, target: Target, eval_batch_size: int):
    self._folder = folder
    self._choice = _CHOICES[keep]
    self._target = target
    self._eval_batch_size = eval_batch_size

  def is_due(self, rows: Rows, global_step: int) -> bool:
    """Returns True if the evaluation after `global_step` is the one whose parameters are kept."""
    return self._choice(rows, self._target) == global_step

  def pack(self, copies: StateCopies, params: Any, model_state: Any) -> dict[str, Any]:
    """Copies parameters and model state to plain values; every process of a trial takes part.

    Raises:
      TypeError: something in them cannot be kept; the message names its path.
    """
    params, model_state = copies.evaluated(params, model_state)
    return copies.pack({'params': params, 'model_state': model_state})

  def save(self, global_step: int, packed: Mapping[str, Any]) -> KeptParams:
    """Writes what `pack` returned, all or nothing; older files stay until `remove_others`.

    Raises:
      UserError: the file could not be written.
    """
    content = {
      'global_step': global_step,
      'eval_batch_size': self._eval_batch_size,
      'trees': dict(packed),
    }
    with files.replacing(self._folder / f'{_PREFIX}{global_step}') as file:
      checkpoint.write_content(file, content)
    return self._described(global_step)

  def chosen(self, rows: Rows) -> KeptParams | None:
    """Returns what is on the disk of the evaluation that is to be kept; None if there is nothing.

    Raises:
      FileNotFoundError: its file is missing.
    """
    step = self._choice(rows, self._target)
    return None if step is None else self._described(step)

  def remove_others(self, rows: Rows) -> None:
    """Removes the files of all evaluations but the chosen one, and what killed processes left.

    Raises:
      UserError: a file cannot be removed.
    """
    kept = f'{_PREFIX}{self._choice(rows, self._target)}'
    for path in self._folder.glob(f'{_PREFIX}*'):
      if path.name != kept:
        files.remove(path)

  def _described(self, global_step: int) -> KeptParams:
    path = self._folder / f'{_PREFIX}{global_step}'
    return {'file': path.name, 'global_step': global_step, 'num_bytes': path.stat().st_size}


@dataclass(frozen=True, kw_only=True)
class Kept:
  """Kept parameters as they were saved.

  Attributes:
    eval_batch_size: examples of a global evaluation batch of the trial.
    trees: `params` and `model_state`, as `StateCopies.pack` returned them.
  """

  global_step: int
  eval_batch_size: int
  trees: Mapping[str, Any]


def load(folder: Path, record: TrialRecord) -> Kept:
  """Loads the parameters that a trial has kept.

  Raises:
    UserError: it has kept none, or the file is missing or damaged.
  """
  if record.kept_params is None:
    raise errors.UserError(
      f'The trial in {folder} has kept no parameters; run it with --keep_params last or best.'
    )
  path = folder / record.kept_params['file']
  try:
    return Kept(**checkpoint.read_content(path))
  except (OSError, TypeError, checkpoint.DamagedError) as error:
    raise errors.UserError(
      f'{path} cannot be read ({error}); run the trial again with --keep_params.'
    ) from error
