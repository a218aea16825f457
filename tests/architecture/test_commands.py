"""The commands as a user starts them: what they import, what they cost, and whose code they run.

Each runs in a process of its own, in a folder that is not the project's. What they cost in seconds
is measured by `benchmarks/bench_start.py`; here the work is counted.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import work

from algorithmic_efficiency.cli import main, verbs
from algorithmic_efficiency.results import trial_record

HEAVY = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'tensorflow', 'pandas', 'scipy')
MAX_MODULES = 450  # imported by a light command, of which numpy alone is some 130
MAX_CALLS = 400_000  # of functions, by a light command once its modules are imported
STRANGER = Path(__file__).with_name(
  'stranger'
)  # a root with a workload and a submission of its own

CLI = [sys.executable, '-m', 'algorithmic_efficiency']
SCRIPT = str(Path(sys.executable).with_name('algoeff'))
PACKAGES = {'jax': 'jax,jaxlib,flax,optax', 'pytorch': 'torch'}
EXTRAS = {'jax': 'jax', 'pytorch': 'torch'}
OTHER = {'jax': 'pytorch', 'pytorch': 'jax'}

# Put before everything else on the path of a process, this makes packages look uninstalled.
BLOCKER = """
import importlib.machinery, os
_find = importlib.machinery.PathFinder.find_spec
_blocked = os.environ['BLOCKED'].split(',')

def _without(name, path=None, target=None):
  return None if name.partition('.')[0] in _blocked else _find(name, path, target)

