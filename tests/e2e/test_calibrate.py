"""A calibration of a few steps with real trials, and its rerun in the other framework."""

from __future__ import annotations

import pytest
from trials import algoeff

from algorithmic_efficiency.experiments.calibration.target_setting import Record

FLAGS = ('--submissions', 'momentum', '--trials', '1', '--seeds', '2', '--step_budget', '20')


@pytest.mark.long
def test_a_target_is_set_in_one_framework_and_run_again_in_the_other(tmp_path):
  pytest.importorskip('flax')
  pytest.importorskip('torch')
  numbers = (*FLAGS, '--seed', '1')
  for framework in ('jax', 'pytorch'):
    command = ('calibrate', 'quick_vision', '--framework', framework, *numbers)
    done = algoeff(*command, cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr  # 1: accepted or not, by chance of two seeds
    file = tmp_path / 'calibration' / f'quick_vision_{framework}.json'
    record = Record.read(file)
    assert all(run.stop_reason == 'budget_spent' for run in (*record.search, *record.reruns))
    assert record.environment[0]['devices']['framework'] == framework
    assert (record.protocol.budget.step_hint, record.protocol.budget.max_steps) == (27, 80)
    assert file.with_suffix('.md').is_file()
    if framework == 'jax':
      assert len(record.search) == 1 and len(record.timing.steps) == 4
    else:
      assert not record.search and 'pytorch and jax ' in done.stdout
    assert len(record.reruns) == 2
    numbers = ('--from_record', str(file))
