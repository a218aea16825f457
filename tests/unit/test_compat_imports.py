"""The import roots of entries written for AlgoPerf."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types
from collections.abc import Iterator

import pytest

import algorithmic_efficiency
from algorithmic_efficiency import spec
from algorithmic_efficiency.compat import imports

ENTRY = """
from algoperf import spec
from algoperf.pytorch_utils import pytorch_setup
import algoperf.jax_sharding_utils
from algorithmic_efficiency import jax_sharding_utils as older, pytorch_utils
import algorithmic_efficiency.pytorch_utils as again

USE_PYTORCH_DDP = pytorch_setup()[0]
"""

needs_both = pytest.mark.skipif(
  not all(map(importlib.util.find_spec, ('jax', 'torch'))), reason='JAX or PyTorch is not installed'
)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
  imports.uninstall()
  yield
  imports.uninstall()


@needs_both
def test_both_roots_give_the_same_objects():
  names = types.SimpleNamespace()
  with imports.installed():
    exec(ENTRY, names.__dict__)
  assert names.spec is spec
  assert names.algoperf.jax_sharding_utils is names.older
  assert names.pytorch_utils is names.again
  assert names.pytorch_setup is names.pytorch_utils.pytorch_setup
  assert names.USE_PYTORCH_DDP is False


def test_an_exception_raised_under_one_root_is_caught_under_the_other():
  with imports.installed():
    theirs = importlib.import_module('algoperf.spec')
    with pytest.raises(spec.TrainingCompleteError):
      raise theirs.TrainingCompleteError


def test_a_module_is_not_changed_by_its_second_name():
  before = dict(vars(spec))
  with imports.installed():
    importlib.import_module('algoperf.spec')
    assert spec.__spec__ is before['__spec__']
    assert spec.__name__ == 'algorithmic_efficiency.spec'
  assert dict(vars(spec)) == before


@needs_both
def test_nothing_is_left_after_uninstall():
  with imports.installed():
    exec(ENTRY, {})
  assert not [name for name in sys.modules if name.partition('.')[0] == 'algoperf']
  assert not hasattr(algorithmic_efficiency, 'pytorch_utils')
  with pytest.raises(ModuleNotFoundError):
    importlib.import_module('algoperf')
  with pytest.raises(ModuleNotFoundError):
    importlib.import_module('algorithmic_efficiency.pytorch_utils')
  assert algorithmic_efficiency.spec is spec


def test_an_installed_algoperf_steps_aside_and_comes_back(monkeypatch: pytest.MonkeyPatch):
  theirs = types.ModuleType('algoperf')
  their_spec = types.ModuleType('algoperf.spec')
  monkeypatch.setitem(sys.modules, 'algoperf', theirs)
  monkeypatch.setitem(sys.modules, 'algoperf.spec', their_spec)
  with imports.installed():
    assert importlib.import_module('algoperf.spec') is spec
  assert sys.modules['algoperf'] is theirs
  assert sys.modules['algoperf.spec'] is their_spec


def test_install_twice_is_install_once():
  imports.install()
  imports.install()
  assert [finder for finder in sys.meta_path if finder is imports._FINDER] == [imports._FINDER]


def test_what_no_entry_imports_is_not_there():
  with imports.installed(), pytest.raises(ModuleNotFoundError, match=r'algoperf\.workloads'):
    importlib.import_module('algoperf.workloads')


def test_importing_the_package_sets_up_nothing_and_the_roots_import_no_framework():
  code = """
import sys
import algorithmic_efficiency.compat.imports as imports
assert imports._FINDER not in sys.meta_path
imports.install()
import algoperf.spec
assert not {'jax', 'torch'} & set(sys.modules)
"""
  subprocess.run([sys.executable, '-c', code], check=True)


def test_pytorch_setup_looks_when_it_is_called(monkeypatch: pytest.MonkeyPatch):
  torch = pytest.importorskip('torch')
  monkeypatch.delenv('LOCAL_RANK', raising=False)
  monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
  monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
  with imports.installed():
    setup = importlib.import_module('algoperf.pytorch_utils')
  monkeypatch.setattr(setup, '_device', None)  # as before a backend has started
  assert setup.pytorch_setup() == (False, 0, torch.device('cuda:0'), 4)
  monkeypatch.setenv('LOCAL_RANK', '3')
  assert setup.pytorch_setup() == (True, 3, torch.device('cuda:3'), 4)
  setup.use_device(torch.device('cpu'))
  assert setup.pytorch_setup()[2] == torch.device('cpu')


SHARDINGS = """
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
import numpy as np
from algorithmic_efficiency.compat import imports, jax_sharding_utils
imports.install()
from algoperf.jax_sharding_utils import (
  get_batch_dim_sharding, get_replicate_sharding, replicate, shard_along_batch_dim)

def shapes(array):
  return [shard.data.shape for shard in array.addressable_shards]

for count in (8, 2):
  jax_sharding_utils.use_devices(None if count == 8 else jax.devices()[:count])
  tree = {'x': np.arange(16.0).reshape(16, 1)}
  assert shapes(shard_along_batch_dim(tree)['x']) == [(16 // count, 1)] * count
  assert shapes(replicate(tree)['x']) == [(16, 1)] * count
  assert get_batch_dim_sharding().mesh.axis_names == ('batch',)
  step = jax.jit(
    lambda w, x: w + x.sum(),
    in_shardings=(get_replicate_sharding(), get_batch_dim_sharding()),
    out_shardings=get_replicate_sharding(),
  )
  out = step(replicate(np.ones(3)), shard_along_batch_dim(tree)['x'])
  assert out.tolist() == [121.0] * 3 and out.sharding.is_fully_replicated
"""


def test_shardings_cover_the_devices_of_the_trial():
  pytest.importorskip('jax')
  subprocess.run([sys.executable, '-c', SHARDINGS], check=True)
