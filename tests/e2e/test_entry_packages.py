"""Real trials that are packed, verified, and run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import entry_runs
import pytest
import trials
from entry_package import Package
from warm import algoeff

from tests import compiler

TIMEOUT_SEC = 1_200  # of a command: five trials on a busy machine
SUITE = entry_runs.SUITE
FRAMEWORKS = {'jax': 'flax', 'pytorch': 'torch'}
# Another instruction set of the CPU, as another machine would have it.
OTHER_CPU = {
  'jax': {'XLA_FLAGS': f'{compiler.QUICK_FLAGS} --xla_cpu_max_isa=SSE4_2'},
  'pytorch': {'ATEN_CPU_CAPABILITY': 'default'},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * TIMEOUT_SEC)]


def packed(folder: Path, framework: str) -> Path:
  """The package of a trial that ran here."""
  pytest.importorskip(FRAMEWORKS[framework])
  pytest.importorskip('sklearn')
  run = algoeff(
    *('run', '--workload', 'quick_vision', '--framework', framework, '--submission', 'adamw'),
    *('--suite', SUITE, '--seed', 3, '--num_threads', 1, '--quiet', '--no-save_checkpoints'),
    cwd=folder,
  )
  assert run.returncode == 0, run.stderr
  done = algoeff('pack', 'adamw', 'runs', '-o', 'entry.zip', '--partial', cwd=folder)
  assert done.returncode == 0, done.stderr
  return folder / 'entry.zip'


def verified(package: Path, steps: int, framework: str, **env: str) -> dict[str, Any]:
  """The report of a replay; trials are missing, so that the entry as a whole is doubtful."""
  trial = f'study_1/quick_vision_{framework}/trial_1'
  verify = ('verify', package, '--suite', SUITE, '--replay', steps, '--trial', trial, '--json')
  if env:  # it is read when a framework is imported
    done = trials.algoeff(*verify, cwd=package.parent, env=env, timeout=TIMEOUT_SEC)
  else:
    done = algoeff(*verify, cwd=package.parent)
  assert done.returncode == 1, done.stderr
  report = json.loads(done.stdout)
  others = {name: how for name, how in report['checks'].items() if how not in ('pass', 'note')}
  assert others.pop('trials') == 'doubtful'
  assert others.keys() <= {'replay'}
  return report


def test_a_real_trial_runs_again_to_the_last_bit(tmp_path: Path):
  report = verified(packed(tmp_path, 'jax'), 15, 'jax')
  assert report['checks']['replay'] == 'note' and report['replay']['is_equal']
  assert report['replay']['steps'] == [1, 15]


def test_losses_that_the_trial_does_not_give_are_refused(tmp_path: Path):
  package = Package.read(packed(tmp_path, 'pytorch'))

  def lower(records: list[dict[str, Any]]) -> None:
    for record in records:
      if record['kind'] == 'eval':
        record['row']['validation/loss'] *= 0.98

  package.log('runs/adamw/study_1/quick_vision_pytorch/trial_1', lower)
  report = verified(package.write(tmp_path / 'changed.zip'), 15, 'pytorch')
  assert report['verdict'] == 'refused'
  assert [one['metric'] for one in report['replay']['losses'] if one['num_inside'] == 0] == [
    'validation/loss'
  ]


@pytest.mark.long
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_a_whole_trial_on_another_cpu_is_among_its_replays(framework: str, tmp_path: Path):
  package = packed(tmp_path, framework)
  report = verified(package, 150, framework, **OTHER_CPU[framework])
  assert report['checks']['replay'] == 'note', report['findings']
  assert not report['replay']['is_equal']


@pytest.mark.long
def test_the_review_of_organizers_runs_a_submission(tmp_path: Path):
  pytest.importorskip('flax')
  pytest.importorskip('sklearn')
  entry_runs.write_code(tmp_path / 'mine')
  (tmp_path / 'mine' / 'submission_pytorch.py').unlink()
  script = Path(__file__).parents[2] / 'organizers' / 'review_entry.py'
  options = ('--workloads', 'quick_vision', '--output', 'comment.md')
  done = subprocess.run(
    [sys.executable, script, 'mine', *options],
    cwd=tmp_path,
    env={**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'},
    timeout=TIMEOUT_SEC,
    check=False,
  )
  comment = (tmp_path / 'comment.md').read_text()
  assert done.returncode == 0, comment
  assert '| `mine` | pack | passed |' in comment
