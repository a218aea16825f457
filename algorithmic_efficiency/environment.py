"""What a trial ran on: hardware, software, and whether the seconds of two trials can be compared.

Facts about devices come as an argument, from the backend that uses them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import algorithmic_efficiency
from algorithmic_efficiency import utilization

_FRAMEWORK_PACKAGES = {
  'jax': ('numpy', 'jax', 'jaxlib', 'flax', 'optax'),
  'pytorch': ('numpy', 'torch'),
}
PACKAGES = ('numpy', 'jax', 'jaxlib', 'flax', 'optax', 'torch')
_GIB = 2**30
_CGROUP = Path('/sys/fs/cgroup')


@dataclass(frozen=True, kw_only=True)
class Environment:
  """The facts; what is not known is None.

  Attributes:
    num_usable_cpus: what this process may use of `num_cpus`; with a quota, not a whole number.
    devices: what the backend says: version, platform, kind and number of devices, threads.
    packages: versions of all packages that are installed and could matter.
    git_commit, git_branch: of the checkout that the harness runs from.
  """

  framework: str
  os: str
  machine: str
  python: str
  python_compiler: str
  cpu_model: str
  num_cpus: int
  num_usable_cpus: float
  memory_bytes: int
  gpu_driver: str | None
  harness: str
  git_commit: str | None
  git_branch: str | None
  devices: Mapping[str, Any] = field(default_factory=dict)
  packages: Mapping[str, str] = field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    facts = dataclasses.asdict(self)
    facts['fingerprint'] = self.fingerprint()
    return facts

  def fingerprint(self) -> str:
    """16 hexadecimal digits; the seconds of two trials are comparable where they are equal.

    It covers the hardware, the devices, the driver, and the packages of the framework in use; not the
    commit of the harness, nor the other framework.
    """
    facts = {
      'system': self.os.partition('-')[0],
      'machine': self.machine,
      'python': self.python.rpartition('.')[0],
      'cpu': [self.cpu_model, self.num_usable_cpus],
      'memory_gib': round(self.memory_bytes / _GIB),
      'gpu_driver': self.gpu_driver,
      'devices': self.devices,
      'packages': {
        name: self.packages.get(name) for name in _FRAMEWORK_PACKAGES.get(self.framework, PACKAGES)
      },
    }
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def collect(framework: str, devices: Mapping[str, Any]) -> Environment:
  """The environment of this process; starts no other process."""
  commit, branch = git_head(Path(algorithmic_efficiency.__file__).parent.parent)
  return Environment(
    framework=framework,
    os=platform.platform(),
    machine=platform.machine(),
    python=platform.python_version(),
    python_compiler=platform.python_compiler(),
    cpu_model=cpu_model(),
    num_cpus=os.cpu_count() or 1,
    num_usable_cpus=num_usable_cpus(),
    memory_bytes=memory_bytes(),
    gpu_driver=gpu_driver(),
    harness=algorithmic_efficiency.__version__,
    git_commit=commit,
    git_branch=branch,
    devices=dict(devices),
    packages=package_versions(),
  )


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
  """Versions of the packages that are installed, without importing them."""
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def cpu_model() -> str:
  for line in _text(Path('/proc/cpuinfo')).splitlines():
    name, _, value = line.partition(':')
    if name.strip() in ('model name', 'Model'):
      return value.strip()
  return platform.processor() or platform.machine()


def num_usable_cpus() -> float:
  """CPUs that this process may use: those it is bound to, or less where a quota says so."""
  if hasattr(os, 'sched_getaffinity'):
    bound = len(os.sched_getaffinity(0))
  else:
    bound = os.cpu_count() or 1
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
  environment: Environment, *, workload: Any = None, seed: int | None = None
) -> dict[str, Any]:
  """The keys that AlgoPerf writes, as far as their values are known here."""
  names = utilization.gpu_names()
  facts = {
    **(workload_properties(workload) if workload is not None else {}),
    **utilization.snapshot(),
    'os_platform': environment.os,
    'python_version': environment.python,
    'python_compiler': environment.python_compiler,
    'git_branch': environment.git_branch,
    'git_commit_hash': environment.git_commit,
    'cpu_model_name': environment.cpu_model,
    'cpu_count': environment.num_cpus,
    'gpu_model_name': names[0] if names else None,
    'gpu_count': len(names) or None,
    'gpu_driver': environment.gpu_driver,
    'rng_seed': seed,
  }
  return {name: value for name, value in facts.items() if value is not None}


def workload_properties(workload: Any) -> dict[str, bool | int | float | str]:
  """`workload.<name>` for every public attribute that is a finite number, a string or a truth value.

  A property that raises has no value and no entry.
  """
  found = {}
  for name in dir(workload):
    if name.startswith('_'):
      continue
    value = None
    # A property may raise anything, where a workload has no such thing; what is written down about a
    # trial must not end it.
    with contextlib.suppress(Exception):
      value = getattr(workload, name)
    if isinstance(value, float) and not math.isfinite(value):
      continue
    if isinstance(value, (bool, int, float, str)):
      found[f'workload.{name}'] = value
  return found
