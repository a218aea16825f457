"""AlgoPerf's `random_utils`: keys of the framework that runs, made, split and folded.

JAX keys are those of `jax.random`. PyTorch keys are numbers for `numpy.random.RandomState`: int32
arrays of shape [2], or lists of two after `fold_in`, drawn as AlgoPerf draws them.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_MAX_SEED = 2**31 - 1  # seeds and draws lie below it

_framework = ''


def use_framework(name: str) -> None:
  """Sets the framework of the process, 'jax' or 'pytorch', for keys made of plain numbers."""
  global _framework
  _framework = name


def PRNGKey(seed: Any) -> Any:
  """Makes a key of a whole number."""
  if _framework == 'jax':
    return _jax_random().PRNGKey(seed)
  return split(seed)[0]


def split(seed: Any, num: int = 2) -> Any:
  """Returns `num` keys, [num, 2], derived from a key."""
  if _is_jax(seed):
    return _jax_random().split(seed, num)
  return _state(seed).randint(_MAX_SEED, size=(num, 2), dtype=np.int32)


def fold_in(seed: Any, data: Any) -> Any:
  """Returns a key derived from a key and a whole number, such as a step."""
  if _is_jax(seed):
    return _jax_random().fold_in(seed, data)
  return [_state(seed).randint(_MAX_SEED, dtype=np.int32), data]


def _state(seed: Any) -> np.random.RandomState:
  """The generator of a number, or of the numbers of a key, none of which may be negative."""
  return np.random.RandomState(np.mod(np.asarray(seed, np.int64), _MAX_SEED))


def _is_jax(seed: Any) -> bool:
  jax = sys.modules.get('jax')
  return jax is not None and isinstance(seed, jax.Array)


def _jax_random() -> Any:
  from algorithmic_efficiency.compat import jax_random

  return jax_random
