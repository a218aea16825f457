"""A race whose launcher and trials are killed again and again loses nothing and repeats nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_race
import psutil
import pytest

from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.results import measurements, trial_record

ROWS = 5
TRIAL_SEC = 0.05
SCRIPTS = {name: {'rows': ROWS, 'row_sec': TRIAL_SEC / ROWS} for name in 'abcde'}
WORKERS = 2
PATIENCE_SEC = 600


def start(folder: Path, studies: int) -> subprocess.Popen:
  changes = {'studies': studies, 'workers': WORKERS}
  command = [sys.executable, fake_race.__file__, str(folder)]
  return subprocess.Popen([*command, json.dumps(SCRIPTS), json.dumps(changes)])


def wait_for_a_start(folder: Path, number: int, launcher: subprocess.Popen) -> fake_race.Session:
  """The latest process of a trial, as soon as so many have been started."""
  end = time.monotonic() + PATIENCE_SEC
  while len(found := fake_race.sessions(folder)) < number:
    assert launcher.poll() is None, 'it was to be killed, and has ended'
    assert time.monotonic() < end
    time.sleep(0.005)
  return found[-1]


def kill_the_launcher(launcher: subprocess.Popen) -> int:
  """Kills it, waits for its trials to have gone with it, and returns their number."""
  trials = psutil.Process(launcher.pid).children()
  launcher.kill()
  launcher.wait()
  _, alive = psutil.wait_procs(trials, timeout=20)
  assert not alive, 'a killed launcher has left a trial behind'
  return len(trials)


def test_a_killed_launcher_leaves_no_trial_behind(tmp_path: Path):
  command = [sys.executable, fake_race.__file__, str(tmp_path)]
  launcher = subprocess.Popen([*command, '{"a": {"then": "hang"}}', '{"studies": 1}'])
  wait_for_a_start(tmp_path, 1, launcher)
  assert kill_the_launcher(launcher) == 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_told_to_end_says_so_in_its_records(number: signal.Signals, tmp_path: Path):
  """Regression: SIGHUP left a trial as one that runs, and all said that no step was made."""
  scripts = {'a': {'rows': ROWS, 'then': 'hang'}}
  [config] = expand(fake_race.race(tmp_path, scripts, studies=1))
  command = [sys.executable, fake_race.__file__, str(tmp_path)]
  launcher = subprocess.Popen(
    [*command, json.dumps(scripts), json.dumps({'studies': 1})],
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=functools.partial(signal.signal, number, signal.SIG_DFL),  # nohup ignores one
  )
  log = config.path / measurements.LOG_FILE
  end = time.monotonic() + PATIENCE_SEC
  while not log.exists() or log.read_text().count('"kind": "eval"') < ROWS:
    assert launcher.poll() is None and time.monotonic() < end
    time.sleep(0.005)
  time.sleep(0.3)  # the launcher has heard of the last row
  launcher.send_signal(number)
  time.sleep(0.01)
  launcher.send_signal(number)  # a closing terminal does not send it once
  _, said = launcher.communicate(timeout=60)
  assert said.splitlines()[-1] == 'KeyboardInterrupt'  # which the command line puts in words
  record = trial_record.read_trial(config.path)
  assert record is not None
  assert (record.status, record.stop_reason) == ('failed', 'interrupted')
  assert record.global_step == 5


def test_one_that_ignores_a_signal_goes_on(tmp_path: Path):
  """`nohup` has SIGHUP ignored."""
  command = [sys.executable, fake_race.__file__, str(tmp_path)]
  arguments = [json.dumps({'a': {'rows': 5, 'row_sec': 0.2}}), json.dumps({'studies': 1})]
  launcher = subprocess.Popen(['nohup', *command, *arguments], stdout=subprocess.DEVNULL)
  wait_for_a_start(tmp_path, 1, launcher)
  launcher.send_signal(signal.SIGHUP)
  assert launcher.wait(timeout=PATIENCE_SEC) == 0


@pytest.mark.parametrize(
  ('studies', 'num_kills'),
  [
    pytest.param(4, 4, marks=pytest.mark.slow),
    pytest.param(200, 10, marks=pytest.mark.long),
  ],
)
def test_none_lost_and_none_repeated(studies: int, num_kills: int, tmp_path: Path):
  generator = random.Random(7)
  configs = expand(fake_race.race(tmp_path, SCRIPTS, studies=studies))
  cuts = 0
  killed = set()  # trials; what is killed twice in a row is given up, as if for its memory
  launcher = start(tmp_path, studies)
  for number in range(num_kills):
    begun = len(fake_race.sessions(tmp_path))
    latest = wait_for_a_start(
      tmp_path, max(begun, len(configs) * number // num_kills) + 1, launcher
    )
    time.sleep(generator.uniform(0, TRIAL_SEC))
    if number % 2 and latest.trial not in killed:
      with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(latest.pid, signal.SIGKILL)
      killed.add(latest.trial)
      cuts += 1
    else:
      kill_the_launcher(launcher)
      cuts += WORKERS
      launcher = start(tmp_path, studies)
  launcher.wait(timeout=PATIENCE_SEC)
  last = start(tmp_path, studies)
  assert last.wait(timeout=PATIENCE_SEC) == 0

  assert len(configs) == len(SCRIPTS) * studies
  for config in configs:
    record = trial_record.read_trial(config.path)
    assert record is not None
    assert record.status == 'finished'
    rows = measurements.read(config.path)
    assert [row['global_step'] for row in rows.evals] == list(range(1, ROWS + 1))
    assert rows.end is not None
    assert rows.problems == []
    log = (config.path / measurements.LOG_FILE).read_text()
    assert log.count('"kind": "eval"') == ROWS, 'a row was made twice'
  assert len(configs) < len(fake_race.sessions(tmp_path)) <= len(configs) + cuts
