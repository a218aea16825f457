"""Chooses the TCP port at which the processes of a trial meet."""

from __future__ import annotations

import errno
import random
import socket

from algorithmic_efficiency import errors

# Below the range from which usual systems serve requests for any port: such a port may be taken in
# the seconds before the first process listens.
_PORTS = range(20_000, 32_000)
_MAX_TRIES = 100


def free_port() -> int:
  """Finds a TCP port at which nobody listens on this host, and which nobody is likely to take.

  Raises:
    UserError: no port of many is free.
  """
  draws = random.SystemRandom()  # tests and submissions set the state of the common one
  for port in (draws.choice(_PORTS) for _ in range(_MAX_TRIES)):
    if _is_free(port):
      return port
  raise errors.UserError(
    f'None of {_MAX_TRIES} ports between {_PORTS.start} and {_PORTS.stop} is free for the '
    'processes of a trial to meet at. End the programs that hold them.'
  )


def require_free(address: str) -> None:
  """Makes sure that this process can listen at an address.

  Args:
    address: host:port.

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
  """Tells whether nobody has a port.

  Raises:
    OSError, OverflowError: this process cannot listen there.
  """
  family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
  with socket.socket(family) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the listeners will do
    if family == socket.AF_INET6:
      probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
      probe.bind(('', port))
    except OSError as error:
      if error.errno != errno.EADDRINUSE:
        raise
      return False
  return True
