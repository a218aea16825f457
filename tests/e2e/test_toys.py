"""Toy tasks that together use all of what a workload may be, run as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trials import algoeff, record, rows, trial_folder, wait_for_rows, without_times

ROOT = Path(__file__).parents[1] / 'toys'
PACKAGES = {'jax': 'jax', 'pytorch': 'torch'}
OPTIMIZERS = {
  'jax': ('optax.adamw', '--hparam', 'learning_rate=0.008'),
  'pytorch': ('torch.optim.AdamW', '--hparam', 'lr=0.008'),
}
TOYS = ('toy_modalities', 'toy_translation', 'toy_translation_bleu', 'toy_slow', 'toy_graphs')
# The toy with the most in it is slow, the others long.
EACH_TOY = [
  TOYS[0],
  *(pytest.param(name, marks=pytest.mark.long) for name in TOYS[1:]),
]
METRICS = {
  'toy_modalities': {
    'accuracy',
    'loss',
    'accuracy_of_task',
    *(f'accuracy_of_task/{kind}' for kind in ('text', 'image', 'audio')),
  },
  'toy_translation': {'accuracy', 'loss', 'bleu'},
  'toy_translation_bleu': {'accuracy', 'loss', 'bleu'},
}
SHARED_STEPS = 20  # of trials on one and two devices, which then are still close

pytestmark = pytest.mark.slow


def command(toy: str, framework: str, root: Path, *more: str) -> list[str]:
  return [
    *('run', '--path', str(ROOT), '--workload', toy, '--framework', framework),
    *('--optimizer', *OPTIMIZERS[framework], '--schedule', 'warmup_cosine'),
    *('--seed', '3', '--platform', 'cpu'),
    *('--num_threads', '1', '--experiment_dir', str(root), '--quiet', *more),
  ]


@dataclass(frozen=True)
class Trial:
  """A trial of a toy that was left alone, without data workers; it has kept its best parameters."""

  toy: str
  framework: str
  root: Path

  @property
  def folder(self) -> Path:
    return trial_folder(self.root)

  def run(self, root: Path, *more: str) -> Path:
    """Runs the toy again and returns its trial folder."""
    done = algoeff(*command(self.toy, self.framework, root, *more), cwd=root.parent)
    assert done.returncode == 0, done.stderr
    return trial_folder(root)


@pytest.fixture(scope='module', params=PACKAGES)
def framework(request: pytest.FixtureRequest) -> str:
  pytest.importorskip(PACKAGES[request.param])
  return request.param


@pytest.fixture(scope='module', params=EACH_TOY)
def trial(
  request: pytest.FixtureRequest, framework: str, tmp_path_factory: pytest.TempPathFactory
) -> Trial:
  if request.param.startswith('toy_translation'):
    pytest.importorskip('sacrebleu')
  found = Trial(request.param, framework, tmp_path_factory.mktemp('toys') / 'runs')
  found.run(found.root, '--num_data_workers', '0', '--keep_params', 'best')
  return found


def test_a_toy_reaches_its_target(trial: Trial):
  assert record(trial.folder).stop_reason == 'targets_reached'
  with open(trial.folder / 'eval_measurements.csv', newline='') as file:
    first, *_, last = csv.DictReader(file)
  for name in METRICS.get(trial.toy, {'accuracy', 'loss'}):
    assert first[f'validation/{name}'] and last[f'test/{name}'], name


def test_killed_and_resumed_with_data_workers_it_has_the_same_rows(trial: Trial, tmp_path: Path):
  arguments = command(trial.toy, trial.framework, tmp_path / 'cut', '--num_data_workers', '2')
  found = tmp_path / 'cut' / trial.folder.relative_to(trial.root)
  process = subprocess.Popen(
    [sys.executable, '-m', 'algorithmic_efficiency', *arguments], cwd=tmp_path
  )
  wait_for_rows(found, 1, 2, process)
  process.kill()
  process.wait()
  done = algoeff(*arguments, '--resume', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert record(found).status == 'finished'
  assert without_times(rows(found).evals) == without_times(rows(trial.folder).evals)
  assert without_waits(rows(found).metrics) == without_waits(rows(trial.folder).metrics)


def without_waits(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
  return [
    {key: value for key, value in row.items() if not key.endswith('_sec')}
    for row in without_times(found)
  ]


def test_on_two_devices_it_trains_and_evaluates_as_on_one(trial: Trial, tmp_path: Path):
  limits = ('--num_devices', '2', '--max_global_steps', str(SHARED_STEPS))
  folder = trial.run(tmp_path / 'two', *limits)
  assert record(folder).environment['devices']['num_devices'] == 2
  found, expected = (
    {row['global_step']: row for row in rows(one).evals} for one in (folder, trial.folder)
  )
  shared = sorted(found.keys() & expected.keys())
  assert len(shared) >= 2
  for step in shared:
    for name in found[step].keys() & expected[step].keys():
      if name.endswith('/loss'):
        assert found[step][name] == pytest.approx(expected[step][name], rel=5e-6), (step, name)
      if name.endswith('/num_examples'):
        assert found[step][name] == expected[step][name]


@pytest.mark.long
def test_partial_evaluations_end_it_at_the_target_too(trial: Trial, tmp_path: Path):
  folder = trial.run(tmp_path / 'partial', '--full_eval_every', '3')
  assert record(folder).stop_reason == 'targets_reached'
  metric = 'bleu' if trial.toy.endswith('_bleu') else 'accuracy'
  seen = [row for row in rows(folder).metrics if f'partial/validation/{metric}' in row]
  assert seen and len(rows(folder).evals) < len(rows(trial.folder).evals) + len(seen)


def test_probes_are_evaluated_on_the_parameters_that_were_kept(trial: Trial, tmp_path: Path):
  probes = ('images',) if trial.toy == 'toy_modalities' else ()
  done = algoeff(
    *('evaluate', trial.root, '--split', ','.join((*probes, 'validation')), '--path', ROOT),
    *('--num_threads', '1', '--output', 'values.json'),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  values = json.loads((tmp_path / 'values.json').read_text())['values']
  assert all(values[f'{probe}/num_examples'] == 20 for probe in probes)
  [best] = [
    row
    for row in rows(trial.folder).evals
    if row['global_step'] == record(trial.folder).kept_params['global_step']
  ]
  found = {name: value for name, value in values.items() if name.startswith('validation/')}
  assert found == {name: best[name] for name in found}


@pytest.mark.long
@pytest.mark.parametrize('toy', TOYS)
def test_a_smoke_run_passes(toy: str, framework: str, tmp_path: Path):
  folder = Trial(toy, framework, tmp_path / 'runs').run(tmp_path / 'runs', '--smoke')
  assert record(folder).status == 'finished'


@pytest.mark.long
@pytest.mark.parametrize('toy', TOYS)
def test_a_submission_is_checked_on_it(toy: str, framework: str, tmp_path: Path):
  done = algoeff(
    *('check', 'adamw', '--ruleset', 'self', '--workloads', toy, '--path', ROOT),
    *('--framework', framework),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize('toy', TOYS)
def test_its_cost_is_estimated(toy: str, framework: str, tmp_path: Path):
  done = algoeff(
    *('plan', '--suite', 'quick', '--workloads', toy, '--submissions', 'adamw', '--json'),
    *('--ruleset', 'self', '--frameworks', framework, '--studies', '1', '--path', ROOT),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  assert found['num_runs'] == 1 and not found['problems']
  assert 0 < found['trials'][0]['expected_sec'] < found['trials'][0]['at_most_sec']
