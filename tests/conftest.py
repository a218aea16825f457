"""What all tests share: the machine is kept small, compilations are kept, real data are found."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import compiler

ROOT = Path(__file__).resolve().parent.parent

# Set before any framework is imported, and inherited by the processes that tests start.
for _name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
  os.environ.setdefault(_name, '1')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')


def pytest_addoption(parser: pytest.Parser) -> None:
  for name, text in (
    ('--workload_path', 'test the task in the folder DIR only (repeatable)'),
    ('--path', 'test the tasks below DIR/workloads only (repeatable)'),
  ):
    parser.addoption(name, action='append', default=[], metavar='DIR', help=text)


def pytest_configure(config: pytest.Config) -> None:
  """Without `-m gpu`, the frameworks see the CPU alone, and XLA compiles quickly."""
  if config.option.markexpr != 'gpu':
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    os.environ.setdefault('XLA_FLAGS', compiler.QUICK_FLAGS)
  _find_tasks_of_others(config)


def _find_tasks_of_others(config: pytest.Config) -> None:
  """Adds the folders of --path and --workload_path before the tests of each task are collected."""
  from algorithmic_efficiency import errors
  from algorithmic_efficiency.benchmark import registry

  try:
    for folder in config.option.path:
      registry.add_root(folder)
    for folder in config.option.workload_path:
      registry.add_task(folder)
  except errors.UserError as error:
    raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
  """With --path or --workload_path, leaves the tests of the tasks that they add."""
  if not (config.option.path or config.option.workload_path):
    return
  from algorithmic_efficiency.benchmark import registry

  added = {task.name for task in registry.tasks().values() if task.folder.parents[1] != ROOT}
  others = [item for item in items if not added & set(_tasks_of(item))]
  config.hook.pytest_deselected(items=others)
  items[:] = [item for item in items if item not in others]


def _tasks_of(item: pytest.Item) -> Iterator[str]:
  """The names of the tasks that the parameters of a test belong to."""
  from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
  from algorithmic_efficiency.benchmark.task_folder import Task

  found = [*item.callspec.params.values()] if hasattr(item, 'callspec') else []
  for value in found:
    match value:
      case WorkloadDefinition(task=name) | Task(name=name):
        yield name
      case tuple() | list():
        found += value


@pytest.fixture(scope='session')
def test_data() -> Path:
  """The folder of real data, for tests marked `data`; they are skipped where there is none."""
  folder = Path(os.environ.get('ALGOEFF_TEST_DATA') or ROOT.parent / 'shared' / 'data')
  if not folder.is_dir():
    pytest.skip(f'there are no real data at {folder}; ALGOEFF_TEST_DATA names their folder')
  return folder.resolve()


@pytest.fixture(scope='session')
def published_logs(test_data: Path) -> Path:
  """The published logs of AlgoPerf 0.5, unpacked once: 90 MB in 7,600 files."""
  archive = test_data / 'algoperf_v05' / 'external_tuning_logs.tar.xz'
  if not archive.is_file():
    pytest.skip(f'the published logs are not at {archive}')
  cache = ROOT / '.cache'
  folder = cache / f'algoperf_v05_{archive.stat().st_size}'
  if not folder.is_dir():
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    with tarfile.open(archive) as tar:
      tar.extraction_filter = getattr(tarfile, 'data_filter', None)  # not in Python 3.11.2
      tar.extractall(fresh)
    fresh.rename(folder)
  return folder


@pytest.fixture(autouse=True)
def no_suite_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
  from algorithmic_efficiency.benchmark import registry

  monkeypatch.setattr(registry, '_read_suites', {})


@pytest.fixture
def experiment_dir(tmp_path: Path) -> Path:
  return tmp_path / 'experiments'
