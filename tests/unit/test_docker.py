"""The container's scripts, as far as they run without a container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

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


@pytest.mark.parametrize('wrong', ['ACCELERATOR', 'FRAMEWORK'])
def test_the_installation_refuses_what_it_does_not_know(wrong: str):
  choices = {'ACCELERATOR': 'cpu', 'FRAMEWORK': 'both', 'TORCH_INDEX': '', wrong: 'cobol'}
  result = subprocess.run(
    [DOCKER / 'install.sh'],
    env={**os.environ, **choices},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 2
  assert f'{wrong} must be' in result.stderr and "'cobol'" in result.stderr
