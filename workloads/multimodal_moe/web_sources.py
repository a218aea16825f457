"""The examples of each source of the web mixture, from a prepared set or generated."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.data import records, vocabulary
from algorithmic_efficiency.data.sources import Example

from . import joined, questions
from .data_records import AUDIO, IMAGE, TEXT, WebMixture


def generated(data: WebMixture, seed: int) -> Iterator[Example]:
  """Yields generated examples of every kind in turn, without end; they depend on the seed."""
  random = seeds.generator(seed, 'fake')
  while True:
    for kind in data.kinds:
      turns = [_generated(data, kind, random) for _ in range(data.num_turns)]
      yield turns[0] if len(turns) == 1 else questions.conversation(turns)


def _generated(data: WebMixture, kind: str, random: np.random.Generator) -> Example:
  """Returns an example that fits in a turn."""
  number = int(random.integers(1, data.turn_length - data.num_patches))
  tokens = random.integers(data.vocab_size, size=max(1, number // 2), dtype=np.int32)
  patches = frames = None
  if kind == 'caption':
    shape = (data.num_patches, data.patch_dim)
    patches = random.integers(256, size=shape, dtype=np.uint8)
  if kind == 'transcript':
    shape = (max(1, number // 2), data.frames_dim)
    frames = random.standard_normal(shape, np.float32)
  return _example(data.kinds.index(kind), tokens, 0, patches, frames)


def _example(
  task: int,
  tokens: np.ndarray,
  separator_id: int,
  patches: np.ndarray | None = None,
  frames: np.ndarray | None = None,
) -> Example:
  """Returns an example: the separator, an image or recording if there is one, and the tokens."""
  given = [0 if one is None else len(one) for one in (patches, frames)]
  modality = np.repeat(np.array([TEXT, IMAGE, AUDIO, TEXT], np.int8), [1, *given, len(tokens) - 1])
  return questions.question(
    task=task,
    modality=modality,
    text=np.concatenate([[separator_id], tokens]).astype(np.int32),
    num_targets=len(tokens),
    patches=patches,
    frames=frames,
  )


class WebSource:
  """The examples of a source, from a prepared set; pickled as its path.

  Args:
    kind: 'text', 'caption' or 'transcript'.
  """

  def __init__(self, data: WebMixture, root: Path, split: str, kind: str):
    self._arguments = (data, root, split, kind)
    self._task = data.kinds.index(kind)
    self._separator_id = _separator_id(root / vocabulary.FILE, data)
    self._tokens, self._given, self.lengths = KINDS[kind](data, records.open_prepared(root), split)

  def __len__(self) -> int:
    return len(self._tokens)

  def __getitem__(self, index: int) -> Example:
    return _example(self._task, self._tokens[index], self._separator_id, **self._given(index))

  def __reduce__(self) -> tuple[Any, ...]:
    return WebSource, self._arguments


Opened = tuple[records.Ragged, Callable[[int], dict[str, np.ndarray]], np.ndarray]
"""Tokens, what is given before those of an example, and positions of each example."""


def _text(data: WebMixture, prepared: records.Prepared, split: str) -> Opened:
  pieces = prepared.field(f'text-{split}/tokens')
  # Pieces of a document follow each other, so neighbors are joined token by token.
  whole = len(pieces) // data.num_turns * data.num_turns
  tokens = records.Ragged(pieces.values, pieces.offsets[: whole + 1 : data.num_turns])
  return tokens, lambda index: {}, tokens.lengths


def _caption(data: WebMixture, prepared: records.Prepared, split: str) -> Opened:
  tokens = prepared.field(f'captions-{split}/tokens')
  images = prepared.field(f'captions-{split}/image')
  patches = prepared.field(f'images-{split}/patches')
  if patches.shape[1:] != (data.num_patches, data.patch_dim):
    raise records.damaged(
      prepared.root,
      f'its images have {list(patches.shape[1:])} patches and values, and the workload needs '
      f'{[data.num_patches, data.patch_dim]}',
    )
  return tokens, lambda i: {'patches': patches[images[i]]}, tokens.lengths + data.num_patches


def _transcript(data: WebMixture, prepared: records.Prepared, split: str) -> Opened:
  tokens = prepared.field(f'speech-{split}/tokens')
  frames = prepared.field(f'speech-{split}/frames')

  def given(index: int) -> dict[str, np.ndarray]:
    return {'frames': questions.by_position(data, frames[index].reshape(-1, data.num_mels))}

  num_positions = questions.num_positions(data, frames.lengths // data.num_mels)
  return tokens, given, tokens.lengths + num_positions


KINDS: Mapping[str, Callable[[WebMixture, records.Prepared, str], Opened]] = {
  'text': _text,
  'caption': _caption,
  'transcript': _transcript,
}


def opened(data: WebMixture, root: Path, split: str, kind: str) -> joined.Questions:
  """Returns the examples of a source, each of which may join several.

  Captions of one image follow each other, so that those of different images are joined. Recordings
  of one reader follow each other, and stay together.
  """
  source = WebSource(data, root, split, kind)
  return source if kind == 'text' else joined.joined(source, data, apart=kind == 'caption')


@functools.lru_cache(maxsize=8)
def _separator_id(path: Path, data: WebMixture) -> int:
  """Returns the token that begins and ends an example.

  Raises:
    UserError: the vocabulary is missing or damaged.
  """
  return vocabulary.load(path, data).separator_id
