"""Text, images with captions and recordings with transcripts, in packed rows; see `questions.py`.

A prepared set has its vocabulary in `tokenizer.json`, and these fields:

- `text-<split>/tokens`: uint16 of varying length, a piece of a document; the separator ends it.
- `captions-<split>/tokens`: uint16 of varying length, a caption and the separator.
- `captions-<split>/image`: int32 [captions], the number of its image.
- `images-<split>/patches`: uint8 [images, patches, patch_dim].
- `speech-<split>/tokens`: uint16 of varying length, a transcript and the separator.
- `speech-<split>/frames`: float32 of varying length, frames [frames, mels] of a recording.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records, vocabulary
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.prepare import Progress, Source
from algorithmic_efficiency.data.sources import Example, Transform

from . import questions, web_preparation
from .data_records import AUDIO, IMAGE, TEXT, WebMixture

_MEAN_TEXT_TOKENS, _MEAN_RECORDING_SEC = 700, 12.3


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origins and licenses of the sources, and about how many bytes they take prepared."""
  data = definition.data
  of_kinds = [sum(one[kind] for one in web_preparation.sizes(data).values()) for kind in data.kinds]
  by_kind = dict(zip(data.kinds, of_kinds, strict=True))
  frame_bytes = 4 * data.num_mels / data.log_mel.hop_sec
  num_images = sum(
    one['caption'] // web_preparation.num_captions(data, split)
    for split, one in web_preparation.sizes(data).items()
  )
  return records.About(
    origin='FineWeb-Edu, A. Lozhkov et al. 2024; COCO, T.-Y. Lin et al. 2014, with captions; '
    'LibriSpeech, V. Panayotov et al. 2015',
    licence='ODC-By 1.0; CC BY 4.0 for captions, terms of Flickr for images; CC BY 4.0',
    num_bytes=round(
      by_kind['text'] * 2 * _MEAN_TEXT_TOKENS
      + num_images * data.num_patches * data.patch_dim
      + by_kind['transcript'] * _MEAN_RECORDING_SEC * frame_bytes
    ),
    sources=web_preparation.SOURCES,
  )


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes tokens, patches and log-mel frames of the three sources.

  Args:
    source: `text`, a folder with parquet files that have a column `text`, and with the files of
      the tokenizer. `captions`, a folder with `captions.json`, or the builder `coco_captions` of
      TensorFlow Datasets. `speech`, the folder of LibriSpeech.

  Raises:
    UserError: a source is missing, damaged, of another form or of another size than in the
      definition. An example is longer than a row, or a package is missing.
  """
  if not isinstance(source, Mapping):
    flags = ' '.join(f'--source {name}=FOLDER' for name in web_preparation.SOURCES)
    raise errors.UserError(
      f'The data set {definition.dataset} cannot be downloaded: name its sources with {flags}.'
    )
  web_preparation.fill(definition.data, source, out, progress)


def source(definition: WorkloadDefinition, root: Path, split: str) -> Mixture | Packed:
  """Returns packed rows of the three sources for training, and their examples for another split.

  Raises:
    UserError: the data is missing or damaged, or a source or weight is wrong.
  """
  data, name = definition.data, f'{definition.name}, {split}'
  for kind in data.kinds:
    if kind not in _OPENERS:
      raise errors.unknown(f'source of {definition.name}', kind, _OPENERS)
  sources = {kind: WebSource(data, root, split, kind) for kind in data.kinds}
  mixture = Mixture(sources, dict(data.weights), name=name)
  if split != 'train':
    return mixture
  lengths = {kind: one.lengths for kind, one in sources.items()}
  return Packed(mixture, lengths, data.row_length, questions.together)


def transform(definition: WorkloadDefinition, train: bool) -> Transform:
  """Returns the function that leaves an example as it is."""
  return questions.unchanged


def collate(definition: WorkloadDefinition) -> questions.Rows:
  """Returns what makes a batch of rows."""
  return questions.Rows(definition.data)


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of generated examples of every kind, which depend on the seed."""
  return questions.fake_batch(definition.data, generated(definition.data, seed), batch_size)


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of generated examples of every kind."""
  return questions.fake_eval_batch(definition.data, generated(definition.data, seed), batch_size)


def generated(data: WebMixture, seed: int) -> Iterator[Example]:
  """Yields generated examples of every kind in turn, without end; they depend on the seed."""
  random = seeds.generator(seed, 'fake')
  space = data.row_length - 1 - data.num_patches
  while True:
    for task, kind in enumerate(data.kinds):
      number = int(random.integers(1, space + 1))
      tokens = random.integers(data.vocab_size, size=max(1, number // 2), dtype=np.int32)
      patches = frames = None
      if kind == 'caption':
        shape = (data.num_patches, data.patch_dim)
        patches = random.integers(256, size=shape, dtype=np.uint8)
      if kind == 'transcript':
        shape = (max(1, number // 2), data.frames_dim)
        frames = random.standard_normal(shape, np.float32)
      yield _example(task, tokens, 0, patches, frames)


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
    self._tokens, self._given, self.lengths = _OPENERS[kind](
      data, records.open_prepared(root), split
    )

  def __len__(self) -> int:
    return len(self._tokens)

  def __getitem__(self, index: int) -> Example:
    return _example(self._task, self._tokens[index], self._separator_id, **self._given(index))

  def __reduce__(self) -> tuple[Any, ...]:
    return WebSource, self._arguments


Opened = tuple[records.Ragged, Callable[[int], dict[str, np.ndarray]], np.ndarray]
"""Tokens, what is given before those of an example, and positions of each example."""


def _text(data: WebMixture, prepared: records.Prepared, split: str) -> Opened:
  tokens = prepared.field(f'text-{split}/tokens')
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


_OPENERS: Mapping[str, Callable[[WebMixture, records.Prepared, str], Opened]] = {
  'text': _text,
  'caption': _caption,
  'transcript': _transcript,
}


@functools.lru_cache(maxsize=8)
def _separator_id(path: Path, data: WebMixture) -> int:
  """Returns the token that begins and ends an example.

  Raises:
    UserError: the vocabulary is missing or damaged.
  """
  return vocabulary.load(path, data).separator_id
