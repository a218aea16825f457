"""Fills a prepared set with pieces of text, images with captions, and recordings."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import documents, records, vocabulary
from algorithmic_efficiency.data.prepare import Progress
from algorithmic_efficiency.data.vocabulary import Vocabulary
from algorithmic_efficiency.data.workers import Workers
from algorithmic_efficiency.results import environment

from . import captions, librispeech, prepared_settings, questions
from .captions import Captioned
from .data_records import LogMel, WebMixture
from .librispeech import Utterance

SPLITS = ('validation', 'test', 'train')  # in the order in which documents fill them
SOURCES = ('text', 'captions', 'speech')
_RUNS = 'documents'  # prefix of fields that only preparation needs

Sizes = Mapping[str, Mapping[str, int]]  # examples by split and kind


def fill(
  data: WebMixture, sources: Mapping[str, Path], out: records.Writer, progress: Progress
) -> None:
  """Writes text, captions, images and speech; see `web_mixture_data.prepare`."""
  text, images, speech = (Path(sources[name]) for name in SOURCES)
  pictures, utterances = captions.find(images), librispeech.find(speech, SPLITS)
  _check_numbers(data, pictures, utterances, images, speech)
  prepared_settings.write(out, settings(data))
  tokenizer = _tokenizer(data, text, out)
  _write_text(data, text, tokenizer, out, progress)
  for split in SPLITS:
    _write_captions(data, split, pictures, tokenizer, out, progress)
    _write_speech(data, split, utterances[split], tokenizer, out, progress)


def settings(data: WebMixture) -> dict[str, Any]:
  """Returns the settings that the features of a prepared set depend on."""
  return {'log_mel': asdict(data.log_mel)}


def sizes(data: WebMixture) -> Sizes:
  """Returns the number of examples of each kind, by split."""
  return {
    'train': dict(data.num_train),
    'validation': dict(data.num_validation),
    'test': dict(data.num_test),
  }


def num_captions(data: WebMixture, split: str) -> int:
  """Returns the number of captions of an image that become examples."""
  return data.captions_per_image if split == 'train' else 1


def _check_numbers(
  data: WebMixture,
  pictures: Captioned,
  utterances: Mapping[str, Sequence[Utterance]],
  images: Path,
  speech: Path,
) -> None:
  """Compares the sources with the definition before anything is written.

  Raises:
    UserError: a split has another number of images or recordings.
  """
  for split, of_kinds in sizes(data).items():
    each = num_captions(data, split)
    for kind, found, folder in (
      ('caption', pictures.num_images(split) * each, images),
      ('transcript', len(utterances[split]), speech),
    ):
      if found != of_kinds[kind]:
        raise errors.UserError(
          f'The split {split} must have {of_kinds[kind]:,} examples of {kind}; {folder} gives '
          f'{found:,}. Give all files, or define a workload of your own with other numbers.'
        )


def _tokenizer(data: WebMixture, source: Path, out: records.Writer) -> Vocabulary:
  vocabulary.require('tiktoken', 'text')
  if not out.has(vocabulary.FILE):
    content = vocabulary.find(source, data).to_json()
    vocabulary.check_sha256(hashlib.sha256(content).hexdigest(), source, data)
    out.file(vocabulary.FILE, content)
  return vocabulary.load(out.folder / vocabulary.FILE, data)


def _write_text(
  data: WebMixture, source: Path, tokenizer: Vocabulary, out: records.Writer, progress: Progress
) -> None:
  """Cuts shuffled documents into pieces of a row at most; no document is in two splits.

  Raises:
    UserError: there are too few documents, or one is damaged.
  """
  if all(out.has(f'text-{split}/tokens') for split in SPLITS):
    return
  chunks = documents.find(source)
  shuffled = documents.Shuffled(chunks, tokenizer, name=_RUNS, out=out, progress=progress)
  num_pieces = -(-shuffled.lengths // data.turn_length)
  stream = iter(shuffled)
  for split in SPLITS:
    wanted = sizes(data)[split]['text']
    ends = np.cumsum(num_pieces)
    if not len(ends) or ends[-1] < wanted:
      raise errors.UserError(
        f'The split {split} needs {wanted:,} pieces of text of {data.turn_length:,} tokens; the '
        f'documents of {source} have {ends[-1] if len(ends) else 0:,} left for it. Give all '
        'documents, or define a workload of your own with other numbers.'
      )
    number = int(np.searchsorted(ends, wanted)) + 1
    own, num_pieces = itertools.islice(stream, number), num_pieces[number:]
    pieces = (piece for one in own for piece in _pieces(one, data.turn_length))
    shown = _shown(itertools.islice(pieces, wanted), f'write {split} text', wanted, progress)
    out.ragged(f'text-{split}/tokens', shown, dtype=tokenizer.dtype)
    for _ in own:  # the rest of the last document, so that the next split begins after it
      pass
  out.drop(_RUNS)


def _pieces(tokens: np.ndarray, length: int) -> Iterator[np.ndarray]:
  for start in range(0, len(tokens), length):
    yield tokens[start : start + length]


def _write_captions(
  data: WebMixture,
  split: str,
  pictures: Captioned,
  tokenizer: Vocabulary,
  out: records.Writer,
  progress: Progress,
) -> None:
  """Writes the captions of a split, the image of each, and the patches of the images.

  Raises:
    UserError: an image has too few captions, or is damaged; a caption is too long.
  """
  total, each = pictures.num_images(split), num_captions(data, split)
  if not out.has(f'captions-{split}/tokens'):
    encode = tokenizer.encoder()
    tokens = (
      _fitting(encode(text), data, 1 + data.num_patches, f'A caption of {name}')
      for name, texts in pictures.captions(split)
      for text in _first(texts, each, name)
    )
    shown = _shown(tokens, f'write {split} captions', total * each, progress)
    out.ragged(f'captions-{split}/tokens', shown, dtype=tokenizer.dtype)
  if not out.has(f'captions-{split}/image'):
    numbers = np.repeat(np.arange(total, dtype=np.int32), each)
    out.array(f'captions-{split}/image', [numbers], shape=numbers.shape, dtype=np.int32)
  if not out.has(f'images-{split}/patches'):
    patches = (
      questions.patches_of(data, captions.square(name, content, data.image_size)[None])
      for name, content in pictures.files(split)
    )
    shape = (total, data.num_patches, data.patch_dim)
    shown = _shown(patches, f'write {split} images', total, progress)
    out.array(f'images-{split}/patches', shown, shape=shape, dtype=np.uint8)


def _first(texts: Sequence[str], number: int, name: str) -> Sequence[str]:
  if len(texts) < number:
    raise errors.UserError(
      f'Each image must have {number} captions at least; {name} has {len(texts)}.'
    )
  return texts[:number]


def _write_speech(
  data: WebMixture,
  split: str,
  utterances: Sequence[Utterance],
  tokenizer: Vocabulary,
  out: records.Writer,
  progress: Progress,
) -> None:
  """Writes the log-mel frames of a split, made in several processes, and its transcripts.

  Raises:
    UserError: a recording is damaged, or it and its transcript are too long.
  """
  total, stage = len(utterances), f'write {split} speech'
  if not out.has(f'speech-{split}/frames'):
    made = _in_processes(_Frames(utterances, data.log_mel), total, stage)
    with contextlib.closing(made):
      flat = (frames.reshape(-1) for frames in made)
      out.ragged(f'speech-{split}/frames', _shown(flat, stage, total, progress), dtype=np.float32)
  if not out.has(f'speech-{split}/tokens'):
    encode = tokenizer.encoder()
    num_frames = out.field(f'speech-{split}/frames').lengths // data.num_mels
    num_given = 1 + questions.num_positions(data, num_frames)
    tokens = (
      _fitting(encode(one.transcript), data, int(given), f'The transcript of {one.path}')
      for one, given in zip(utterances, num_given, strict=True)
    )
    out.ragged(f'speech-{split}/tokens', tokens, dtype=tokenizer.dtype)


def _fitting(tokens: np.ndarray, data: WebMixture, num_given: int, name: str) -> np.ndarray:
  """Returns the tokens of an answer that fits in a row after what is given.

  Raises:
    UserError: they do not fit.
  """
  length = num_given + len(tokens) - 1
  if length > data.turn_length:
    raise errors.UserError(
      f'An example must fit in a row of {data.turn_length:,} positions. {name} and what it is '
      f'about take {length:,}; leave it out, or define a workload with longer rows.'
    )
  return tokens


class _Frames:
  """Computes the log-mel frames of an utterance by its number, in a worker process."""

  def __init__(self, utterances: Sequence[Utterance], settings: LogMel):
    self._utterances = utterances
    self._settings = settings

  def __call__(self, number: int) -> np.ndarray:
    return librispeech.frames(self._utterances[number], self._settings)


_FEW = 200  # recordings that take less time than starting a process


def _in_processes(make: Callable[[int], Any], total: int, name: str) -> Iterator[Any]:
  """Yields `make(number)` in order, from several processes if there is work for them."""
  num_workers = min(int(environment.num_usable_cpus()), total // _FEW)
  if num_workers < 2:
    yield from map(make, range(total))
    return
  with contextlib.closing(Workers(num_workers)) as workers:
    yield from workers.results(workers.add(make, name), range(total))


def _shown(
  items: Iterator[np.ndarray], stage: str, total: int, progress: Progress
) -> Iterator[np.ndarray]:
  for done, item in enumerate(items, 1):
    yield item
    progress(stage, done, total)
