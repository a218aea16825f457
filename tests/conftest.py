"""What all tests share: the machine is kept small, compilations are kept, real data are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Set before any framework is imported, and inherited by the processes that tests start.
for _name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
  os.environ.setdefault(_name, '1')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')


def pytest_configure(config: pytest.Config) -> None:
  """Without `-m gpu` the frameworks see the CPU alone, on every machine."""
  if config.option.markexpr != 'gpu':
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['CUDA_VISIBLE_DEVICES'] = ''


@pytest.fixture(scope='session')
def test_data() -> Path:
  """The folder of real data, for tests marked `data`; they are skipped where there is none."""
  folder = Path(os.environ.get('ALGOEFF_TEST_DATA') or ROOT.parent / 'shared' / 'data')
  if not folder.is_dir():
    pytest.skip(f'there are no real data at {folder}; ALGOEFF_TEST_DATA names their folder')
  return folder.resolve()


@pytest.fixture(autouse=True)
def no_suite_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
  from algorithmic_efficiency.benchmark import registry

  monkeypatch.setattr(registry, '_read_suites', {})


@pytest.fixture
def experiment_dir(tmp_path: Path) -> Path:
  return tmp_path / 'experiments'
