"""Where the processes of a trial meet."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends import ports
from algorithmic_efficiency.errors import UserError

needs_linux = pytest.mark.skipif(
  sys.platform != 'linux', reason='elsewhere systems may let two listen at a port'
)
HOSTS = ['127.0.0.1', *(['::1'] if socket.has_dualstack_ipv6() else [])]


@pytest.fixture(params=HOSTS)
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
  """A port at which somebody listens, and answers nobody."""
  family = socket.AF_INET6 if ':' in request.param else socket.AF_INET
  with socket.socket(family) as listener:
    listener.bind((request.param, 0))
    listener.listen()
    yield listener.getsockname()[1]


def test_a_free_port_can_be_listened_at():
  with socket.socket() as listener:
    listener.bind(('', ports.free_port()))
    listener.listen()


def test_a_free_port_is_not_given_to_whoever_asks_for_any():
  """Regression: a connection of another process had it before rank 0 listened there."""
  setting = Path('/proc/sys/net/ipv4/ip_local_port_range')
  if not setting.exists() or setting.read_text().split()[0] != '32768':
    pytest.skip('this system gives other ports than most do')
  assert ports.free_port() < 32768


@needs_linux
def test_ports_that_are_taken_are_passed_over(taken, monkeypatch):
  monkeypatch.setattr(ports, '_PORTS', range(taken, taken + 1))
  with pytest.raises(UserError, match='None of 100 ports'):
    ports.free_port()


@pytest.mark.parametrize('port', [65_536, 70_000])
def test_what_is_no_port_is_a_user_error(port):
  with pytest.raises(UserError, match=f'cannot meet at localhost:{port}: .*port must be 0-65535'):
    ports.require_free(f'localhost:{port}')


def test_a_port_that_this_process_may_not_have_is_a_user_error(monkeypatch):
  def bind(self, address):
    raise PermissionError(errno.EACCES, 'Permission denied')

  monkeypatch.setattr(socket, 'socket', type('Socket', (socket.socket,), {'bind': bind}))
  with pytest.raises(UserError, match=r'cannot meet at localhost:80: .*Permission denied'):
    ports.require_free('localhost:80')


@needs_linux
@pytest.mark.parametrize('framework', backends.FRAMEWORKS)
def test_a_taken_address_is_a_user_error(framework, taken):
  """Regression: PyTorch asked the stranger for a store, and waited without end; JAX crashed."""
  pytest.importorskip({'jax': 'jax', 'pytorch': 'torch'}[framework])
  code = f"""
from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
try:
  backends.start({framework!r}, Devices(platform='cpu', world_size=2, address='127.0.0.1:{taken}'))
except errors.UserError as error:
  print(error)
"""
  command = [sys.executable, '-c', code]
  printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
  assert f'127.0.0.1:{taken}: another program has the port' in printed
