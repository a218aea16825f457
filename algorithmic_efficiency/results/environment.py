"""What a trial ran on: hardware, software, and whether the seconds of two trials can be compared.

Facts about devices come as an argument, from the backend that uses them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import algorithmic_efficiency
from algorithmic_efficiency.results import utilization

_FRAMEWORK_PACKAGES = {
  'jax': ('numpy', 'jax', 'jaxlib', 'flax', 'optax'),
  'pytorch': ('numpy', 'torch'),
}
PACKAGES = ('numpy', 'jax', 'jaxlib', 'flax', 'optax', 'torch')
_COMPARED = ('system', 'machine', 'cpu_model', 'num_usable_cpus', 'gpu_driver')
_HARDWARE = ('platform', 'device_kind', 'num_devices')  # of what a backend says of its devices
_FOLDERS = ('compilation_cache',)  # of what a backend says of itself
_GIB = 2**30
_CGROUP = Path('/sys/fs/cgroup')


def collect(devices: Mapping[str, Any]) -> dict[str, Any]:
  """Describes what this process runs on, for `trial.json`; unknown facts are None.

  It starts no other process. `num_usable_cpus` is the part of `num_cpus` that the process may use;
  a quota makes it a fraction. The commit and branch are those of the checkout that runs.

  Args:
    devices: what the backend says of itself and its devices.
  """
  commit, branch = git_head(Path(algorithmic_efficiency.__file__).parent.parent)
  facts = {
    'os': os_platform(),
    'system': platform.system(),
    'machine': platform.machine(),
    'python': platform.python_version(),
    'python_compiler': platform.python_compiler(),
    'cpu_model': cpu_model(),
    'num_cpus': os.cpu_count(),
    'num_usable_cpus': num_usable_cpus(),
    'memory_bytes': memory_bytes(),
    'gpu_driver': gpu_driver(),
    'git_commit': commit,
    'git_branch': branch,
    'devices': dict(devices),
    'versions': versions(),
  }
  return {
    **facts,
    'host_hash': host_hash(facts),
    'machine_hash': machine_hash(facts),
  }


def machine_hash(environment: Mapping[str, Any]) -> str:
  """16 hexadecimal digits of the hardware alone, and of its driver: equal for both frameworks."""
  devices = environment['devices']
  return _digest({name: devices.get(name) for name in _HARDWARE} | _hardware(environment))


def host_hash(environment: Mapping[str, Any]) -> str:
  """Returns 16 hexadecimal digits; the seconds of two trials compare where these are equal.

  The hash covers the hardware, the devices and their driver, Python, and the packages of the
  framework in use. It covers no commit, no other framework and no folder.
  """
  devices = without_folders(environment)['devices']
  packages = _FRAMEWORK_PACKAGES.get(devices.get('framework', ''), PACKAGES)
  return _digest(
    {
      **_hardware(environment),
      'python': environment['python'].rpartition('.')[0],
      'devices': devices,
      'packages': {name: environment['versions'].get(name) for name in packages},
    }
  )


def without_folders(environment: Mapping[str, Any]) -> dict[str, Any]:
  """What holds wherever the machine keeps its files: no figure depends on folders."""
  devices = environment.get('devices') or {}
  kept = {name: value for name, value in devices.items() if name not in _FOLDERS}
  return {**environment, 'devices': kept}


def host_hash_without_devices(framework: str) -> str:
  """Returns a `host_hash` of what this process knows without a framework: all but the devices."""
  return host_hash(collect({'framework': framework}))


def _hardware(environment: Mapping[str, Any]) -> dict[str, Any]:
  """What is compared of a machine besides its devices."""
  memory_gib = round(environment['memory_bytes'] / _GIB)
  return {**{name: environment[name] for name in _COMPARED}, 'memory_gib': memory_gib}


def _digest(facts: Mapping[str, Any]) -> str:
  text = json.dumps(facts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
  """The versions of the harness and of the packages that are installed."""
  return {'algorithmic-efficiency': algorithmic_efficiency.__version__, **package_versions()}


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
  """Versions of the packages that are installed, without importing them."""
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def os_platform() -> str:
  """What `platform.platform()` says, which on Linux starts a process to find it out."""
  libc = ''.join(platform.libc_ver())
  parts = [
    platform.system(),
    platform.release(),
    platform.machine(),
    *(['with', libc] * bool(libc)),
  ]
  return '-'.join(parts)


def cpu_model() -> str:
  for line in _text(Path('/proc/cpuinfo')).splitlines():
    name, _, value = line.partition(':')
    if name.strip() in ('model name', 'Model'):
      return value.strip()
  return platform.processor() or platform.machine()


def bound_cpus() -> list[int]:
  """Numbers of the CPUs that this process is bound to; all where a system cannot bind it."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def num_usable_cpus() -> float:
  """CPUs that this process may use: those it is bound to, or less where a quota says so."""
  bound = len(bound_cpus())
  quota, _, period = _text(_CGROUP / 'cpu.max').partition(' ')
  return min(bound, int(quota) / int(period)) if quota.isdecimal() else bound


