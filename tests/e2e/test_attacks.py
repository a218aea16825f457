"""Every attack of `attacks.py`, run for real: impossible, charged, or an invalid trial."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from attacks import ATTACKS, HONEST, Attack
from trials import record, rows, trial_folder
from warm import algoeff

README = Path(__file__).parents[1] / 'README.md'

pytestmark = pytest.mark.slow


def run(tmp_path: Path, module: str, *, smoke: bool = True) -> Path:
  """Runs a submission module and returns its trial folder."""
  file = tmp_path / 'submission.py'
  file.write_text(module)
  algoeff(
    *('run', '--workload', 'quick_vision', '--framework', 'pytorch', '--seed', 3),
    *(['--smoke'] if smoke else ['--allow_provisional', '--max_global_steps', 60]),
    *('--submission', file, '--ruleset', 'self', '--experiment_dir', tmp_path / 'runs'),
    *('--num_threads', 1, '--quiet'),
    cwd=tmp_path,
    env={'ATTACKED': str(tmp_path / 'runs')},
  )
  return trial_folder(tmp_path / 'runs')


@pytest.fixture(scope='module')
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = run(tmp_path_factory.mktemp('honest'), HONEST)
  assert record(folder).status == 'finished'
  return folder


@pytest.mark.parametrize('attack', ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, honest: Path, tmp_path: Path):
  folder = run(tmp_path, attack.module, smoke=attack.smoke)
  found = record(folder)
  if attack.outcome == 'invalid':
    assert found.status == 'invalid'
    assert attack.reason in found.reason
    assert not left_running()
  elif attack.outcome == 'impossible':
    assert found.status == 'finished'
    assert found.stop_reason == record(honest).stop_reason
    assert metrics(folder) == metrics(honest)
  elif attack.charged_to == 'steps':
    assert found.status == 'finished'
    assert found.charged_steps == 5 * found.global_step
  else:
    assert found.status == 'finished'
    assert found.buckets[attack.charged_to] >= 1.0
    assert found.submission_time_sec >= 1.0


def metrics(folder: Path) -> list[tuple[float, float, float]]:
  names = ('global_step', 'validation/accuracy', 'test/loss')
  return [tuple(row[name] for name in names) for row in rows(folder).evals]


def left_running() -> list[str]:
  """Processes that attacks have started and that nobody has ended."""
  lines = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True, check=True).stdout
  return [line for line in lines.splitlines() if 'while True: sum(range(1000))' in line]


def test_the_table_of_attacks_is_up_to_date():
  assert table() in README.read_text()


def table() -> str:
  """The attacks as a table, for the README of the tests."""
  lines = ['| attack | what it does | outcome | how |', '|---|---|---|---|']
  lines += [f'| `{a.name}` | {a.what} | {a.outcome} | {a.how} |' for a in ATTACKS]
  return '\n'.join(lines)
