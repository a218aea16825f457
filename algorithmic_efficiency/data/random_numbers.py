"""Random numbers of an example: a pure function of (seed, epoch, example, draw).

Each number is a hash of its position: splitmix64 (Steele, Lea and Flood, OOPSLA 2014). None depends
on the order, the process or the batch in which it is asked for. A transform of one example draws
from `ExampleRandom`, a vectorized loader from `draws`; both give the same numbers, bit for bit.
They serve augmentation, not cryptography.
"""

from __future__ import annotations

import math

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 0xFFFFFFFFFFFFFFFF
_UNIT = 2.0**-53


def uniform(seed: int, epochs: np.ndarray, examples: np.ndarray, num_draws: int) -> np.ndarray:
  """Returns the first draws of some examples.

  Args:
    seed: seed of the stream, such as the augmentation of a trial.
    epochs, examples: int64 [rows].

  Returns:
    float64 [rows, num_draws] in [0, 1).
  """
  return draws(keys(seed, epochs, examples), num_draws)


def draws(keys: np.ndarray, num_draws: int) -> np.ndarray:
  """Returns the first draws of examples, given their keys, uint64 [rows], as `uniform` does."""
  steps = np.arange(1, num_draws + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
  return (_mixed(keys[:, None] + steps) >> np.uint64(11)) * _UNIT


def keys(seed: int, epochs: np.ndarray, examples: np.ndarray) -> np.ndarray:
  """Returns the keys of examples, uint64 [rows]; `epochs` and `examples` are int64 [rows]."""
  passes = _mixed(np.uint64(_mix(seed & _MASK)) ^ epochs.astype(np.uint64))
  return _mixed(passes + examples.astype(np.uint64) * np.uint64(_GOLDEN))


class ExampleRandom:
  """The draws of one example in one epoch, in sequence."""

  __slots__ = ('_state',)

  def __init__(self, key: int):
    """Takes the key of the example, as `keys` returns it."""
    self._state = key

  def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
    """Returns a number in [low, high)."""
    return low + (high - low) * ((self._next() >> 11) * _UNIT)

  def integer(self, stop: int) -> int:
    """Returns an integer from 0 to `stop`, exclusive.

    Raises:
      ValueError: `stop` is not between 1 and 2**32.
    """
    if not 0 < stop <= 1 << 32:
      raise ValueError(f'stop must be between 1 and 2**32; it is {stop}.')
    return (self._next() >> 11) * stop >> 53

  def normal(self) -> float:
    """Returns a number from the standard normal distribution (Box and Muller, 1958)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - self.uniform()))
    return radius * math.cos(2.0 * math.pi * self.uniform())

  def array(self, *shape: int) -> np.ndarray:
    """Returns the next draws as float64 [*shape] in [0, 1), in memory order."""
    number = math.prod(shape)
    steps = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    drawn = (_mixed(np.uint64(self._state) + steps) >> np.uint64(11)) * _UNIT
    self._state = (self._state + number * _GOLDEN) & _MASK
    return drawn.reshape(shape)

  def generator(self) -> np.random.Generator:
    """Returns a numpy generator, for distributions without a method here; it is slow to create."""
    return np.random.Generator(np.random.PCG64(self._next()))

  def _next(self) -> int:
    self._state = (self._state + _GOLDEN) & _MASK
    return _mix(self._state)


def _mix(value: int) -> int:
  value = ((value ^ value >> 30) * _FIRST) & _MASK
  value = ((value ^ value >> 27) * _SECOND) & _MASK
  return value ^ value >> 31


def _mixed(values: np.ndarray) -> np.ndarray:
  values = (values ^ values >> np.uint64(30)) * np.uint64(_FIRST)
  values = (values ^ values >> np.uint64(27)) * np.uint64(_SECOND)
  return values ^ values >> np.uint64(31)
