"""The training loss of every task at smoke size, without dropout, on fixed batches in float64."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from initial_values import without_zeros

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import trees
from algorithmic_efficiency.spec import ForwardPassMode
from tests.cost_of_tasks import is_large, slow_if_large

MODULES = {'jax': 'jax', 'pytorch': 'torch'}


@dataclass(frozen=True, kw_only=True)
class Case:
  """A workload in one framework, with its initial parameters."""

  definition: WorkloadDefinition
  framework: str
  backend: Any
  task: TaskCode
  workload: Any
  params: Any
  model_state: Any

  def batch(self, seed: int) -> dict[str, Any]:
    """Returns a training batch of 8 examples, in numpy and float64."""

    def widened(x: np.ndarray) -> np.ndarray:
      return x.astype(np.float64) if x.dtype == np.float32 else x

    return trees.map_leaves(widened, self.task.data.fake_batch(self.definition, 8, seed))

  def loss(self, params: Any, batch: Any) -> Any:
    """Returns what `loss_fn` gives for a placed batch, by whose statistics norms normalize."""
    logits, _ = self.workload.model_fn(
      params,
      batch,
      self.model_state,
      ForwardPassMode.TRAIN,
      self.backend.key(np.array([1, 2], np.uint32)),
      update_batch_norm=False,
      use_running_average_bn=False,
      dropout_rate=0.0,
    )
    return self.workload.loss_fn(batch['targets'], logits, batch.get('weights'))

  def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of placed arrays, compiled in JAX."""
    if self.module.__name__ != 'jax':
      return function
    return self.module.jit(function)

  def on_host(self, values: Any) -> Any:
    """Returns a tree of placed arrays in numpy."""
    if isinstance(values, dict):
      return {name: self.on_host(value) for name, value in values.items()}
    if isinstance(values, tuple):
      return tuple(map(self.on_host, values))
    return np.asarray(values.detach() if hasattr(values, 'detach') else values)

  @property
  def module(self) -> Any:
    """The framework."""
    return importlib.import_module(MODULES[self.framework])


def begin(definition: WorkloadDefinition, framework: str) -> Case:
  definition = definition.for_smoke()
  backend = backends.start(framework, Devices(platform='cpu', num_devices=1))
  task = TaskCode.of(definition, framework)
  numbers = importlib.import_module({'jax': 'jax.numpy', 'pytorch': 'torch'}[framework])
  budget = next(iter(definition.suites.values()))
  workload = backend.workload(definition, task, budget, dtype=numbers.float64)
  params, model_state = workload.init_model_fn(backend.key(np.array([3, 4], np.uint32)))
  params = _WITHOUT_ZEROS[framework](params)
  return Case(
    definition=definition,
    framework=framework,
    backend=backend,
    task=task,
    workload=workload,
    params=params,
    model_state=model_state,
  )


def _without_zeros_in_jax(params: Any) -> Any:
  import jax

  return jax.tree.map(lambda x: jax.numpy.asarray(without_zeros(x)), params)


def _without_zeros_in_torch(model: Any) -> Any:
  import torch

  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(torch.from_numpy(without_zeros(parameter.detach())))
  return model


_WITHOUT_ZEROS = {'jax': _without_zeros_in_jax, 'pytorch': _without_zeros_in_torch}


def in_float64(framework: str) -> contextlib.AbstractContextManager[Any]:
  """Where arrays of float64 exist; skips where the framework is not installed."""
  module = pytest.importorskip(MODULES[framework])
  return module.enable_x64(True) if module.__name__ == 'jax' else contextlib.nullcontext()


def parameters(kind: Callable[[WorkloadDefinition], Hashable]) -> list[Any]:
  """Every workload in every framework that runs it.

  The smallest of each kind is in the default run; in JAX it is slow if it is large. Others are
  long.
  """
  params = []
  for framework in MODULES:
    kinds = set()
    for definition in sorted(registry.workloads().values(), key=is_large):
      if not registry.is_runnable(definition, framework):
        continue
      marks = slow_if_large(definition) if framework == 'jax' else []
      if kind(definition) in kinds:
        marks = [pytest.mark.long]
      kinds.add(kind(definition))
      name = f'{definition.name}-{framework}'
      params.append(pytest.param((definition, framework), marks=marks, id=name))
  return params
