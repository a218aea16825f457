"""Divides this machine into slots: equal shares of its devices, each for one trial at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from algorithmic_efficiency import backends, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.results.environment import bound_cpus, num_usable_cpus


@dataclass(frozen=True, kw_only=True)
class Slot:
  """A share of the machine, for one trial at a time.

  Attributes:
    cpus: numbers of the CPUs that its processes are bound to; empty binds them to none.
    gpus: GPUs that its processes see, in the form of CUDA_VISIBLE_DEVICES; empty shows them all.
    num_threads: host threads of a trial that asks for no number, divided among its processes. None
      leaves the choice to the framework.
  """

  cpus: tuple[int, ...] = ()
  gpus: tuple[str, ...] = ()
  num_threads: int | None = None

  def bind(self) -> None:
    """Binds the calling thread and the processes that it will start to the CPUs of the slot.

    Systems that cannot bind threads (macOS) leave them free.
    """
    if self.cpus and hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(0, self.cpus)

  def environment(self) -> dict[str, str]:
    """Gives the environment variables that its processes need."""
    return {'CUDA_VISIBLE_DEVICES': ','.join(self.gpus)} if self.gpus else {}

  def devices(self, asked: Devices, framework: str) -> Devices:
    """Gives the devices that were asked for, with the slot's processes and host threads."""
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
  """Divides the machine: one slot for each group of GPUs that a trial needs, or one for all CPUs.

  Args:
    asked: the devices of one trial.
    num_workers: the number of slots, if it is given; each gets equally many CPUs of its own.

  Raises:
    UserError: there are too few devices.
  """
  if num_workers is not None and num_workers <= 0:
    raise errors.UserError(
      f'--workers must be positive; it is {num_workers}. Leave it out for one trial at a time.'
    )
  gpus = backends.visible_gpus() if asked.platform in ('auto', 'gpu') else ()
  if asked.platform == 'gpu' and not gpus:
    raise errors.UserError(
      '--platform gpu needs a GPU, and this machine shows no GPU. Use --platform cpu, or check the '
      'driver and CUDA_VISIBLE_DEVICES.'
    )
  groups = _gpu_groups(gpus, asked.num_devices, num_workers) if gpus else ()
  number = num_workers or len(groups) or 1
  if number == 1:  # a single slot is the whole machine, and binds nothing
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
  """Gives the CPUs of each of several slots."""
  share = int(num_usable_cpus()) // number
  if share < (num_threads or 1):
    raise errors.UserError(
      f'{number} trials at a time with {num_threads or 1} thread(s) each need '
      f'{number * (num_threads or 1)} CPUs; this machine lends {num_usable_cpus():g}. Ask for '
      'fewer with --workers or --num_threads.'
    )
  cpus = bound_cpus()
  return [tuple(cpus[index * share : (index + 1) * share]) for index in range(number)]
