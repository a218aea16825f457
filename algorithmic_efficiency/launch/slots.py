"""The slots of this machine: equal shares of its devices, each for one trial at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.results.environment import bound_cpus, num_usable_cpus


@dataclass(frozen=True, kw_only=True)
class Slot:
  """Where one trial runs at a time.

  Attributes:
    cpus: the CPUs that its processes are bound to; empty leaves them all.
    gpus: the GPUs that its processes see, as CUDA_VISIBLE_DEVICES has them; empty leaves them all.
    num_threads: the host threads of a trial that asks for no number, divided among its processes;
      None leaves the framework's own choice.
  """

  cpus: tuple[int, ...] = ()
  gpus: tuple[str, ...] = ()
  num_threads: int | None = None

  def bind(self) -> None:
    """Binds the calling thread, and every process that it starts from now on, to the CPUs, where
    the system lets us."""
    if self.cpus and hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(0, self.cpus)

  def environment(self) -> dict[str, str]:
    """The environment variables that its processes need."""
    return {'CUDA_VISIBLE_DEVICES': ','.join(self.gpus)} if self.gpus else {}

  def devices(self, asked: Devices, framework: str) -> Devices:
    """The devices of a trial in this slot: those asked for, with its share of host threads."""
    world_size = backends.num_processes(
      framework,
      platform=asked.platform,
      num_devices=asked.num_devices or len(self.gpus) or None,
      num_processes=None,
    )
    threads = asked.num_threads
    if threads is None and self.num_threads is not None:
      threads = max(1, self.num_threads // world_size)
    return replace(asked, world_size=world_size, num_threads=threads)


def slots(asked: Devices, num_workers: int | None = None) -> tuple[Slot, ...]:
  """Divides the machine: on GPUs a slot for each group that a trial needs, on CPUs one slot.

  Args:
    asked: the devices of one trial.
    num_workers: how many slots there shall be; each gets its own CPUs, and as many as the others.

  Raises:
    UserError: there are too few devices.
  """
  if num_workers is not None and num_workers <= 0:
    raise errors.UserError(f'--workers must be positive; it is {num_workers}.')
  gpus = backends.visible_gpus() if asked.platform in ('auto', 'gpu') else ()
  if asked.platform == 'gpu' and not gpus:
    raise errors.UserError('The platform gpu was asked for, but this machine shows no GPU.')
  groups = _gpu_groups(gpus, asked.num_devices, num_workers) if gpus else ()
  number = num_workers or len(groups) or 1
  if number == 1:  # it has the machine for itself, and is bound to nothing less
    return (Slot(num_threads=None if gpus else max(1, int(num_usable_cpus()))),)
  shares = _cpu_shares(number, asked.num_threads)
  return tuple(
    Slot(cpus=cpus, gpus=groups[index] if groups else (), num_threads=len(cpus))
    for index, cpus in enumerate(shares)
  )


def _gpu_groups(
  gpus: tuple[str, ...], num_devices: int | None, num_workers: int | None
) -> tuple[tuple[str, ...], ...]:
  size = num_devices or max(1, len(gpus) // (num_workers or 1))
  number = len(gpus) // size
  if number < (num_workers or 1):
    raise errors.UserError(
      f'{num_workers or 1} trials at a time on {size} GPU(s) each need '
      f'{(num_workers or 1) * size}; this machine shows {len(gpus)}. Ask for fewer with --workers '
      'or --num_devices.'
    )
  return tuple(gpus[index * size : (index + 1) * size] for index in range(number))


def _cpu_shares(number: int, num_threads: int | None) -> list[tuple[int, ...]]:
  """The CPUs of each of several slots."""
  share = int(num_usable_cpus()) // number
  if share < (num_threads or 1):
    raise errors.UserError(
      f'{number} trials at a time with {num_threads or 1} thread(s) each need '
      f'{number * (num_threads or 1)} CPUs; this machine lends {num_usable_cpus():g}. Ask for '
      'fewer with --workers or --num_threads.'
    )
  cpus = bound_cpus()
  return [tuple(cpus[index * share : (index + 1) * share]) for index in range(number)]
