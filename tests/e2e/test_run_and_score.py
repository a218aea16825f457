"""Runs made by our own runner are scored by the same command as AlgoPerf's."""

from __future__ import annotations

import json

import pytest

from algorithmic_efficiency.cli import main


@pytest.mark.slow
def test_runs_of_the_runner_are_scored(tmp_path, capsys):
  runs = tmp_path / 'runs'
  for submission in ('nadamw', 'momentum'):
    arguments = ['run', '--workload', 'quick_vision', '--framework', 'jax', '--suite', 'quick']
    arguments += ['--submission', submission, '--allow_provisional', '--max_global_steps', '12']
    arguments += ['--experiment_dir', str(runs), '--seed', '1', '--trials', '1', '--quiet']
    assert main(arguments) == 0
  out = tmp_path / 'out'
  assert main(['score', str(runs), '--allow_provisional', '--output_dir', str(out)]) == 0
  assert f'Report: {out / "report.html"}' in capsys.readouterr().out
  board = json.loads((out / 'leaderboard.json').read_text())
  assert (board['suite'], board['ruleset']) == ('quick', 'external')
  assert board['axis'] == 'cost_adjusted_steps'
  assert {row['submission'] for row in board['leaderboard']} == {'nadamw', 'momentum'}
  # 12 steps reach no target, and the trials were cut short; nothing else is wrong with the runs.
  assert board['notes']['cut_short']['count'] == 2
  assert {row['score'] for row in board['leaderboard']} == {0.0}
  assert set(board['notes']) <= {
    *('study_count', 'trial_count', 'cut_short', 'cannot_run', 'absent_workload')
  }
  data = json.loads((out / 'report.json').read_text())
  assert data['environment']['counts'] == [2]
  assert any(row['name'] == 'cpu model' for row in data['environment']['rows'])
  assert all(entry['num_points'] == 1 for entry in data['ledger'])
