"""The only place that says which framework; each backend is imported when it is used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from algorithmic_efficiency.backends.base import Backend, Devices

_MODULES = {'jax': 'jax', 'pytorch': 'torch'}
FRAMEWORKS = tuple(_MODULES)


def module(framework: str) -> ModuleType:
  """The backend of a framework: `start(devices)` and `parameters(definition, task_code)`."""
  return importlib.import_module(f'{__name__}.{_MODULES[framework]}')


def start(framework: str, devices: Devices) -> Backend:
  """Imports the framework and starts it on `devices`; once per process."""
  return module(framework).start(devices)
