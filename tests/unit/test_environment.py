"""What a trial ran on, when two trials' seconds compare, and AlgoPerf's metadata."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from algorithmic_efficiency.results import environment, utilization

DEVICES = {
  'framework': 'jax',
  'versions': {'jax': '1.0'},
  'platform': 'cpu',
  'device_kind': 'cpu',
  'num_devices': 1,
  'num_threads': 2,
  'compilation_cache': '/tmp/cache_of_this_trial',
}
ROOT = Path(environment.__file__).parents[1]


def test_it_starts_no_other_process():
  code = (
    'import subprocess; '
    'from algorithmic_efficiency.results import environment; subprocess.Popen = None; '
    'print(environment.collect({})["os"])'
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout.strip() == platform.platform()


def test_it_names_the_machine():
  facts = environment.collect(DEVICES)
  assert facts['python'] == sys.version.split()[0]
  assert facts['num_cpus'] >= facts['num_usable_cpus'] > 0
  assert facts['memory_bytes'] > 2**28
  assert facts['cpu_model']
  assert facts['devices'] == DEVICES
  assert facts['versions']['numpy'] == np.__version__
  assert facts['host_hash'] == environment.host_hash(facts)
  assert len(facts['host_hash']) == 16
  assert facts['machine_hash'] == environment.machine_hash(facts)


@pytest.mark.parametrize(
  ('change', 'comparable'),
  [
    ({'git_commit': 'other', 'git_branch': 'other'}, True),
    ({'python': '3.11.99'}, True),
    ({'memory_bytes': 16 * 2**30 + 12345}, True),
    ({'devices': DEVICES | {'compilation_cache': None}}, True),
    ({'versions': {'jax': '1.0', 'jaxlib': '1.0', 'torch': '9.9'}}, True),
    ({'versions': {'jax': '1.1', 'jaxlib': '1.0', 'torch': '2.0'}}, False),
    ({'python': '3.12.1'}, False),
    ({'memory_bytes': 32 * 2**30}, False),
    ({'cpu_model': 'other'}, False),
    ({'num_usable_cpus': 1.5}, False),
    ({'gpu_driver': '550.90.12'}, False),
    ({'devices': DEVICES | {'num_threads': 1}}, False),
    ({'devices': DEVICES | {'num_devices': 8}}, False),
    ({'devices': DEVICES | {'device_kind': 'H100'}}, False),
  ],
)
def test_the_host_hash_differs_where_seconds_do_not_compare(change, comparable):
  facts = environment.collect(DEVICES) | {
    'python': '3.11.1',
    'memory_bytes': 16 * 2**30,
    'versions': {'jax': '1.0', 'jaxlib': '1.0', 'torch': '2.0'},
  }
  same = environment.host_hash(facts) == environment.host_hash(facts | change)
  assert same is comparable


def test_folders_are_told_apart_from_what_figures_depend_on():
  facts = environment.collect(DEVICES)
  kept = environment.without_folders(facts)
  assert {**kept['devices'], 'compilation_cache': DEVICES['compilation_cache']} == DEVICES
  assert 'compilation_cache' not in kept['devices'] and kept['versions'] == facts['versions']
  assert environment.without_folders({}) == {'devices': {}}


@pytest.mark.parametrize(
  ('change', 'same_machine'),
  [
    ({'devices': DEVICES | {'framework': 'pytorch', 'versions': {}, 'num_threads': 1}}, True),
    ({'python': '3.99.1', 'versions': {}}, True),
    ({'devices': DEVICES | {'num_devices': 8}}, False),
    ({'devices': DEVICES | {'device_kind': 'H100'}}, False),
    ({'cpu_model': 'other'}, False),
    ({'memory_bytes': 1}, False),
  ],
)
def test_the_machine_is_its_hardware_whatever_runs_on_it(change, same_machine):
  facts = environment.collect(DEVICES)
  same = environment.machine_hash(facts) == environment.machine_hash(facts | change)
  assert same is same_machine


def test_versions_are_known_without_an_import():
  code = (
    'import sys; '
    'from algorithmic_efficiency.results import environment; print(environment.versions()); '
    "assert not {'jax', 'torch', 'flax', 'psutil', 'pandas'} & set(sys.modules)"
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert 'algorithmic-efficiency' in out.stdout
  assert environment.package_versions(('numpy', 'no-such-package')).keys() == {'numpy'}


# The checkout.

COMMIT = '0123456789abcdef0123456789abcdef01234567'


def write(path: Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def test_git_head_of_a_branch(tmp_path):
  write(tmp_path / '.git' / 'HEAD', 'ref: refs/heads/feature/x\n')
  assert environment.git_head(tmp_path) == (None, 'feature/x')  # no commit yet
  write(tmp_path / '.git' / 'packed-refs', f'# pack-refs\n{COMMIT} refs/heads/feature/x\n^abc\n')
  assert environment.git_head(tmp_path) == (COMMIT, 'feature/x')
  newer = COMMIT[::-1]
  write(tmp_path / '.git' / 'refs' / 'heads' / 'feature' / 'x', f'{newer}\n')
  assert environment.git_head(tmp_path) == (newer, 'feature/x')


def test_git_head_detached_or_absent(tmp_path):
  assert environment.git_head(tmp_path) == (None, None)
  write(tmp_path / '.git' / 'HEAD', f'{COMMIT}\n')
  assert environment.git_head(tmp_path) == (COMMIT, None)


def test_git_head_of_a_worktree(tmp_path):
  main, tree = tmp_path / 'main' / '.git', tmp_path / 'tree'
  write(tree / '.git', f'gitdir: {main}/worktrees/tree\n')
  write(main / 'worktrees' / 'tree' / 'HEAD', 'ref: refs/heads/side\n')
  write(main / 'worktrees' / 'tree' / 'commondir', '../..\n')
  write(main / 'refs' / 'heads' / 'side', f'{COMMIT}\n')
  assert environment.git_head(tree) == (COMMIT, 'side')


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='not run from a checkout')
def test_git_head_agrees_with_git():
  def git(*args: str) -> str:
    command = ['git', '-C', str(ROOT), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

  commit, branch = environment.git_head(ROOT)
  assert commit == git('rev-parse', 'HEAD')
  assert (branch or 'HEAD') == git('rev-parse', '--abbrev-ref', 'HEAD')


def test_a_quota_and_a_memory_limit_count(tmp_path, monkeypatch):
  monkeypatch.setattr(environment, '_CGROUP', tmp_path)
  bound, total = environment.num_usable_cpus(), environment.memory_bytes()
  write(tmp_path / 'cpu.max', '50000 100000\n')
  write(tmp_path / 'memory.max', '1000000\n')
  assert environment.num_usable_cpus() == 0.5
  assert environment.memory_bytes() == 1000000
  write(tmp_path / 'cpu.max', 'max 100000\n')
  write(tmp_path / 'memory.max', 'max\n')
  assert (environment.num_usable_cpus(), environment.memory_bytes()) == (bound, total)


# AlgoPerf's metadata.


class ToyWorkload:
  step_hint = 100
  name = 'toy'
  is_image = True
  max_allowed_runtime_sec = math.inf
  metrics_logger = None

  @property
  def test_target_value(self):
    return 0.126041

  @property
  def train_mean(self):
    raise NotImplementedError('There is none.')

  @property
  def train_stddev(self):
    raise AttributeError('There is none.')

  @property
  def param_shapes(self):
    raise ValueError('Not yet.')

  @property
  def _private(self):
    pytest.fail('private attributes are none of our business')

  def init_model_fn(self):
    pytest.fail('methods are not called')


def test_fault_7_a_property_that_raises_has_no_value():
  """The reference harness wrote down the value of the attribute before it."""
  assert environment.workload_properties(ToyWorkload()) == {
    'workload.step_hint': 100,
    'workload.name': 'toy',
    'workload.is_image': True,
    'workload.test_target_value': 0.126041,
  }


HOST_KEYS = {
  'os_platform',
  'python_version',
  'python_compiler',
  'cpu_model_name',
  'cpu_count',
  'rng_seed',
}
PSUTIL_KEYS = {
  'cpu.util.avg_percent_since_last',
  'mem.total',
  'mem.available',
  'mem.used',
  'mem.percent_used',
}


def test_meta_data_has_the_keys_of_algoperf():
  facts = environment.meta_data(ToyWorkload(), environment.collect(DEVICES), rng_seed=7)
  assert HOST_KEYS | PSUTIL_KEYS | {'workload.step_hint'} <= facts.keys()
  assert facts['rng_seed'] == 7
  assert None not in facts.values()


def test_meta_data_without_the_optional_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pynvml', None)
  facts = environment.meta_data(ToyWorkload(), environment.collect(DEVICES), rng_seed=7)
  assert facts.keys() >= HOST_KEYS | PSUTIL_KEYS
  assert not [name for name in facts if name.startswith('gpu')]


class FakeNvml(types.ModuleType):
  """Two GPUs, the second of which does not tell its temperature."""

  NVML_TEMPERATURE_GPU = 0

  class NVMLError(Exception):
    pass

  def __init__(self, has_driver: bool = True):
    super().__init__('pynvml')
    self.has_driver = has_driver
    self.num_open = 0

  def nvmlInit(self):
    if not self.has_driver:
      raise self.NVMLError('Driver Not Loaded')
    self.num_open += 1

  def nvmlShutdown(self):
    self.num_open -= 1

  def nvmlDeviceGetCount(self):
    return 2

  def nvmlDeviceGetHandleByIndex(self, index):
    return index

  def nvmlDeviceGetName(self, handle):
    return 'A100'

  def nvmlDeviceGetMemoryInfo(self, handle):
    return types.SimpleNamespace(total=40 * 2**30, used=10 * 2**30, free=30 * 2**30)

  def nvmlDeviceGetUtilizationRates(self, handle):
    return types.SimpleNamespace(gpu=50 + 50 * handle)

  def nvmlDeviceGetTemperature(self, handle, sensor):
    if handle == 1:
      raise self.NVMLError('Not Supported')
    return 60


def test_gpus_under_the_names_of_algoperf(monkeypatch):
  nvml = FakeNvml()
  monkeypatch.setitem(sys.modules, 'pynvml', nvml)
  found = utilization.snapshot()
  assert found['gpu.count'] == 2
  assert found['gpu.0.compute.util'] == 0.5
  assert found['gpu.avg.compute.util'] == 0.75
  assert found['gpu.1.mem.total'] == 40 * 1024
  assert found['gpu.1.mem.util'] == 0.25
  assert found['gpu.0.temp.current'] == found['gpu.avg.temp.current'] == 60
  assert 'gpu.1.temp.current' not in found
  assert utilization.gpu_names() == ['A100', 'A100']
  assert nvml.num_open == 0
  facts = environment.meta_data(ToyWorkload(), environment.collect(DEVICES))
  assert facts['gpu_model_name'] == 'A100'
  assert facts['gpu_count'] == 2


def test_no_driver_is_no_error(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pynvml', FakeNvml(has_driver=False))
  assert utilization.gpu_names() == []
  assert not [name for name in utilization.snapshot() if name.startswith('gpu')]
