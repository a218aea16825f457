"""`algoeff list`: what it finds, as a table and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from algorithmic_efficiency import backends
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import SUITES
from algorithmic_efficiency.cli import main

FORMER = """
import dataclasses
from workloads.vision import definition

BASE = definition.WORKLOADS['quick_vision']
WORKLOADS = {
  'former': dataclasses.replace(BASE, name='former', base='former', task='former'),
}
"""


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
  assert main(['list', *words, '--json']) == 0
  return json.loads(capsys.readouterr().out)


def table(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
  assert main(['list', *words]) == 0
  return capsys.readouterr().out.splitlines()


def test_workloads_and_variants_are_all_there_are(capsys: pytest.CaptureFixture[str]):
  bases = [entry['name'] for entry in listed(capsys, 'workloads')]
  variants = [entry['name'] for entry in listed(capsys, 'variants')]
  assert sorted(bases + variants) == sorted(registry.workloads())
  assert all(registry.workload(name).base == name for name in bases)
  assert not any(registry.workload(name).base == name for name in variants)


def test_a_workload_says_what_it_runs_on_and_where_it_goes(capsys: pytest.CaptureFixture[str]):
  [mnist] = [entry for entry in listed(capsys, 'workloads') if entry['name'] == 'mnist']
  assert mnist['frameworks'] == ['jax', 'pytorch']
  assert mnist['target'] == {
    'metric': 'accuracy',
    'direction': 'max',
    'validation': 0.97,
    'test': 0.97,
    'provisional': False,
  }
  [line] = [line for line in table(capsys, 'workloads') if line.startswith('mnist ')]
  assert line.split('  ')[0] == 'mnist'
  assert 'jax, pytorch' in line
  assert 'accuracy >= 0.97' in line


def test_a_task_of_the_first_version_is_listed_with_what_it_lacks(
  capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  """It must not keep the others from being listed."""
  monkeypatch.setattr(registry, '_single_tasks', [])
  folder = tmp_path / 'former'
  folder.mkdir()
  (folder / 'definition.py').write_text(FORMER)
  (folder / 'data.py').write_text('def train_stream(): ...\ndef eval_stream(): ...\n')
  (folder / 'model_jax.py').write_text('')
  try:
    *_, former = listed(capsys, 'workloads', '--workload_path', str(folder))
    assert (former['name'], former['frameworks']) == ('former', [])
    *lines, problem = table(capsys, 'workloads', '--workload_path', str(folder))
    [line] = [line for line in lines if line.startswith('former ')]
    assert line.split()[:3] == ['former', 'former', '-']
    assert problem == former['problem']
    assert problem.startswith("The task 'former': data.py must export loader(")
    assert 'has train_stream and eval_stream' in problem
  finally:
    monkeypatch.undo()
    registry._forget()


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]):
  header, *lines = table(capsys, 'submissions')
  start = header.index('RULESET')
  for line in lines:
    assert line[start - 2 : start] == '  '
    assert line[start] != ' '


def test_submissions_of_both_rulesets(capsys: pytest.CaptureFixture[str]):
  found = {(entry['ruleset'], entry['name']): entry for entry in listed(capsys, 'submissions')}
  assert set(found) == set(registry.submissions())
  assert found['external', 'adamw']['tuning_search_space']
  assert not found['self', 'nadamw']['tuning_search_space']


def test_a_workload_is_ready_when_it_can_run_towards_a_goal_that_is_not_provisional(
  capsys: pytest.CaptureFixture[str],
):
  suites = {entry['name']: entry for entry in listed(capsys, 'suites')}
  assert set(suites) == set(SUITES)
  for name, entry in suites.items():
    assert set(entry['workloads']) | set(entry['held_out']) == set(registry.members(name))
    for workload in entry['workloads']:
      definition = registry.workload(workload)
      ready = registry.is_runnable(definition) and not definition.target.provisional
      assert (workload in entry['ready']) == ready
  assert len(suites['algoperf_v05']['workloads']) == 8
  assert len(suites['algoperf_v05']['held_out']) == 6
  [line] = [line for line in table(capsys, 'suites') if line.startswith('algoperf_v05 ')]
  assert f'{len(suites["algoperf_v05"]["ready"])} of 8' in line


def test_data_are_those_of_the_data_command(capsys: pytest.CaptureFixture[str]):
  names = [entry['name'] for entry in listed(capsys, 'data', '--data_dir', 'nowhere')]
  assert sorted(names) == sorted({entry.dataset for entry in registry.workloads().values()})


@pytest.mark.parametrize(
  ('framework', 'package', 'kernel'),
  [('jax', 'flax', 'Dense_0/kernel'), ('pytorch', 'torch', 'net.layer1.weight')],
)
def test_parameters(framework: str, package: str, kernel: str, capsys: pytest.CaptureFixture[str]):
  pytest.importorskip(package)
  found = {
    entry['name']: entry
    for entry in listed(capsys, 'parameters', 'mnist', '--framework', framework)
  }
  assert sorted(found[kernel]['shape']) == [128, 784]
  assert found[kernel]['type'] == 'WEIGHT'
  assert found[kernel]['role'] == 'hidden_matrix'
  assert found[kernel]['matrices'] == [1, *found[kernel]['shape']]
  assert found[kernel]['size'] == math.prod(found[kernel]['shape'])
  lines = table(capsys, 'parameters', 'mnist', '--framework', framework)
  assert lines[0].split() == ['NAME', 'SHAPE', 'TYPE', 'ROLE', 'MATRICES']
  assert sum(line.endswith('  -') for line in lines) == 2  # biases are no matrices
  assert lines[-1].startswith('101,770 parameters in 4 arrays')


def test_probes_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
  monkeypatch.setattr(registry, '_single_tasks', [])
  words = (
    'workloads',
    '--workload_path',
    str(Path(__file__).parents[1] / 'contracts' / 'own_task'),
  )
  try:
    assert listed(capsys, *words)[-1]['probes'] == {'far': 'points farther from the corners'}
    assert 'corners has the probe far: points farther from the corners' in table(capsys, *words)
  finally:
    monkeypatch.undo()
    registry._forget()


def test_parameters_are_counted_where_a_token_uses_a_part_of_them(
  capsys: pytest.CaptureFixture[str],
):
  found = {entry['name']: entry['parameters'] for entry in listed(capsys, 'workloads')}
  assert found['mnist'] is None
  definition = registry.workload('quick_moe')
  counts = definition.model.num_parameters(definition.data)
  total, active = counts.total, counts.active
  assert found['quick_moe'] == {'total': total, 'active': active}
  line = f'quick_moe has {total:,} parameters, {active:,} active for a token'
  assert line in table(capsys, 'workloads')


@pytest.mark.parametrize('framework', backends.FRAMEWORKS)
def test_parameters_of_a_workload_without_code(framework: str, capsys: pytest.CaptureFixture[str]):
  without = next(
    name
    for name, definition in registry.workloads().items()
    if not registry.is_runnable(definition, framework)
  )
  assert main(['list', 'parameters', without, '--framework', framework]) == 2
  assert f'There is no code for {without} yet' in capsys.readouterr().err


def test_an_unknown_workload_has_a_nearest_match(capsys: pytest.CaptureFixture[str]):
  assert main(['list', 'parameters', 'mnits', '--framework', 'jax']) == 2
  assert "Did you mean 'mnist'" in capsys.readouterr().err
