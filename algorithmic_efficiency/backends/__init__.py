"""The only place that says which framework. Import one of `backends.jax`, `backends.torch` by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from algorithmic_efficiency.backends.base import Backend, Devices

_MODULES = {'jax': 'jax', 'pytorch': 'torch'}
FRAMEWORKS = tuple(_MODULES)


def start(framework: str, devices: Devices) -> Backend:
  """Imports the framework and starts it on `devices`; once per process."""
  module = importlib.import_module(f'{__name__}.{_MODULES[framework]}')
  return module.start(devices)
