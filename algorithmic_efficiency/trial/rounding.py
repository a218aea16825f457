"""Changes parameters in their last bits, as if another machine had rounded otherwise.

Trials that differ in nothing else show how far honest runs of the same seed may drift apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.backends.base import StateCopies

NUM_ULPS = 16
"""Standard deviation of the change, in units of the last place."""


def changed(copies: StateCopies, params: Any, seed: int) -> Any:
  """Returns parameters that differ from `params` in their last bits, by a stream of this seed."""
  random = seeds.generator(seed, 'rounding')
  packed = copies.pack({'params': params})
  return copies.overlay({'params': params}, _changed(packed, random), fixed=('params',))['params']


def _changed(tree: Any, random: np.random.Generator) -> Any:
  if isinstance(tree, dict):
    return {name: _changed(value, random) for name, value in tree.items()}
  if isinstance(tree, (list, tuple)):
    return type(tree)(_changed(value, random) for value in tree)
  if isinstance(tree, np.ndarray) and tree.dtype.kind == 'f':
    noise = NUM_ULPS * np.finfo(tree.dtype).eps * random.standard_normal(tree.shape)
    return (tree * (1 + noise)).astype(tree.dtype)
  return tree
