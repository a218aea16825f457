"""Says what this machine can run: frameworks, devices, packages, disk, data, and what is missing.

Exit code 0 if at least one framework works, else 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algorithmic_efficiency import backends
from algorithmic_efficiency.cli import _flags
from algorithmic_efficiency.trial.run_options import RunOptions, data_dir

SUMMARY = 'say what this machine can run, and what is missing'

NO_FRAMEWORK = 1
_DISTRIBUTION = 'algorithmic-efficiency'
_GIB = 2**30
_MARK = 'DESCRIPTION '
_PROBE = (
  'import json, sys\n'
  'from algorithmic_efficiency import backends\n'
  'from algorithmic_efficiency.backends.base import Devices\n'
  'facts = backends.start(sys.argv[1], Devices()).describe()\n'
  f'print({_MARK!r} + json.dumps(facts, default=str))\n'
)


def arguments(parser: _flags.Parser) -> None:
  _flags.add_options(parser, RunOptions, only=('data_dir',))
  parser.add(
    'timeout',
    group=_flags.DEVICES,
    type=_flags.positive,
    default=60,
    metavar='SEC',
    help='seconds that a framework may take to start',
  )
  _flags.add(parser, 'json')


def run(args: argparse.Namespace) -> int:
  report = examine(data_dir(_flags.options_of(args).data_dir), timeout_sec=args.timeout)
  if args.json:
    print(json.dumps(report, indent=2))
  else:
    print('\n'.join(_lines(report)))
  works = any(framework['works'] for framework in report['frameworks'].values())
  return 0 if works else NO_FRAMEWORK


def examine(data_dir: Path, *, timeout_sec: float) -> dict[str, Any]:
  """Everything that is reported, as JSON."""
  from algorithmic_efficiency.results import environment, utilization

  facts = environment.collect({})
  del facts['devices'], facts['host_hash']  # both are a trial's
  return {
    **facts,
    'gpus': utilization.gpu_names(),
    'frameworks': frameworks(timeout_sec),
    'extras': extras(),
    'disk': {str(folder): _free_bytes(folder) for folder in (data_dir, Path.cwd())},
    'data': data_sets(data_dir),
  }


# Frameworks: each is asked in a process of its own, so that one that hangs is only reported.


def frameworks(timeout_sec: float) -> dict[str, dict[str, Any]]:
  """For each framework whether it `works`, what it says of its devices, or the `problem`."""
  started = {name: _start_probe(name) for name in backends.FRAMEWORKS}
  return {name: _answer(name, probe, timeout_sec) for name, probe in started.items()}


def _start_probe(framework: str) -> subprocess.Popen[str] | str:
  """The process that asks the framework, or why there is no use in asking."""
  from algorithmic_efficiency import errors
  from algorithmic_efficiency.benchmark import registry
  from algorithmic_efficiency.launch import request

  try:
    request.check_installed(framework)
  except errors.UserError as error:
    return str(error)
  path = os.pathsep.join(filter(None, (str(registry.HOME), os.environ.get('PYTHONPATH'))))
  return subprocess.Popen(
    [sys.executable, '-c', _PROBE, framework],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
    env={**os.environ, 'PYTHONPATH': path},
    start_new_session=True,
  )


def _answer(name: str, probe: subprocess.Popen[str] | str, timeout_sec: float) -> dict[str, Any]:
  if isinstance(probe, str):
    return {'works': False, 'installed': False, 'problem': probe}
  try:
    out, err = probe.communicate(timeout=timeout_sec)
  except subprocess.TimeoutExpired:
    os.killpg(probe.pid, signal.SIGKILL)
    probe.communicate()
    return _broken(f'{name} did not start within {timeout_sec:g} s.')
  answers = [line for line in out.splitlines() if line.startswith(_MARK)]
  if probe.returncode == 0 and answers:
    return {
      'works': True,
      'installed': True,
      'problem': None,
      **json.loads(answers[-1].removeprefix(_MARK)),
    }
  said = (err.strip().splitlines() or [f'exit code {probe.returncode}'])[-1]
  return _broken(f'{name} is installed and does not start: {said}')


def _broken(problem: str) -> dict[str, Any]:
  return {'works': False, 'installed': True, 'problem': problem}


# Packages.


def extras() -> dict[str, list[str]]:
  """The packages that each extra of this distribution lacks; empty where it is not installed."""
  try:
    required = importlib.metadata.requires(_DISTRIBUTION) or []
  except importlib.metadata.PackageNotFoundError:
    return {}
  missing: dict[str, list[str]] = {}
  for requirement in required:
    name = re.match(r'[\w.-]+', requirement)
    extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", requirement)
    if name and extra and name[0] != _DISTRIBUTION:
      lacking = missing.setdefault(extra[1], [])
      if not _is_installed(name[0]):
        lacking.append(name[0])
  return missing


def _is_installed(distribution: str) -> bool:
  try:
    importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


# Disk and data.


def _free_bytes(folder: Path) -> int:
  """Free space where the folder is, or would be."""
  while not folder.is_dir():
    folder = folder.parent
  return shutil.disk_usage(folder).free


def data_sets(data_dir: Path) -> list[dict[str, Any]]:
  """The sets of all workloads that can run: whether each is there, and how to prepare it."""
  from algorithmic_efficiency import errors
  from algorithmic_efficiency.benchmark import registry
  from algorithmic_efficiency.data import records

  found: dict[str, dict[str, Any]] = {}
  for definition in registry.workloads().values():
    if definition.dataset in found or not registry.is_runnable(definition):
      continue
    root = data_dir / definition.dataset
    bundled = definition.bundled
    entry = {
      'name': root.name,
      'bundled': bundled,
      'found': True,
      'problem': None,
      'prepare': None,
    }
    if not bundled:
      try:
        records.check_sizes(root, records.read_manifest(root))
      except errors.UserError as error:
        entry |= {'found': False, 'problem': str(error), 'prepare': records.prepare_line(root)}
    found[definition.dataset] = entry
  return list(found.values())


# Text.


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
  yield f'algoeff {report["versions"][_DISTRIBUTION]}, Python {report["python"]}, {report["os"]}'
  yield (
    f'cpu        {report["cpu_model"]}, {report["num_usable_cpus"]:g} of {report["num_cpus"]} '
    f'cores usable, {report["memory_bytes"] / _GIB:.0f} GiB of memory'
  )
  gpus = ', '.join(report['gpus']) or 'names unknown'
  driver = report['gpu_driver']
  yield f'gpu        {f"driver {driver}: {gpus}" if driver else "no NVIDIA driver"}'
  for name, free in report['disk'].items():
    yield f'disk       {free / _GIB:.0f} GiB free at {name}'
  packages = [f'{name} {version}' for name, version in report['versions'].items()]
  yield f'packages   {", ".join(packages[1:])}'
  for name, framework in report['frameworks'].items():
    yield f'framework  {_framework_line(name, framework)}'
  for entry in report['data']:
    yield f'data       {"ok     " if entry["found"] else "missing"} {_data_text(entry)}'
  for name, missing in report['extras'].items():
    if missing:
      yield (
        f"extra      missing {name} ({', '.join(missing)}): pip install '{_DISTRIBUTION}[{name}]'"
      )


def _framework_line(name: str, framework: Mapping[str, Any]) -> str:
  if not framework['works']:
    return f'{"broken " if framework["installed"] else "missing"} {framework["problem"]}'
  kind, number = framework.get('device_kind', 'device'), framework.get('num_devices', 1)
  return f'ok      {name}: {number} x {kind} ({framework.get("platform", "unknown platform")})'


def _data_text(entry: Mapping[str, Any]) -> str:
  return entry['problem'] or f'{entry["name"]}{" (bundled)" if entry["bundled"] else ""}'
