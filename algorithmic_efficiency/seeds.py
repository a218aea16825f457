"""One study seed gives named, independent random streams, the same in every framework.

A stream is named by a path such as ('trial', 3, 'data'). Names and integers are hashed into
`numpy.random.SeedSequence`, so streams are independent of each other and of the order in which they
are asked for.
"""

from __future__ import annotations

import hashlib

import numpy as np

_KEY_CHUNK = 256


def sequence(seed: int, *path: str | int) -> np.random.SeedSequence:
  """The seed sequence of the stream that `path` names under `seed`."""
  key_data = [
    int.from_bytes(hashlib.sha256(repr(part).encode()).digest()[:8], 'little') for part in path
  ]
  return np.random.SeedSequence(entropy=seed, spawn_key=tuple(key_data))


def derive(seed: int, *path: str | int) -> int:
  """A 63-bit seed for the stream that `path` names under `seed`."""
  return int(sequence(seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, *path: str | int) -> np.random.Generator:
  return np.random.default_rng(sequence(seed, *path))


def key_data(seed: int, *path: str | int) -> np.ndarray:
  """Two 32-bit key_data, uint32 [2], from which a backend makes its random key."""
  return sequence(seed, *path).generate_state(2, np.uint32)


class StepKeys:
  """Random key_data for every step of a trial, by position: nothing to save, nothing to restore.

  `keys[step]` is a uint32 array [streams, 2]. Words are drawn in chunks, because a draw of its own
  for each step would be felt on the step path.
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
