"""Trackers show the rows of the log, after a kill and a resume, too: with their real packages.

Weights & Biases and MLflow are no part of what CI installs: `pip install -e '.[wandb,mlflow]'`.
"""

from __future__ import annotations

import json
import math
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trials import algoeff, record, rows, trial_folder, wait_for_rows

COMMAND = (
  *('run', '--workload', 'quick_vision', '--framework', 'jax', '--submission', 'nadamw'),
  *('--ruleset', 'self', '--seed', '5', '--num_threads', '1', '--stop_at', 'never'),
  *('--experiment_dir', 'runs', '--quiet'),
)
NOT_SHOWN = ('global_step', 'preemption_count')


def blocks(content: bytes) -> Iterator[bytes]:
  """The records of a file of Weights & Biases, which has the form of LevelDB's logs."""
  place, part = 7, b''
  while place + 7 <= len(content):
    left = 32768 - place % 32768
    if left < 7:
      place += left
      continue
    size, kind = struct.unpack('<4xHB', content[place : place + 7])
    part += content[place + 7 : place + 7 + size]
    place += 7 + size
    if kind in (1, 4):  # a whole record, or the last part of one
      yield part
      part = b''


def of_wandb(folder: Path) -> list[tuple[int, str, float]]:
  from wandb.proto.wandb_internal_pb2 import Record

  [file] = folder.glob('wandb/offline-run-*/*.wandb')
  found = []
  for content in blocks(file.read_bytes()):
    message = Record.FromString(content)
    if message.WhichOneof('record_type') == 'history':
      values = {
        item.key or '/'.join(item.nested_key): json.loads(item.value_json)
        for item in message.history.item
      }
      found += [
        (values['global_step'], name, value)
        for name, value in values.items()
        if not name.startswith('_') and name not in NOT_SHOWN
      ]
  return found


def of_mlflow(folder: Path) -> list[tuple[int, str, float]]:
  from mlflow import MlflowClient

  [store] = folder.parents[3].glob('mlflow.db')
  client = MlflowClient(tracking_uri=f'sqlite:///{store}')
  [run] = client.search_runs([client.get_experiment_by_name('algoeff').experiment_id])
  assert run.info.status == 'FINISHED'
  assert run.data.params['workload'] == 'quick_vision'
  return [
    (one.step, one.key, one.value)
    for name in run.data.metrics
    for one in client.get_metric_history(run.info.run_id, name)
  ]


def of_tensorboard(folder: Path) -> list[tuple[int, str, float]]:
  from tensorboardX.proto.event_pb2 import Event

  content = max(folder.glob('events.out.tfevents.*')).read_bytes()  # the others are hidden
  found = []
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    event = Event.FromString(content[12 : 12 + length])
    found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    content = content[16 + length :]
  return found


@pytest.mark.parametrize(
  ('name', 'package', 'shown'),
  [
    pytest.param('tensorboard', 'tensorboardX', of_tensorboard, marks=pytest.mark.slow),
    pytest.param('wandb', 'wandb', of_wandb, marks=pytest.mark.long),
    pytest.param('mlflow', 'mlflow', of_mlflow, marks=pytest.mark.long),
  ],
)
def test_a_tracker_shows_the_rows_of_the_log_after_a_kill(
  name: str,
  package: str,
  shown: Callable[[Path], list[tuple[int, str, float]]],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
):
  pytest.importorskip('jax')
  pytest.importorskip(package, reason=f'{package} is not installed')
  for variable in ('WANDB_MODE', 'WANDB_PROJECT', 'MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME'):
    monkeypatch.delenv(variable, raising=False)
  command = [*COMMAND, '--log', name, '--max_global_steps', '40']
  folder = tmp_path / 'runs' / 'nadamw' / 'study_1' / 'quick_vision_jax' / 'trial_1'
  words = [sys.executable, '-m', 'algorithmic_efficiency', *command]
  process = subprocess.Popen(words, cwd=tmp_path)
  wait_for_rows(folder, 1, 5, process)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  again = algoeff(*command, '--resume', cwd=tmp_path)
  assert again.returncode == 0 and again.stderr == ''
  assert trial_folder(tmp_path) == folder
  assert record(folder).status == 'finished' and rows(folder).resumed_at is not None
  expected = [
    (row['global_step'], column, value)
    for row in rows(folder).in_order
    for column, value in row.items()
    if column not in NOT_SHOWN
  ]
  found = shown(folder)
  assert len(found) == len(expected)
  for one, other in zip(sorted(found), sorted(expected), strict=True):
    assert one[:2] == other[:2] and math.isclose(one[2], other[2], rel_tol=1e-6)
