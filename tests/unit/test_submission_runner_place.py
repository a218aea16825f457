"""Where a process finds itself that torchrun, or another launcher of its kind, has started."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from algorithmic_efficiency import submission_runner
from algorithmic_efficiency.backends.base import Devices


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
  flags = {'framework': 'pytorch', 'platform': 'cpu', 'num_devices': None, 'num_threads': None}
  monkeypatch.setattr(submission_runner, 'FLAGS', SimpleNamespace(**flags, torch_compile=True))
  place = {'RANK': '3', 'LOCAL_RANK': '1', 'WORLD_SIZE': '4'}
  for name, value in {**place, 'MASTER_ADDR': 'first', 'MASTER_PORT': '29500'}.items():
    monkeypatch.setenv(name, value)


def test_messages_speak_the_flags_of_this_command(capsys):
  message = (
    'Continue it with --resume, replace it with --overwrite, or choose another --experiment; '
    '--ruleset self takes no search space, drop --tuning_search_space or --trials.'
  )
  assert submission_runner._mistake(message) == 2
  assert capsys.readouterr().err == (
    'submission_runner: Continue it with --resume_last_run, replace it with --overwrite, or choose '
    'another --experiment_name; --tuning_ruleset self takes no search space, drop '
    '--tuning_search_space or --num_tuning_trials.\n'
  )


@pytest.mark.parametrize(
  ('says', 'store'), [('True', 'first:29500'), ('False', ''), (None, '')], ids=str
)
def test_the_store_of_the_launcher_is_joined_where_it_keeps_one(says, store, monkeypatch):
  monkeypatch.delenv('TORCHELASTIC_USE_AGENT_STORE', raising=False)
  if says is not None:
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', says)
  assert submission_runner._devices() == Devices(
    platform='cpu', rank=3, world_size=4, local_rank=1, address='first:29500', store=store
  )
