"""One study seed gives named, independent random streams, the same in every framework.

A path such as ('trial', 3, 'data') names a stream. Its names and integers are hashed into the
`spawn_key` of a `numpy.random.SeedSequence`. Streams therefore depend neither on each other nor on
the order in which they are created.
"""

from __future__ import annotations

import hashlib

import numpy as np

_KEY_CHUNK = 256


def sequence(seed: int, *path: str | int) -> np.random.SeedSequence:
  """Returns the seed sequence of the stream `path` under `seed`."""
  key_data = [
    int.from_bytes(hashlib.sha256(repr(part).encode()).digest()[:8], 'little') for part in path
  ]
  return np.random.SeedSequence(entropy=seed, spawn_key=tuple(key_data))


def derive(seed: int, *path: str | int) -> int:
  """Returns a 63-bit seed for the stream `path` under `seed`."""
  return int(sequence(seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, *path: str | int) -> np.random.Generator:
  """Returns a random generator for the stream `path` under `seed`."""
  return np.random.default_rng(sequence(seed, *path))


def key_data(seed: int, *path: str | int) -> np.ndarray:
  """Returns the data of a random key, uint32 [2], for the stream `path` under `seed`."""
  return sequence(seed, *path).generate_state(2, np.uint32)


class StepKeys:
  """Key data for every step of a trial, a pure function of the step: no state to save or restore.

  `keys[step]` is a uint32 array [streams, 2]. Keys are drawn in chunks of 256 steps, because one
  draw a step would slow the step path.
  """

  def __init__(self, seed: int, num_streams: int):
    self._seed = seed
    self._num_streams = num_streams
    self._chunk_index = -1
    self._chunk = np.empty((0, num_streams, 2), np.uint32)

  def __getitem__(self, step: int) -> np.ndarray:
    chunk_index, offset = divmod(step, _KEY_CHUNK)
    if chunk_index != self._chunk_index:
      random = generator(self._seed, 'step', chunk_index)
      shape = (_KEY_CHUNK, self._num_streams, 2)
      self._chunk = random.integers(0, 2**32, size=shape, dtype=np.uint32)
      self._chunk_index = chunk_index
    return self._chunk[offset]
