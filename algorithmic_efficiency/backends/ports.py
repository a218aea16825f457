"""The ports at which the processes of a trial meet."""

from __future__ import annotations

import errno
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
    UserError: somebody else has the port, or this process may not listen there.
  """
  port = int(address.rpartition(':')[2])
  try:
    is_free = _is_free(port)
  except (OSError, OverflowError) as error:
    raise errors.UserError(
      f'The processes of the trial cannot meet at {address}: {error}. Name another MASTER_PORT.'
    ) from error
  if not is_free:
    raise errors.UserError(
      f'The processes of the trial cannot meet at {address}: another program has the port. Run the '
      'trial again; under a launcher of your own, name another MASTER_PORT.'
    )


def _is_free(port: int) -> bool:
  """
  Raises:
    OSError, OverflowError: nobody could listen there, or not this process.
  """
  family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
  with socket.socket(family) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as those that will listen there
    if family == socket.AF_INET6:
      probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
      probe.bind(('', port))
    except OSError as error:
      if error.errno != errno.EADDRINUSE:
        raise
      return False
  return True
