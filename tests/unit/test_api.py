"""The command line from Python: what its values mean, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from algorithmic_efficiency import api, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.experiments.race import race as races
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.launch import request, session
from algorithmic_efficiency.trial.config import TrialConfig


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrialConfig]:
  """The trials that would be run."""
  found: list[TrialConfig] = []
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.setattr(session, 'run_trials', lambda trials, quiet: found.extend(trials) or [])
  return found


def run(folder: Path, **options: Any) -> None:
  fields = {'framework': 'jax', 'submission': 'nadamw', 'ruleset': 'self', 'smoke': True}
  api.run('quick_vision', **{**fields, 'experiment_dir': folder, **options})


def test_flags_of_the_command_are_taken_as_they_are(started, tmp_path):
  run(tmp_path, num_threads=1, platform='cpu', stop_at='never', splits=['validation'], trials=2)
  assert len(started) == 2
  assert started[0].devices.num_threads == 1 and started[0].devices.platform == 'cpu'
  assert started[0].options.splits == ('validation',) and started[0].options.stop_at == 'never'
  assert started[0].path.is_relative_to(tmp_path)


def test_pytorch_has_a_process_for_each_device_as_under_the_command(started, tmp_path):
  run(tmp_path, framework='pytorch', platform='cpu', num_devices=2)
  assert started[0].devices.world_size == 2
  run(tmp_path, framework='pytorch', devices=Devices(num_devices=2), seed=1, experiment='other')
  assert started[1].devices.world_size == 1  # as it was given


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'trials': '3'}, "trials is '3': Expected int, got str"),
    ({'trials': 1.5}, 'trials is 1.5: Expected int, got float'),
    ({'trials': None}, 'trials is None: Expected int'),
    ({'studies': True}, 'studies is True: Expected int, got bool'),
    ({'seed': 'x'}, "seed is 'x': Expected int | null, got str"),
    ({'ruleset': 'slef'}, "ruleset is 'slef': Invalid enum value"),
    ({'experiment': 3}, 'experiment is 3: Expected str | null, got int'),
    ({'devices': 'cpu'}, "devices is 'cpu': Expected object, got str"),
    ({'submission': None}, 'submission is None: Expected str'),
    ({'trails': 3}, "There is no option 'trails'. Did you mean 'trials'?"),
    ({'max_global_steps': math.nan}, '--max_global_steps must be a whole number; it is nan'),
    ({'heartbeat_timeout_sec': math.inf}, '--heartbeat_timeout_sec must be a finite number'),
    ({'heartbeat_timeout_sec': 'x'}, '--heartbeat_timeout_sec must be a finite number'),
    ({'num_threads': 1.0}, '--num_threads must be a whole number; it is 1.0'),
    ({'num_threads': 0}, '--num_threads must be positive; it is 0'),
    ({'platform': 'cpuu'}, "Did you mean 'cpu'?"),
    ({'splits': 'validation'}, '--splits must be a tuple of names'),
    ({'smoke': 'no'}, "--smoke must be true or false; it is 'no'"),
    ({'trials': 10**30}, '--trials must be below 2^63'),
  ],
)
def test_what_is_wrong_is_the_users_mistake(options, message, started, tmp_path):
  with pytest.raises(errors.UserError) as found:
    run(tmp_path, **options)
  assert message in str(found.value)
  assert not started and not list(tmp_path.iterdir())


def race(folder: Path, **options: Any) -> None:
  fields = {'submissions': ['nadamw'], 'frameworks': ['jax'], 'ruleset': 'self'}
  api.bench('quick', **{**fields, 'smoke': True, 'experiment_dir': folder, **options})


def test_a_race_takes_flags_too(monkeypatch, tmp_path):
  asked: list[races.Race] = []
  result = race_run.RaceResult
  monkeypatch.setattr(
    race_run, 'run', lambda race, **_: asked.append(race) or result.__new__(result)
  )
  monkeypatch.setattr(api, 'Trial', None)
  with pytest.raises(AttributeError):  # there is no result
    race(tmp_path, num_threads=1, workloads=['quick_vision'])
  assert asked[0].devices == Devices(num_threads=1)
  assert asked[0].workloads == ('quick_vision',) and asked[0].options.smoke


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'submissions': [3]}, 'submissions must be a list of names; it is [3]'),
    ({'submissions': 3}, 'submissions must be a list of names; it is 3'),
    ({'frameworks': 'jax'}, "frameworks must be a list of names; it is the text 'jax'"),
    ({'submissions': ['=nadamw']}, "NAME=SUBMISSION; '=nadamw' lacks one"),
    ({'workers': '2'}, "workers is '2': Expected int | null, got str"),
    ({'workloads': 'quick_vision'}, "workloads is 'quick_vision': Expected array | null"),
    ({'full_eval_every': 0}, '--full_eval_every must be positive; it is 0'),
    ({'worker': 2}, "Did you mean 'workers'?"),
  ],
)
def test_what_is_wrong_with_a_race_is_the_users_mistake(options, message, tmp_path):
  with pytest.raises(errors.UserError) as found:
    race(tmp_path, **options)
  assert message in str(found.value)
  assert not list(tmp_path.iterdir())
