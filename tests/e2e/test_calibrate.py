"""A calibration of a few steps with real trials, in both frameworks."""

from __future__ import annotations

import pytest
from trials import algoeff

from algorithmic_efficiency.experiments.calibration.target_setting import Record

FLAGS = ('--submissions', 'momentum', '--trials', '1', '--seeds', '2', '--step_budget', '20')


@pytest.mark.long
def test_both_frameworks_are_calibrated_and_compared(tmp_path):
  pytest.importorskip('flax')
  pytest.importorskip('torch')
  compare = ()
  for framework in ('jax', 'pytorch'):
    done = algoeff(
      'calibrate',
      'quick_vision',
      *FLAGS,
      '--framework',
      framework,
      '--seed',
      '1',
      *compare,
      cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / 'calibration' / f'quick_vision_{framework}.json'
    record = Record.read(file)
    assert len(record.search) == 1 and len(record.reruns) == 2
    assert all(run.stop_reason == 'budget_spent' for run in (*record.search, *record.reruns))
    assert record.environment[0]['devices']['framework'] == framework
    assert record.budget.max_steps == 27
    assert file.with_suffix('.md').is_file()
    compare = ('--compare', str(file))
  assert 'pytorch and jax ' in done.stdout
