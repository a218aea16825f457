"""The supervisor of a trial's processes: what it hears, when it gives up, what it leaves behind."""

from __future__ import annotations

import selectors
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_local_launch import config

from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import ranks
from algorithmic_efficiency.launch.ranks import Ranks, rank_configs
from algorithmic_efficiency.trial import messages

HEAD = """
import json, os, subprocess, sys, time
def begin():
  os.write(int(sys.argv[1]), b'{"kind": "begin"}' + bytes([10]))
config = json.loads(sys.stdin.readline())
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  """Processes that run this code; it has `begin()`, which sends a message, and the config."""
  monkeypatch.setattr(ranks, 'GRACE_SEC', 5.0)

  def start(
    code: str,
    *,
    world_size: int = 1,
    heartbeat_timeout_sec: float = 60.0,
    environment: dict[str, str] | None = None,
    **options: Any,
  ) -> Ranks:
    devices = Devices(platform='cpu', world_size=world_size)
    trial = config(tmp_path, heartbeat_timeout_sec=heartbeat_timeout_sec, devices=devices)
    return Ranks(
      rank_configs(trial),
      (sys.executable, '-c', HEAD + code),
      environment=environment or {},
      output_folder=tmp_path,
      **options,
    )

  return start


def heard_until_hung_up(group: Ranks) -> list[ranks.Heard]:
  heard = []
  while not all(rank.hung_up for rank in group):
    heard += group.hear()
  return heard


def is_alive(number: int) -> bool:
  try:
    return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def assert_ends(number: int) -> None:
  """A process that was killed takes a moment to end; one that was not takes a minute."""
  end = time.monotonic() + 10
  while is_alive(number):
    assert time.monotonic() < end
    time.sleep(0.01)


def test_each_process_gets_its_own_config_and_prints_to_its_own_file(start, tmp_path):
  code = 'print(config["devices"]["rank"], os.environ["OWN"]); begin()'
  with start(code, world_size=2, environment={'OWN': 'mine'}) as group:
    heard = heard_until_hung_up(group)
  assert sorted(one.rank.index for one in heard) == [0, 1]
  assert {type(one.message) for one in heard} == {messages.Begin}
  assert (tmp_path / 'output.txt').read_text() == '0 mine\n'
  assert (tmp_path / 'output_rank1.txt').read_text() == '1 mine\n'


def test_exit_codes_are_those_from_before_it_was_ended(start):
  code = 'sys.exit(3) if config["devices"]["rank"] else time.sleep(60)'
  with start(code, world_size=2) as group:
    first, second = group
    while not second.hung_up:
      group.hear()
  assert (first.exit_code, second.exit_code) == (None, 3)
  assert first.poll() == -9


class TestSilence:
  @pytest.mark.parametrize(('pause', 'is_silent'), [(0.1, False), (30.0, True)])
  def test_is_counted_from_the_last_word(self, pause, is_silent, start):
    code = f'for _ in range(15): begin(); time.sleep({pause})'
    with start(code, heartbeat_timeout_sec=1.2) as group:
      group.expect()
      begin = time.monotonic()
      while not group.are_silent and not all(rank.hung_up for rank in group):
        group.hear()
      assert group.are_silent == is_silent
      assert time.monotonic() - begin > 1.2

  def test_one_of_several_that_speaks_is_enough(self, start):
    code = 'begin()\nif config["devices"]["rank"]: time.sleep(60)\nfor _ in range(8): begin(); '
    with start(code + 'time.sleep(0.2)', world_size=2, heartbeat_timeout_sec=1.2) as group:
      first, _ = group
      while not first.hung_up:
        group.hear()
        assert not group.are_silent

  def test_is_not_that_of_a_launcher_that_was_held_up(self, start, monkeypatch):
    """A launcher that was stopped finds that time has passed, and messages that have come."""
    with start('begin(); time.sleep(60)', heartbeat_timeout_sec=0.5) as group:
      select = selectors.DefaultSelector.select
      stalls = [1.5]

      def slowly(selector, timeout):
        if stalls:
          time.sleep(stalls.pop())
          return []
        return select(selector, timeout)

      monkeypatch.setattr(selectors.DefaultSelector, 'select', slowly)
      assert len(group.hear()) == 1
      assert not group.are_silent


def test_what_is_garbled_is_said_of_its_process_alone_which_is_heard_no_more(start):
  code = (
    'if config["devices"]["rank"]: os.write(int(sys.argv[1]), b"not ours" + bytes([10]))\n'
    'time.sleep(0.3); begin()'
  )
  with start(code, world_size=2) as group:
    first, second = group
    heard = []
    while not first.hung_up:
      heard += group.hear()
  assert [one.rank for one in heard] == [first]
  assert first.garbled is None and 'not ours' in second.garbled


def test_an_interrupt_is_raised_where_messages_are_awaited(start):
  canceled = threading.Event()
  with start('time.sleep(60)', canceled=canceled) as group:
    assert group.hear() == []
    canceled.set()
    with pytest.raises(KeyboardInterrupt):
      group.hear()


class TestEnd:
  CHILD = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], {})'

  @pytest.mark.parametrize('options', ['', 'start_new_session=True'])
  def test_what_a_process_has_started_ends_with_it(self, options, start, tmp_path):
    child = self.CHILD.format(options)
    code = (
      f'open({str(tmp_path / "child")!r}, "w").write(str({child}.pid)); begin(); time.sleep(60)'
    )
    with start(code) as group:
      while not group.hear():
        pass
      number = int((tmp_path / 'child').read_text())
      assert is_alive(number)
    assert_ends(number)

  def test_what_is_in_the_group_of_one_that_has_ended_ends_too(self, start, tmp_path):
    child = self.CHILD.format('')
    with start(f'open({str(tmp_path / "child")!r}, "w").write(str({child}.pid))') as group:
      heard_until_hung_up(group)
      number = int((tmp_path / 'child').read_text())
      assert is_alive(number)
    assert_ends(number)

  def test_one_that_was_let_go_may_end_by_itself(self, start, tmp_path):
    code = f'sys.stdin.read(); time.sleep(0.5); open({str(tmp_path / "done")!r}, "w")'
    with start(code) as group:
      group.end(grace_sec=20.0)
    assert (tmp_path / 'done').exists()

  def test_without_grace_it_is_ended_at_once(self, start, tmp_path):
    code = f'sys.stdin.read(); time.sleep(5); open({str(tmp_path / "done")!r}, "w")'
    with start(code):
      pass
    assert not (tmp_path / 'done').exists()

  def test_each_may_show_where_it_stands(self, start, tmp_path):
    code = 'import faulthandler; faulthandler.enable()\ndef hang(): begin(); time.sleep(60)\nhang()'
    with start(code) as group:
      while not group.hear():
        pass
      group.end(show_stacks=True)
    assert 'in hang' in (tmp_path / 'output.txt').read_text()

  def test_one_that_started_ends_if_another_cannot(self, start, monkeypatch):
    spawned = []
    spawn = ranks._spawn

    def once(*arguments):
      if spawned:
        raise OSError('no more processes')
      spawned.append(spawn(*arguments))
      return spawned[0]

    monkeypatch.setattr(ranks, '_spawn', once)
    with pytest.raises(OSError, match='no more processes'), start('time.sleep(60)', world_size=2):
      pass
    assert spawned[0][0].poll() == -9
