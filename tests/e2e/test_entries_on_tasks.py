"""Every submission runs on an bundled workload of every task, in each framework that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials import algoeff, record, trial_folder

from algorithmic_efficiency.benchmark import registry

NUM_STEPS = 3


def _smallest_of_each_task() -> list[str]:
  """One bundled workload of each task."""
  found: dict[str, str] = {}
  for definition in registry.workloads().values():
    if definition.bundled and not definition.is_variant and registry.is_runnable(definition):
      found.setdefault(definition.task, definition.name)
  return sorted(found.values())


@pytest.mark.slow
@pytest.mark.parametrize('workload', _smallest_of_each_task())
@pytest.mark.parametrize(
  ('entry', 'framework'),
  [(entry, one) for entry in registry.submissions().values() for one in entry.frameworks],
  ids=lambda value: value if isinstance(value, str) else f'{value.ruleset}-{value.name}',
)
def test_a_submission_runs(entry, framework: str, workload: str, tmp_path: Path):
  command = ['run', '--workload', workload, '--framework', framework, '--quiet', '--trials', '1']
  command += ['--submission', entry.name, '--ruleset', entry.ruleset, '--allow_provisional']
  command += ['--experiment_dir', 'runs', '--max_global_steps', NUM_STEPS, '--studies', '1']
  command += ['--platform', 'cpu', '--num_threads', '1']
  result = algoeff(*command, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  trial = record(trial_folder(tmp_path))
  assert (trial.status, trial.stop_reason) == ('finished', 'step_limit')
