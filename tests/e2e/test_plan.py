"""Real probes and bursts: the steps of trials, and nothing left of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from warm import algoeff

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.experiments.race import step_cost
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch import slots
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.trial.run_options import RunOptions

pytestmark = pytest.mark.slow

MODULES = {'jax': 'jax', 'pytorch': 'torch'}
RACE = ('--suite', 'quick', '--workloads', 'quick_vision', '--ruleset', 'self', '--studies', '2')


@pytest.mark.parametrize('framework', ['jax', pytest.param('pytorch', marks=pytest.mark.long)])
def test_a_plan_is_made_of_probes_and_leaves_nothing_but_itself(framework: str, tmp_path: Path):
  pytest.importorskip(MODULES[framework])
  temporary = tmp_path / 'tmp'
  temporary.mkdir()
  flags = ('--frameworks', framework, '--allow_provisional', '--num_threads', '1', '--json')
  result = algoeff(
    *('plan', *RACE, *flags, '--submissions', 'nadamw,twin=nadamw'),
    cwd=tmp_path,
    env={'TMPDIR': str(temporary)},
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  assert found['num_runs'] == 4
  for one in found['trials']:
    assert 0.5 < one['off_clock_sec'] + 1 < one['expected_sec'] < one['at_most_sec']
  assert found['peak_memory_bytes']['host'] > 100 * 2**20
  assert found['disk_bytes']['expected'] > 4 * 10_000
  assert list(temporary.glob('algoeff*')) == []
  assert os.listdir(tmp_path / 'races' / 'quick_self') == [race_files.ESTIMATE_FILE]


@pytest.mark.parametrize('framework', [pytest.param('jax', marks=pytest.mark.long), 'pytorch'])
def test_bursts_tell_costs_and_leave_nothing_but_their_record(
  framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  pytest.importorskip(MODULES[framework])
  temporary = tmp_path / 'tmp'
  temporary.mkdir()
  monkeypatch.setenv('TMPDIR', str(temporary))
  monkeypatch.setattr('tempfile.tempdir', None)
  monkeypatch.setattr(step_cost, 'NUM_ROUNDS', 3)
  broken = tmp_path / 'broken.py'
  broken.write_text('raise ValueError("on purpose")\n')
  race = Race(
    suite='quick',
    workloads=('quick_vision',),
    entries=(
      RaceSubmission(submission='nadamw'),
      RaceSubmission(submission='nadamw', name='twin'),
      RaceSubmission(submission=str(broken)),
    ),
    frameworks=(framework,),
    ruleset='self',
    studies=1,
    options=RunOptions(allow_provisional=True),
    experiment_dir=str(tmp_path / 'runs'),
    devices=Devices(num_threads=1),
  )
  configs = expand(race)
  [slot] = slots.slots(race.devices)
  (problem,) = step_cost.measure(configs, race.folder, slot)
  assert 'broken on quick_vision' in problem and 'on purpose' in problem
  found = {one.submission: one for one in race_files.read_costs(race.folder)}
  assert set(found) == {'nadamw', 'twin'}
  for one in found.values():
    assert one.baseline == 'nadamw' and len(one.rounds) == 3
    assert abs(one.log_cost) < 1.5  # copies, on a machine that may be busy
  assert len({one.host for one in found.values()}) == 1
  assert list(temporary.glob('algoeff*')) == []
  assert {*os.listdir(race.folder)} == {race_files.COSTS_FILE, f'.{race_files.COSTS_FILE}.lock'}
