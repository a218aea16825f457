"""Training curves as they are drawn: medians and bands over studies, and what is shown of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring_runs import Row, write_recorded_trial, write_times, write_trial

import scoring
from scoring import training_curves

WORKLOAD = 'ogbg'  # mean average precision: larger is better
TARGET = 0.28098


def straight(seconds: float, end: float = 0.3) -> list[Row]:
  """A metric that rises from 0 to `end`, at ten evaluations."""
  return [(10 * i, seconds * i / 10, end * i / 10) for i in range(1, 11)]


def views(root: Path, **chosen: Any) -> list[dict[str, Any]]:
  frame = scoring.load(root)
  result = scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], statistics=False)
  return list(training_curves.views(frame, result, **chosen))


def table(view: dict[str, Any]) -> np.ndarray:
  rows = csv.DictReader(io.StringIO(view['rows']))
  return np.array([[float(value) for value in row.values()] for row in rows])


def test_a_line_is_the_median_and_its_band_goes_from_lowest_to_highest(tmp_path):
  for study, seconds in ((1, 100.0), (2, 200.0), (3, 300.0)):
    write_trial(tmp_path, 'a', WORKLOAD, straight(seconds), study=study)
  view = views(tmp_path, splits=('validation',), axes=('seconds',))[0]
  found = table(view)
  assert len(found) == training_curves.NUM_POINTS
  assert found[0, 1] == pytest.approx(20.0) and found[-1, 1] == pytest.approx(200.0)
  at_100 = found[np.argmin(abs(found[:, 1] - 100.0))]
  seconds = at_100[1]
  # The first study has ended and keeps its last value.
  expected = [0.3 * seconds / 200.0, 0.3 * seconds / 300.0, 0.3 * min(1.0, seconds / 100.0)]
  assert at_100[2:] == pytest.approx(expected, rel=1e-3)
  assert view['hits'] == [(0, 200.0)]


def test_a_study_is_the_trial_that_counts_or_the_best_one(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, straight(500.0), trial=1)
  write_trial(tmp_path, 'a', WORKLOAD, straight(100.0), trial=2)
  write_trial(tmp_path, 'never', WORKLOAD, straight(100.0, end=0.1), trial=1)
  write_trial(tmp_path, 'never', WORKLOAD, straight(100.0, end=0.2), trial=2)
  (view,) = views(tmp_path, splits=('validation',), axes=('seconds',))
  found = table(view)
  assert found[found[:, 0] == 0][-1, 1] == pytest.approx(100.0)
  assert found[found[:, 0] == 1][-1, 2] == pytest.approx(0.2)
  assert view['hits'] == [(0, 100.0)]


def test_every_split_has_its_target_and_every_axis_its_unit(tmp_path):
  write_recorded_trial(tmp_path, 'a', WORKLOAD, straight(100.0), batch_size=512)
  found = {(view['split'], view['axis']): view for view in views(tmp_path)}
  assert set(found) == {
    (split, axis)
    for split in ('validation', 'train', 'test')
    for axis in ('seconds', 'steps', 'examples')
  }
  assert found['validation', 'steps']['target'] == pytest.approx(TARGET, rel=1e-3)
  assert found['train', 'steps']['target'] is None and not found['test', 'steps']['hits']
  ends = {axis: table(found['validation', axis])[-1, 1] for axis in ('steps', 'examples')}
  assert ends == {'steps': 100, 'examples': 51_200}


def test_logs_without_batch_sizes_have_no_examples(tmp_path):
  write_times(tmp_path, {'a': {WORKLOAD: 10.0}})
  assert {view['axis'] for view in views(tmp_path)} == {'seconds', 'steps'}


def test_what_is_shown_first_lies_around_the_target(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, straight(100.0))
  write_trial(tmp_path, 'lost', WORKLOAD, [(10, 10.0, -1e30), (1000, 1000.0, -1e30)])
  (view,) = views(tmp_path, splits=('validation',), axes=('seconds',))
  (low, high), (_, end) = view['y_near'], view['x_near']
  assert 0 < low < TARGET < high < 0.4
  assert 100.0 < end < 120.0 and view['x_all'][1] == 1000.0
  assert view['outside'] == [1]
  # A training that diverges makes no chart of the others impossible to read.
  assert view['y_far'][0] > -100 and view['y_all'][0] > -100


def test_a_split_without_values_has_no_view(tmp_path):
  write_trial(tmp_path, 'a', WORKLOAD, [(10, 1.0, float('nan'))])
  assert views(tmp_path) == []
