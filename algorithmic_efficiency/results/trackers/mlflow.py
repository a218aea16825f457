"""Runs of MLflow: in `mlflow.db` beside the runs, or where MLFLOW_TRACKING_URI says.

`mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows them. A resumed trial has a new run
with all its rows; the earlier run of its folder is deleted, as MLflow deletes: it can be restored.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency.results import trackers

_EXPERIMENT = 'algoeff'  # unless MLFLOW_EXPERIMENT_NAME names another
_FOLDER = 'algoeff.folder'  # the tag by which the run of a trial is found
_MAX_BATCH = 1000  # metrics in one call
_NOT_SHOWN = ('global_step', 'preemption_count')


def check() -> None:
  """
  Raises:
    UserError: MLflow is not installed, or lacks what its local store needs.
  """
  trackers.require('mlflow', 'mlflow', 'mlflow')
  if not os.environ.get('MLFLOW_TRACKING_URI'):
    for package in ('sqlalchemy', 'alembic'):
      trackers.require('mlflow', package, 'mlflow')


def start(folder: Path, *, resumed_at: int | None = None) -> MlflowRun:
  """Starts a run of the trial."""
  title, facts = trackers.described(folder)
  runs = _folder_of_runs(folder, facts['submission'])
  with open(runs / '.mlflow.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # two trials may start at once, and make the store
    client, experiment = _store(runs)
  earlier = client.search_runs([experiment], f"tags.`{_FOLDER}` = '{folder}'")
  for run in earlier:
    client.delete_run(run.info.run_id)
  run = client.create_run(experiment, run_name=title, tags={_FOLDER: str(folder)})
  for name, value in facts.items():
    client.log_param(run.info.run_id, name, value)
  return MlflowRun(client, run.info.run_id)


def _folder_of_runs(folder: Path, submission: str) -> Path:
  """The folder that holds the folder of the submission, which holds that of the trial."""
  above = folder.parents
  return next((place for place in above if place / submission in above), folder.parent)


def _store(runs: Path) -> tuple[Any, str]:
  """Opens the store; returns a client, and the id of the experiment."""
  from mlflow import MlflowClient

  logging.getLogger('mlflow').setLevel(logging.WARNING)  # it tells of every table that it makes
  uri = os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{runs / "mlflow.db"}'
  name = os.environ.get('MLFLOW_EXPERIMENT_NAME') or _EXPERIMENT
  client = MlflowClient(tracking_uri=uri)
  found = client.get_experiment_by_name(name)
  if found is not None:
    return client, found.experiment_id
  return client, client.create_experiment(name)


class MlflowRun:
  """Writes every number of a row as a metric of its own, over the steps."""

  def __init__(self, client: Any, run_id: str):
    self._client = client
    self._run_id = run_id
    self._metrics: list[Any] = []

  def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    self._metrics += [
      Metric(name, float(value), now, step)
      for name, value in values.items()
      if name not in _NOT_SHOWN
    ]

  def flush(self) -> None:
    while self._metrics:
      batch, self._metrics = self._metrics[:_MAX_BATCH], self._metrics[_MAX_BATCH:]
      self._client.log_batch(self._run_id, metrics=batch)

  def close(self) -> None:
    self.flush()
    self._client.set_terminated(self._run_id)
