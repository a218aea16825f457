"""The container's scripts, as far as they run without a container."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

import algorithmic_efficiency

DOCKER = Path(__file__).resolve().parents[2] / 'docker'


def test_the_entry_point_passes_everything_on_and_returns_the_exit_code(tmp_path: Path):
  fake = tmp_path / 'algoeff'
  fake.write_text('#!/usr/bin/env bash\nprintf "<%s>" "$@"\nexit 7\n')
  fake.chmod(0o755)
  result = subprocess.run(
    [DOCKER / 'entrypoint.sh', 'run', '--experiment', 'two words', '*'],
    env={**os.environ, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.stdout == '<run><--experiment><two words><*>'
  assert result.returncode == 7


@pytest.mark.parametrize('wrong', ['cobol', '', 'jax,', 'jax torch'])
def test_the_installation_refuses_what_it_does_not_know(wrong: str):
  result = subprocess.run([DOCKER / 'install.sh', wrong], capture_output=True, text=True)
  assert result.returncode == 2
  assert 'FRAMEWORKS must be' in result.stderr and f"'{wrong}'" in result.stderr


def test_each_stage_installs_extras_of_the_project_and_leaves_root():
  stages = re.split(r'^FROM ', (DOCKER / 'Dockerfile').read_text(), flags=re.M)[1:]
  assert [stage.split()[2] for stage in stages] == ['code', 'cpu', 'jax-gpu', 'torch-gpu', 'tpu']
  for stage in stages[1:]:
    assert 'docker/install.sh' in stage
    assert stage.index('docker/install.sh') < stage.index('USER 1000:1000')


class TestBuild:
  @pytest.fixture
  def told(self, tmp_path: Path) -> dict[str, str]:
    """What the build tells an engine, as build arguments; the engine looks at its context."""
    engine = tmp_path / 'engine'
    engine.write_text(
      '#!/usr/bin/env bash\nprintf "%s\\n" "$@"\ncd "${@: -1}" && docker/checksum.sh && ls -A\n'
    )
    engine.chmod(0o755)
    result = subprocess.run(
      [DOCKER / 'build.sh', 'cpu', 'a:tag', '--build-arg', 'BASE=own'],
      env={**os.environ, 'ENGINE': str(engine)},
      capture_output=True,
      text=True,
      check=True,
    )
    arguments, self.seen = result.stdout.split('BASE=own\n')
    assert arguments.startswith('--target\ncpu\n--tag\na:tag\n')
    return dict(line.split('=', 1) for line in arguments.splitlines() if '=' in line)

  def test_the_labels_say_what_the_image_holds(self, told: dict[str, str]):
    commit = subprocess.check_output(['git', 'rev-parse', 'HEAD'], cwd=DOCKER, text=True).strip()
    assert told['COMMIT'].removesuffix('-dirty') == commit
    constraints = (DOCKER.parent / 'constraints.txt').read_bytes()
    assert told['CONSTRAINTS_SHA256'] == hashlib.sha256(constraints).hexdigest()
    assert 'torch==' in told['PACKAGES'] and 'jax==' in told['PACKAGES']
    assert told['VERSION'] == algorithmic_efficiency.__version__

  def test_the_context_is_what_git_tracks_and_its_checksum_is_checked(self, told: dict[str, str]):
    _, checksum, *names = self.seen.splitlines()
    assert checksum == told['CODE_SHA256']
    assert 'pyproject.toml' in names and '.git' not in names and '.cache' not in names

  def test_a_changed_file_changes_the_checksum(self, tmp_path: Path):
    def checksum() -> str:
      return subprocess.check_output([DOCKER / 'checksum.sh'], cwd=tmp_path, text=True)

    (tmp_path / 'a').write_text('1')
    first = checksum()
    (tmp_path / 'a').write_text('2')
    second = checksum()
    (tmp_path / 'a').rename(tmp_path / 'b')
    assert len({first, second, checksum()}) == 3

  def test_a_build_without_a_stage_says_how(self):
    result = subprocess.run([DOCKER / 'build.sh'], capture_output=True, text=True)
    assert result.returncode == 2 and 'usage: docker/build.sh' in result.stderr