def memory_bytes() -> int:
  """Bytes of memory that this process may use."""
  total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  limit = _text(_CGROUP / 'memory.max')
  return min(total, int(limit)) if limit.isdecimal() else total


def gpu_driver() -> str | None:
  """The version of the NVIDIA driver; None without one."""
  return _text(Path('/sys/module/nvidia/version')) or None


def git_head(checkout: Path) -> tuple[str | None, str | None]:
  """Commit and branch of a checkout, read from its files; None for what there is none of."""
  git = checkout / '.git'
  if git.is_file():  # a worktree
    git = checkout / _text(git).removeprefix('gitdir:').strip()
  head = _text(git / 'HEAD')
  if not head.startswith('ref:'):
    return head or None, None
  ref = head.removeprefix('ref:').strip()
  common = git / (_text(git / 'commondir') or '.')
  commit = _text(git / ref) or _text(common / ref) or _packed(common, ref)
  return commit or None, ref.removeprefix('refs/heads/')


def _packed(git: Path, ref: str) -> str:
  for line in _text(git / 'packed-refs').splitlines():
    commit, _, name = line.partition(' ')
    if name == ref:
      return commit
  return ''


def _text(path: Path) -> str:
  """The content of a small file; empty if it cannot be read."""
  try:
    return path.read_text(errors='replace').strip()
  except OSError:
    return ''


# AlgoPerf's meta_data_<n>.json.


def meta_data(
  workload: Any, environment: Mapping[str, Any], *, rng_seed: int | None = None
) -> dict[str, Any]:
  """The keys that AlgoPerf writes, as far as their values are known here.

  Args:
    workload: the workload as a submission sees it.
    environment: what `collect` gave.
    rng_seed: the seed that the command was given or drew.
  """
  names = utilization.gpu_names()
  facts = {
    **workload_properties(workload),
    **utilization.snapshot(),
    'os_platform': environment['os'],
    'python_version': environment['python'],
    'python_compiler': environment['python_compiler'],
    'git_branch': environment['git_branch'],
    'git_commit_hash': environment['git_commit'],
    'cpu_model_name': environment['cpu_model'],
    'cpu_count': environment['num_cpus'],
    'gpu_model_name': names[0] if names else None,
    'gpu_count': len(names) or None,
    'gpu_driver': environment['gpu_driver'],
    'rng_seed': rng_seed,
  }
  return {name: value for name, value in facts.items() if value is not None}


def workload_properties(workload: Any) -> dict[str, bool | int | float | str]:
  """`workload.<name>` for every public attribute that is a finite number, a string or a bool.

  A property that raises has no value and no entry.
  """
  found = {}
  for name in dir(workload):
    if name.startswith('_'):
      continue
    value = None
    # A property may raise anything, where a workload has no such thing; what is written down about
    # a trial must not end it.
    with contextlib.suppress(Exception):
      value = getattr(workload, name)
    if isinstance(value, float) and not math.isfinite(value):
      continue
    if isinstance(value, (bool, int, float, str)):
      found[f'workload.{name}'] = value
  return found
