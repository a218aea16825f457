"""Turns the frozen parameters of a module into buffers, which keep their names in its state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from algorithmic_efficiency.backends import frozen
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition


def names(definition: WorkloadDefinition, model: nn.Module) -> list[tuple[str, ...]]:
  """Returns the frozen parameters of a model, each with all its names; the first is its own.

  A parameter with several names is frozen if any of them is.

  Raises:
    UserError: an entry of `frozen_params` matches no parameter.
  """
  by_parameter: dict[nn.Parameter, list[str]] = {}
  for name, parameter in model.named_parameters(remove_duplicate=False):
    by_parameter.setdefault(parameter, []).append(name)
  every = [name for group in by_parameter.values() for name in group]
  found = set(frozen.chosen(definition, 'pytorch', every, '.'))
  return [tuple(group) for group in by_parameter.values() if found.intersection(group)]


@torch.no_grad()
def freeze(
  model: nn.Module, groups: Sequence[Sequence[str]], value: Callable[[str], torch.Tensor]
) -> None:
  """Registers parameters as buffers under the same names, in the same memory.

  Args:
    groups: the names of each parameter.
    value: the value of a parameter, by its first name.
  """
  for group in groups:
    parameter = model.get_parameter(group[0])
    parameter.copy_(value(group[0]))
    buffer = parameter.detach()
    for name in group:
      module, _, leaf = name.rpartition('.')
      owner = model.get_submodule(module)
      del owner._parameters[leaf]
      owner.register_buffer(leaf, buffer)


def hash_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> bytes:
  """Returns a hash of named tensors, in any order."""
  found = hashlib.blake2b(digest_size=16)
  for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
    found.update(f'{name} {tensor.dtype} {tuple(tensor.shape)} '.encode())
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
  return found.digest()