importlib.machinery.PathFinder.find_spec = staticmethod(_without)
"""


@dataclass(frozen=True)
class Result:
  code: int
  out: str
  err: str


def start(command: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> Result:
  """Runs a command to its end."""
  done = subprocess.run(
    command,
    cwd=cwd,
    env={**os.environ, **(env or {})},
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    check=False,
  )
  return Result(done.returncode, done.stdout, done.stderr)


def without(framework: str, folder: Path) -> dict[str, str]:
  """The environment of a machine on which a framework is not installed."""
  blocker = folder / 'blocker'
  blocker.mkdir(exist_ok=True)
  (blocker / 'sitecustomize.py').write_text(BLOCKER)
  return {'PYTHONPATH': str(blocker), 'BLOCKED': PACKAGES[framework]}


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
  """A working directory with packages of somebody else that have the names of ours."""
  folder = tmp_path / 'elsewhere'
  for package in ('submissions', 'scoring', 'workloads'):
    (folder / package / 'external_tuning' / 'theirs').mkdir(parents=True)
    (folder / package / '__init__.py').write_text(
      f'raise RuntimeError("{package} of somebody else")'
    )
    (folder / package / 'external_tuning' / 'theirs' / 'submission.py').write_text('')
  return folder


LIGHT = {
  'import': [sys.executable, '-c', 'import algorithmic_efficiency'],
  '--help': [*CLI, '--help'],
  '--version': [*CLI, '--version'],
  **{f'{verb} --help': [*CLI, verb, '--help'] for verb in ('run', 'bench', 'plan')},
  'plan --from_budget': [
    *(*CLI, 'plan', '--suite', 'algoperf_a100', '--submissions', 'nadamw', '--frameworks', 'jax'),
    '--from_budget',
  ],
  **{f'list {what}': [*CLI, 'list', what] for what in ('workloads', 'submissions', 'suites')},
}


@pytest.mark.parametrize('name', LIGHT)
def test_light_commands_import_few_modules_and_none_that_is_heavy(name: str, tmp_path: Path):
  python, *words = LIGHT[name]
  shown = start([python, '-X', 'importtime', *words], tmp_path)
  assert shown.code == 0, shown.err
  imported = set(re.findall(r'\| +([\w.]+)$', shown.err, re.MULTILINE))
  assert 'algorithmic_efficiency' in imported
  assert not imported & set(HEAVY)
  assert len(imported) < MAX_MODULES


@pytest.mark.parametrize('name', [name for name in LIGHT if LIGHT[name][:3] == CLI])
def test_light_commands_do_little_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  monkeypatch.chdir(tmp_path)
  importlib.import_module('numpy')  # commands import modules when they need them
  for verb in verbs():
    importlib.import_module(f'algorithmic_efficiency.cli.{verb}')

  def command() -> None:
    with contextlib.suppress(SystemExit):  # of help
      assert main(LIGHT[name][len(CLI) :]) == 0

  assert 0 < work.num_calls(command) < MAX_CALLS


@pytest.mark.parametrize('command', [[SCRIPT], CLI], ids=['algoeff', 'python -m'])
def test_folders_of_somebody_else_are_not_picked_up(command: list[str], decoys: Path):
  listed = start([*command, 'list', 'submissions'], decoys)
  assert listed.code == 0, listed.err
  assert re.search(r'^adamw +external', listed.out, re.MULTILINE)
  assert 'theirs' not in listed.out
  scored = start([*command, 'score', 'runs'], decoys)
  assert scored.code == 2
  assert 'of somebody else' not in scored.err
  assert 'Traceback' not in scored.err


def test_the_runner_of_algoperf_flags_is_ours_wherever_it_is_started(decoys: Path):
  pytest.importorskip('absl')
  shown = start(
    [sys.executable, '-m', 'algorithmic_efficiency.submission_runner', '--help'], decoys
  )
  assert '--submission_path' in shown.out
  assert 'Traceback' not in shown.err


@pytest.mark.parametrize('framework', PACKAGES)
def test_a_framework_that_is_not_installed_is_named_with_the_install_line(
  framework: str, tmp_path: Path
):
  env = without(framework, tmp_path)
  install = f"pip install 'algorithmic-efficiency[{EXTRAS[framework]}]'"
  flags = ['--workload', 'sides', '--framework', framework, '--path', str(STRANGER)]
  run = start([*CLI, 'run', *flags, '--submission', 'plain_sgd'], tmp_path, env)
  parameters = start([*CLI, 'list', 'parameters', 'mnist', '--framework', framework], tmp_path, env)
  for result in (run, parameters):
    assert result.code == 2, result.err
    assert install in result.err
    assert 'Traceback' not in result.err
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('framework', PACKAGES)
def test_the_core_imports_with_one_framework_alone(framework: str, tmp_path: Path):
  """Every module but the other framework's."""
  code = """
import importlib, pkgutil
import algorithmic_efficiency, scoring
for package in (algorithmic_efficiency, scoring):
  for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
    words = set(module.name.replace('_', '.').split('.'))
    if not words & {'jax', 'torch', 'pytorch', 'main', 'tensorboard'}:
      importlib.import_module(module.name)
  importlib.import_module('algorithmic_efficiency.backends.FRAMEWORK')
""".replace('FRAMEWORK', EXTRAS[framework])
  env = without(OTHER[framework], tmp_path)
  result = start([sys.executable, '-c', code], tmp_path, env)
  assert result.code == 0, result.err


@pytest.mark.slow
@pytest.mark.parametrize('framework', PACKAGES)
def test_a_workload_and_a_submission_of_a_stranger_run_end_to_end(
  framework: str, decoys: Path, tmp_path: Path
):
  """Found by folder, among decoys, on a machine that has one framework alone."""
  pytest.importorskip(EXTRAS[framework])
  root = tmp_path / 'root'
  shutil.copytree(STRANGER, root)
  env = without(OTHER[framework], tmp_path)
  listed = start([*CLI, 'list', 'workloads', '--path', str(root)], decoys, env)
  assert re.search(
    r'^sides +sides +jax, pytorch +accuracy >= 0.9 +quick$', listed.out, re.MULTILINE
  )
  result = start(
    [
      *(*CLI, 'run', '--path', str(root), '--workload', 'sides', '--submission', 'plain_sgd'),
      *('--framework', framework, '--smoke', '--seed', '1', '--experiment_dir', 'runs'),
      *('--num_threads', '1', '--quiet'),
    ],
    decoys,
    env,
  )
  assert result.code == 0, result.err
  folder = decoys / 'runs' / 'plain_sgd' / 'study_1' / f'sides_{framework}' / 'trial_1'
  record = trial_record.read_trial(folder)
  assert record is not None
  assert record.status == 'finished'
  assert (folder / 'eval_measurements.csv').read_text().count('\n') >= 3
