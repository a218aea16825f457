"""Tells which frameworks a submission is written for, by what its files import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from algorithmic_efficiency.compat import submission_finder
from algorithmic_efficiency.compat.source import Source

# The packages, and the modules of this project, that belong to one framework.
_MARKS: Mapping[str, tuple[str, ...]] = {
  'jax': ('jax', 'jaxlib', 'flax', 'optax', 'chex', 'jraph', 'haiku'),
  'pytorch': ('torch', 'torchvision', 'torchaudio'),
}
_ROOMS = ('training', 'optimizers', 'layers', 'updates')
_OURS: Mapping[str, tuple[str, ...]] = {
  'jax': ('jax_sharding_utils', 'jax_utils', *(f'{room}.jax' for room in _ROOMS)),
  'pytorch': ('pytorch_utils', *(f'{room}.torch' for room in _ROOMS)),
}
_ROOTS = ('algoperf', 'algorithmic_efficiency')


def written_for(file: Path) -> tuple[str, ...]:
  """Returns the frameworks that a submission's files import; all if they import none.

  A module that is not valid Python counts as written for all: whoever loads it tells the mistake.
  """
  try:
    trees = submission_finder.sources(file)
  except SyntaxError:
    return tuple(_MARKS)
  names = {name for tree in trees.values() for name in Source.of(tree).imports}
  found = tuple(framework for framework in _MARKS if any(_is_of(framework, one) for one in names))
  return found or tuple(_MARKS)


def _is_of(framework: str, name: str) -> bool:
  top, _, below = name.partition('.')
  if top in _ROOTS:
    return any(f'{below}.'.startswith(f'{module}.') for module in _OURS[framework])
  return top in _MARKS[framework]
