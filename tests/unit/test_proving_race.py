"""The race that proves the harness: its suite, and the entry that must lose."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry, suite_file

FOLDER = Path(__file__).resolve().parents[1] / 'benchmarks' / 'race'
PACKAGES = {'jax': 'jax', 'pytorch': 'torch'}


def _module(root: Path, name: str, framework: str):
  file = root / 'submissions' / 'self_tuning' / name / registry.SUBMISSION_FILES[framework]
  spec = importlib.util.spec_from_file_location(f'_race_{name}_{framework}', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_it_races_five_studies_of_two_workloads_in_steps():
  suite = suite_file.load(FOLDER / 'race.toml', registry.workloads())
  assert suite.axis == 'cost_adjusted_steps'
  assert suite.tuning['self'].num_studies == 5
  assert set(suite.workloads) == {'quick_vision', 'mnist_standardized'}
  for name, definition in suite.workloads.items():
    own = registry.workload(name)
    assert (definition.target, definition.batch_sizes) == (own.target, own.batch_sizes)


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_the_entry_that_must_lose_is_adamw_with_a_tenth_of_its_learning_rate(framework):
  pytest.importorskip(PACKAGES[framework])
  good = vars(_module(registry.HOME, 'adamw', framework)._POINT)
  slow = vars(_module(FOLDER, 'slow_adamw', framework)._POINT)
  assert slow == {**good, 'learning_rate': pytest.approx(good['learning_rate'] / 10)}
