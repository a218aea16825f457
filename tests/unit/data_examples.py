"""Loaders, sources and transforms for tests of the pipeline; worker processes import them."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency.data.pipeline import Batch, ShardRows
from algorithmic_efficiency.data.random_numbers import ExampleRandom
from algorithmic_efficiency.data.sources import Mapped, Source, Transform


class Numbers:
  """A source of `length` examples, each of which is its own number."""

  def __init__(self, length: int):
    self._length = length

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'inputs': np.full(3, index, np.float32), 'targets': np.int32(index)}


def mapped(source: Source, transform: Transform, seed: int | None = None) -> Mapped:
  return Mapped({'': source}, transform, None, seed=seed, name='toy, train')


def jitter(example: dict[str, Any], random: ExampleRandom | None) -> dict[str, Any]:
  """Adds noise to an example where there are random numbers."""
  if random is None:
    return example
  noise = random.array(3).astype(np.float32)
  return {**example, 'inputs': example['inputs'] + noise}


def with_pair(example: dict[str, Any], random: ExampleRandom | None) -> dict[str, Any]:
  """An example whose inputs are a tuple."""
  return {'inputs': (example['inputs'], example['targets']), 'targets': example['targets']}


def load_numbers(rows: ShardRows) -> Batch:
  return {'inputs': rows.indices.copy(), 'epochs': rows.epochs.copy()}


def load_large(rows: ShardRows) -> Batch:
  """More than any pipe buffers."""
  return {'inputs': np.repeat(rows.indices, 1 << 16).reshape(len(rows.indices), -1)}


def load_or_fail(rows: ShardRows) -> Batch:
  if 5 in rows.indices:
    raise ValueError('example 5 is bad')
  return load_numbers(rows)


def load_or_die(rows: ShardRows, how: str) -> Batch:
  if 5 in rows.indices:
    die(how)
  return load_numbers(rows)


def die(how: str) -> None:
  if how == 'exit':
    os._exit(7)
  os.kill(os.getpid(), signal.SIGSEGV if how == 'crash' else signal.SIGKILL)


def load_with(rows: ShardRows, ballast: np.ndarray) -> Batch:
  return load_numbers(rows)


def load_slowly(rows: ShardRows, folder: str) -> Batch:
  """Leaves a file when it begins, and another when it ends."""
  name = note(folder)
  time.sleep(0.05)
  name.with_suffix('.done').touch()
  return load_numbers(rows)


def load_and_note(rows: ShardRows, folder: str) -> Batch:
  """Leaves a file in the folder for each batch that it is asked for."""
  note(folder)
  return load_numbers(rows)


def note(folder: str) -> Path:
  descriptor, name = tempfile.mkstemp(dir=folder)
  os.close(descriptor)
  return Path(name)


def load_once(rows: ShardRows) -> Batch:
  """The first pass's batches at once, later ones never."""
  if rows.epochs.any():
    time.sleep(600)
  return load_numbers(rows)


class FailsToBeSent:
  def __getstate__(self) -> Any:
    raise OSError('a handle is open')

  def __call__(self, rows: ShardRows) -> Batch:
    return load_numbers(rows)


class FailsToBeRead:
  def __getstate__(self) -> str:
    return 'a path'

  def __setstate__(self, state: str) -> None:
    raise OSError('no such path')

  def __call__(self, rows: ShardRows) -> Batch:
    return load_numbers(rows)
