"""MNIST in small: the same files, formats and code, with 72 generated images."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data import digit_images

SPLITS = Splits(train=50, eval_train=20, validation=10, test=12)


def definition() -> WorkloadDefinition:
  return dataclasses.replace(registry.workload('mnist'), splits=SPLITS)


def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Images uint8 [n, 28, 28] and labels uint8 [n] of the two files' groups."""
  random = np.random.default_rng(0)
  return {
    group: (
      random.integers(256, size=(number, 28, 28), dtype=np.uint8),
      random.integers(10, size=number, dtype=np.uint8),
    )
    for group, number in (('train', 60), ('test', 12))
  }


def idx(array: np.ndarray) -> bytes:
  return struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape) + array.tobytes()


def install(monkeypatch, places: tuple[str, ...] = ()) -> dict[str, bytes]:
  """Makes the task and the registry know this set in MNIST's place; returns the packed files."""
  packed, known = {}, {}
  for group, values in arrays().items():
    known[group] = []
    for file, array in zip(digit_images.MNIST_FILES[group], values, strict=True):
      content = idx(array)
      packed[f'{file.name}.gz'] = gzip.compress(content, mtime=0)
      known[group].append(
        dataclasses.replace(
          file,
          shape=array.shape,
          packed_bytes=len(packed[f'{file.name}.gz']),
          packed_sha256=hashlib.sha256(packed[f'{file.name}.gz']).hexdigest(),
          sha256=hashlib.sha256(content).hexdigest(),
        )
      )
  workloads = {**registry.workloads(), 'mnist': definition()}
  monkeypatch.setattr(registry, 'workloads', lambda: workloads)
  monkeypatch.setattr(digit_images, 'MNIST_FILES', known)
  monkeypatch.setattr(registry.module_of(definition(), 'data'), '_MNIST_PLACES', places)
  return packed


def write(folder: Path, packed: dict[str, bytes]) -> Path:
  folder.mkdir()
  for name, content in packed.items():
    (folder / name).write_bytes(content)
  return folder
