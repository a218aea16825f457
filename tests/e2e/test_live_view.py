"""A race in a terminal: what is drawn, and what an interrupt leaves."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import struct
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from trials import algoeff

pytestmark = pytest.mark.slow

COMMAND = (
  *('bench', '--suite', 'quick', '--workloads', 'quick_vision', '--ruleset', 'self'),
  *('--submissions', 'adamw,./waits', '--frameworks', 'jax', '--studies', '1', '--seed', '4'),
  *('--max_global_steps', '40', '--full_eval_every', '50', '--num_threads', '1'),
  *('--plain_steps', '--no_score'),
)
# Ends no trial before it is allowed to, however late the interrupt comes.
WAITS = """
import pathlib
import time

import optax

from algorithmic_efficiency.training import jax as training
from algorithmic_efficiency.training.batch_size import get_batch_size
from algorithmic_efficiency.training.jax import data_selection
from algorithmic_efficiency.training.options import StepOptions


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
  return training.start(workload, model_params, model_state, optax.sgd(0.1), StepOptions())


def update_params(**arguments):
  while not pathlib.Path({allowed!r}).exists():
    time.sleep(0.1)
  return training.update_params(**arguments)
"""
COLUMNS = 60
MAX_SEC = 300
_CONTROL = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]')


def test_a_race_in_a_terminal_is_interrupted_and_goes_on(tmp_path: Path):
  allowed = tmp_path / 'allowed'
  (tmp_path / 'waits').mkdir()
  (tmp_path / 'waits' / 'submission_jax.py').write_text(WAITS.format(allowed=str(allowed)))
  code, shown = _in_terminal(COMMAND, tmp_path, until='[1/2]')
  assert code == 130
  lines = [line.strip() for line in _CONTROL.sub('', shown).splitlines()]
  assert any(re.match(r'adamw on quick_vis.* 40 steps', line) for line in lines)
  assert any(line.startswith('[1/2] adamw on quick_vision (jax), study 1') for line in lines)
  assert not any(line.startswith('0 of 2 trials ended') and len(line) > COLUMNS for line in lines)
  assert 'Interrupted: 1 of 2 trials have ended and are kept.' in shown
  [again] = re.findall(r'To go on: algoeff (.+)', shown)
  assert shlex.split(again) == list(COMMAND)

  allowed.touch()
  rest = algoeff(*shlex.split(again), cwd=tmp_path)
  assert rest.returncode == 0, rest.stderr
  first, *_, last = rest.stdout.splitlines()
  assert first == 'Trials to run: 1; done before: 1, failed before: 0'
  assert last == 'Trials finished: 2 of 2'


def _in_terminal(command: Sequence[str], cwd: Path, *, until: str) -> tuple[int, str]:
  """Runs a command in a terminal, and interrupts it as Ctrl-C does once a text was shown.

  Returns:
    The exit code, and all that was shown.
  """
  child, terminal = pty.fork()
  if child == 0:
    os.chdir(cwd)
    os.environ.update(TERM='xterm', PYTHONUNBUFFERED='1')
    os.execv(sys.executable, [sys.executable, '-m', 'algorithmic_efficiency', *command])
  fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, COLUMNS, 0, 0))
  shown, end, is_interrupted = b'', time.monotonic() + MAX_SEC, False
  while data := _read(terminal, end):
    shown += data
    if until.encode() in shown and not is_interrupted:
      os.write(terminal, b'\x03')
      is_interrupted = True
  os.close(terminal)
  _, status = os.waitpid(child, 0)
  return os.waitstatus_to_exitcode(status), shown.decode()


def _read(terminal: int, end: float) -> bytes:
  """Reads what comes next; empty once the command has ended, or at the end of the time."""
  ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
  try:
    return os.read(terminal, 1 << 16) if ready else b''
  except OSError:  # as Linux says that the other side is gone
    return b''
