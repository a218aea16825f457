"""One device against many: the same batches and losses, the same metrics to the last example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trials import rank_outputs

from algorithmic_efficiency.backends.ports import free_port
from algorithmic_efficiency.benchmark import registry

SCRIPT = Path(__file__).with_name('devices_script.py')

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def mnist(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A data folder with MNIST prepared in it."""
  from algorithmic_efficiency.cli import main

  folder = tmp_path_factory.mktemp('data')
  command = ['data', 'prepare', 'mnist', '--source', str(test_data / 'mnist')]
  assert main([*command, '--data_dir', str(folder)]) == 0
  return folder


def run(framework: str, workload: str, data_dir: Path, **options: Any) -> list[dict[str, Any]]:
  """What each process of a run printed."""
  world_size = options.get('world_size', 1)
  flags = [f'--{name}={value}' for name, value in options.items()]
  flags += [f'--data_dir={data_dir}', f'--address=127.0.0.1:{free_port()}']
  ranks = [(framework, workload, *flags, f'--rank={rank}') for rank in range(world_size)]
  outputs = rank_outputs(SCRIPT, ranks, timeout=300)
  return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.data
@pytest.mark.parametrize(
  'workload',
  [
    'quick_vision',
    *(
      pytest.param(name, marks=pytest.mark.long)
      for name in ('quick_lm', 'quick_nmt', 'mnist_standardized')
    ),
  ],
)
@pytest.mark.parametrize(
  ('framework', 'many'),
  [('jax', {'num_devices': 8}), ('pytorch', {'num_devices': 2, 'world_size': 2})],
)
def test_one_against_many(framework: str, many: dict[str, int], workload: str, mnist: Path):
  [one] = run(framework, workload, mnist)
  several = run(framework, workload, mnist, **many)
  batches = zip(*(result['batches'] for result in several), strict=True)
  assert [[part for parts in step for part in parts] for step in batches] == one['batches']
  for result in several:
    assert result['losses_64'] == pytest.approx(one['losses_64'], rel=1e-9)
    assert result['losses_32'] == pytest.approx(one['losses_32'], rel=1e-4)
    assert result['metrics'] == pytest.approx(one['metrics'], rel=1e-4)
    assert exact(result, workload) == exact(one, workload)


@pytest.mark.parametrize(
  ('framework', 'many', 'num_held_out'),
  [
    ('pytorch', {'num_devices': 2, 'world_size': 2}, 16),
    *(
      pytest.param(*one, 512, marks=pytest.mark.long)
      for one in (
        ('jax', {'num_devices': 2}),
        ('pytorch', {'num_devices': 2, 'world_size': 2}),
      )
    ),
  ],
)
def test_evaluations_of_translation_depend_on_no_batch_size(
  framework: str, many: dict[str, int], num_held_out: int, tmp_path: Path
):
  """Nor on devices and ranks: counts and generated texts are equal, and sums but for rounding."""
  found = []
  for devices, sizes in (({}, '1,7,64'), (many, '2,14,128')):
    options = {**devices, 'eval_batch_sizes': sizes, 'num_held_out': num_held_out}
    for result in run(framework, 'quick_nmt', tmp_path, **options):
      found += result['by_eval_batch_size'].values()
  expected = found[0]
  assert expected['validation/num_examples'] == expected['test/num_examples'] == num_held_out
  assert expected['test/chrf'] > 0
  for metrics in found:
    assert metrics == pytest.approx(expected, rel=1e-9)


def exact(result: dict[str, Any], workload: str) -> dict[str, float]:
  """The metrics that are counts: they must agree to the last example."""
  splits = registry.workload(workload).splits
  metrics = result['metrics']
  assert metrics['validation/num_examples'] == splits.validation
  assert metrics['test/num_examples'] == splits.test
  return {name: value for name, value in metrics.items() if name.endswith('/accuracy')}
