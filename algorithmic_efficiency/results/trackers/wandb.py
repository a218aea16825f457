"""Runs of Weights & Biases: offline in the trial folder, or online with WANDB_MODE=online.

`wandb sync runs/**/wandb/offline-run-*` uploads offline runs. A resumed trial has a new run with
all its rows. It replaces one that is not uploaded yet; one that is online stays, in the same group.
"""

from __future__ import annotations

import netrc
import os
import shutil
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import trackers

_PROJECT = 'algoeff'  # unless WANDB_PROJECT names another
_SERVER = 'https://api.wandb.ai'  # unless WANDB_BASE_URL names another


def check() -> None:
  """
  Raises:
    UserError: wandb is not installed, or runs are to be online and nobody is logged in.
  """
  trackers.require('wandb', 'wandb', 'wandb')
  if _mode() != 'online':
    return
  if not _is_logged_in():
    raise errors.UserError(
      '--log wandb with WANDB_MODE=online needs a login: run `wandb login`, or set '
      'WANDB_API_KEY. Without WANDB_MODE, runs are kept offline, and need none.'
    )


def start(folder: Path, *, resumed_at: int | None = None) -> WandbRun:
  """Starts a run of the trial."""
  import wandb

  if _mode() == 'offline':
    shutil.rmtree(folder / 'wandb', ignore_errors=True)
  title, facts = trackers.described(folder)
  run = wandb.init(
    project=os.environ.get('WANDB_PROJECT') or _PROJECT,
    dir=str(folder),
    name=title,
    group=str(folder),
    config=facts,
    reinit='create_new',
    settings=wandb.Settings(
      mode=_mode(), console='off', silent=True, disable_git=True, x_disable_stats=True
    ),
  )
  run.define_metric('global_step')
  run.define_metric('*', step_metric='global_step')
  return WandbRun(run)


def _mode() -> str:
  return os.environ.get('WANDB_MODE') or 'offline'


def _is_logged_in() -> bool:
  """True if there is a key, in the environment or where `wandb login` puts it."""
  if os.environ.get('WANDB_API_KEY'):
    return True
  host = urllib.parse.urlparse(os.environ.get('WANDB_BASE_URL') or _SERVER).hostname or ''
  try:
    return netrc.netrc(os.environ.get('NETRC')).authenticators(host) is not None
  except (OSError, netrc.NetrcParseError):
    return False


class WandbRun:
  """Writes each row as one of the history, over `global_step`."""

  def __init__(self, run: Any):
    self._run = run

  def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
    self._run.log({**values, 'global_step': step})

  def close(self) -> None:
    self._run.finish()
