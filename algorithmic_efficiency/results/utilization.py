"""Measures how busy the machine is, under the names that AlgoPerf writes.

NVIDIA's management library is optional: without it there is nothing about GPUs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_MIB = 2**20


def snapshot() -> dict[str, float | int]:
  """CPU, memory, disk, network and GPUs now; memory of GPUs in MiB, loads from 0 to 1."""
  return {**_host(), **_gpus()}


def gpu_names() -> list[str]:
  """The model names of the NVIDIA GPUs; empty where there is none, or no way to ask."""
  with _nvml() as nvml:
    return [nvml.nvmlDeviceGetName(handle) for handle in _handles(nvml)] if nvml else []


def _host() -> dict[str, float | int]:
  import psutil

  memory = psutil.virtual_memory()
  found: dict[str, float | int] = {
    'cpu.util.avg_percent_since_last': psutil.cpu_percent(interval=None),
    'mem.total': memory.total,
    'mem.available': memory.available,
    'mem.used': memory.used,
    'mem.percent_used': memory.percent,
  }
  frequency, disk, network = psutil.cpu_freq(), psutil.disk_io_counters(), psutil.net_io_counters()
  if frequency:
    found['cpu.freq.current'] = frequency.current
  if disk:
    found['mem.read_bytes_since_boot'] = disk.read_bytes
    found['mem.write_bytes_since_boot'] = disk.write_bytes
  if network:
    found['net.bytes_sent_since_boot'] = network.bytes_sent
    found['net.bytes_recv_since_boot'] = network.bytes_recv
  return found


def _gpus() -> dict[str, float | int]:
  with _nvml() as nvml:
    gpus = [_gpu(nvml, handle) for handle in _handles(nvml)] if nvml else []
  if not gpus:
    return {}
  found: dict[str, float | int] = {'gpu.count': len(gpus)}
  for index, gpu in enumerate(gpus):
    found |= {f'gpu.{index}.{name}': value for name, value in gpu.items()}
  for name in gpus[0]:
    values = [gpu[name] for gpu in gpus if name in gpu]
    found[f'gpu.avg.{name}'] = sum(values) / len(values)
  return found


def _gpu(nvml: Any, handle: Any) -> dict[str, float]:
  found: dict[str, float] = {}
  with contextlib.suppress(nvml.NVMLError):  # some devices do not answer some questions
    found['compute.util'] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
  with contextlib.suppress(nvml.NVMLError):
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    found['mem.util'] = memory.used / memory.total
    found['mem.total'] = memory.total / _MIB
    found['mem.used'] = memory.used / _MIB
    found['mem.free'] = memory.free / _MIB
  with contextlib.suppress(nvml.NVMLError):
    found['temp.current'] = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
  return found


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
  """NVIDIA's management library, started; None where it or the driver is missing."""
  try:
    import pynvml
  except ImportError:
    yield None
    return
  try:
    pynvml.nvmlInit()
  except pynvml.NVMLError:
    yield None
    return
  try:
    yield pynvml
  finally:
    pynvml.nvmlShutdown()


def _handles(nvml: Any) -> list[Any]:
  return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
