"""The ports at which the processes of a trial meet."""

from __future__ import annotations

import random
import socket

from algorithmic_efficiency import errors

# Below what the usual systems give to whoever asks for any port: one of those may be gone by the
# time at which the first process listens, seconds after it was chosen.
_PORTS = range(20_000, 32_000)
_MAX_TRIES = 100


def free_port() -> int:
  """A TCP port at which nobody listens on this host, and which nobody is likely to take."""
  draws = random.SystemRandom()  # tests and entries set the state of the common one
  for port in (draws.choice(_PORTS) for _ in range(_MAX_TRIES)):
    if _is_free(port):
      return port
  raise errors.UserError(
    f'None of {_MAX_TRIES} ports between {_PORTS.start} and {_PORTS.stop} is free for the '
    'processes of a trial to meet at. End what holds them.'
  )


def require_free(address: str) -> None:
  """
  Args:
    address: host:port at which this process is about to listen.

  Raises:
    UserError: somebody else has the port.
  """
  if not _is_free(int(address.rpartition(':')[2])):
    raise errors.UserError(
      f'The processes of the trial cannot meet at {address}: another program has the port. Run the '
      'trial again; under a launcher of your own, name another MASTER_PORT.'
    )


def _is_free(port: int) -> bool:
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as those that will listen there
    try:
      probe.bind(('', port))
    except OSError:
      return False
  return True
