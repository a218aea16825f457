"""The image is built, says what it holds, and runs a trial without a network and without root.

`make test-container` runs this. Where there is no engine of Docker, buildah builds without
namespaces, on a base of Debian that debootstrap makes once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trials import record, rows, trial_folder

from algorithmic_efficiency.results import files

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / '.cache' / 'container' / 'base'
PROGRAMS = ('buildah', 'debootstrap', 'unshare')
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
HOST_FILES = ('/etc/ssl/certs', '/etc/pip.conf')  # by which this machine reaches its package index

pytestmark = [
  pytest.mark.long,
  pytest.mark.container,
  pytest.mark.timeout(7200),
  pytest.mark.skipif(bool(MISSING), reason=f'not installed: {", ".join(MISSING)}'),
  pytest.mark.skipif(os.getuid() != 0, reason='debootstrap needs root'),
]


class Engine:
  """buildah with a store of its own."""

  def __init__(self, folder: Path):
    self.words = ('buildah', '--root', str(folder / 'store'), '--runroot', str(folder / 'run'))
    self.environment = {**os.environ, 'BUILDAH_ISOLATION': 'chroot', 'STORAGE_DRIVER': 'vfs'}

  def __call__(self, *words: object, before: tuple[str, ...] = ()) -> str:
    result = subprocess.run(
      [*before, *self.words, *map(str, words)],
      env=self.environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout.strip()


@pytest.fixture(scope='module')
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
  folder = tmp_path_factory.mktemp('container')
  yield Engine(folder)
  shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope='module')
def base() -> Path:
  """The files of a Debian with Python; made once, as this takes minutes."""
  with files.alone(ROOT / '.cache' / 'container.lock'):
    if not BASE.is_dir():
      unfinished = BASE.with_name('unfinished')
      shutil.rmtree(unfinished, ignore_errors=True)
      unfinished.parent.mkdir(parents=True, exist_ok=True)
      packages = 'python3,python3-venv,ca-certificates'
      subprocess.run(
        ['debootstrap', '--variant=minbase', f'--include={packages}', 'bookworm', unfinished],
        check=True,
        stdout=subprocess.DEVNULL,
      )
      unfinished.rename(BASE)
  return BASE


@pytest.fixture(scope='module')
def image(engine: Engine, base: Path) -> str:
  empty = engine('from', 'scratch')
  engine('copy', empty, base, '/')
  engine('commit', '--rm', empty, 'algoeff-base')
  mounts = [f'--volume={path}:{path}:ro' for path in HOST_FILES if Path(path).exists()]
  subprocess.run(
    [
      *(ROOT / 'docker' / 'build.sh', 'cpu', 'algoeff-test', *mounts, '--layers=false'),
      *('--build-arg', 'BASE=localhost/algoeff-base', '--build-arg', 'FRAMEWORKS=jax'),
    ],
    env={**engine.environment, 'ENGINE': ' '.join((*engine.words, 'build'))},
    check=True,
  )
  return 'localhost/algoeff-test'


def test_labels_say_what_it_holds(engine: Engine, image: str):
  config = json.loads(engine('inspect', '--type', 'image', image))['OCIv1']['config']
  commit = subprocess.check_output(['git', 'rev-parse', 'HEAD'], cwd=ROOT, text=True).strip()
  labels = config['Labels']
  assert labels['org.opencontainers.image.revision'].removesuffix('-dirty') == commit
  assert len(labels['algoeff.code.sha256']) == 64 and 'jax==' in labels['algoeff.packages']
  assert config['User'] == '1000:1000'


def test_a_trial_runs_without_network_and_without_root(engine: Engine, image: str, tmp_path: Path):
  results = tmp_path / 'results'
  results.mkdir()
  os.chown(results, 1000, 1000)
  container = engine('from', image)
  engine(
    *('run', '--volume', f'{results}:/results', container, '--', '/algoeff/docker/entrypoint.sh'),
    *('run', '--workload', 'quick_vision', '--framework', 'jax', '--submission', 'nadamw'),
    *('--ruleset', 'self', '--smoke', '--experiment_dir', '/results'),
    before=('unshare', '--net'),
  )
  folder = trial_folder(results)
  assert record(folder).status == 'finished'
  assert rows(folder).evals[-1]['global_step'] == 20
  assert {path.stat().st_uid for path in results.rglob('*')} == {1000}


def test_only_results_can_be_written(engine: Engine, image: str):
  container = engine('from', image)
  written = engine(
    *('run', container, '--', 'sh', '-c'),
    'for at in /algoeff /venv /data /results /tmp; do touch $at/x 2>/dev/null && echo $at; done; :',
  )
  assert written.split() == ['/results', '/tmp']
