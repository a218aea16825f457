"""A suite of one's own, from its file to the leaderboard, in processes as a user starts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from trials import record, rows, trial_folder
from warm import algoeff

from algorithmic_efficiency.benchmark import registry, suite_file
from algorithmic_efficiency.cli import main

SUITE = """
name = 'tiny'
title = 'Tiny'
axis = 'cost_adjusted_steps'
hardware = 'any machine'

[rulesets.self]
studies = 1

[workloads.quick_vision]
max_steps = 4
batch_size = 64
target = {validation = 0.02, test = 0.0}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'tiny.toml'
  path.write_text(SUITE)
  return path


def _run(file: Path, framework: str, *more: str):
  words = ['--workload', 'quick_vision', '--framework', framework, '--submission', 'nadamw']
  words += ['--ruleset', 'self', '--suite', str(file), '--seed', '1', '--experiment_dir', 'runs']
  return algoeff('run', *words, *more, cwd=file.parent)


@pytest.mark.slow
@pytest.mark.parametrize(('framework', 'package'), [('jax', 'flax'), ('pytorch', 'torch')])
def test_its_budget_target_and_batch_size_are_those_of_the_trial(file, framework, package, capsys):
  pytest.importorskip(package)
  done = _run(file, framework, '--stop_at', 'never')
  assert done.returncode == 0, done.stderr
  folder = trial_folder(file.parent / 'runs')
  found = record(folder)
  assert (found.suite, found.batch_size, found.charged_steps) == ('tiny', 64, 4)
  assert found.stop_reason == 'budget_spent'
  suite = suite_file.load(file, registry.workloads())
  assert found.suite_hash == suite.rules_hash('self')
  assert found.definition_hash == suite.workloads['quick_vision'].content_hash()
  assert rows(folder).evals[-1]['global_step'] == 4
  assert main(['score', 'runs', '--suite', str(file), '--no_report', '--json']) == 0
  scored = capsys.readouterr().out
  assert '"target": 0.02' in scored and '"suite": "tiny"' in scored
  assert 'altered' not in scored
  check_that_it_goes_on_with_the_same_target_alone(folder, file, framework)


def check_that_it_goes_on_with_the_same_target_alone(folder: Path, file: Path, framework: str):
  """A target that was changed since the trial began keeps it from being resumed."""
  stopped = record(folder)
  dataclasses.replace(stopped, status='running').write(folder)
  file.write_text(SUITE.replace('0.02', '0.03'))
  again = _run(file, framework, '--stop_at', 'never', '--resume')
  assert again.returncode == 2
  assert 'quick_vision has been changed since' in again.stderr
  assert record(folder).definition_hash == stopped.definition_hash
