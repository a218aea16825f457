"""Sources of questions about digits, from images and recordings of digits."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.records import Ragged
from algorithmic_efficiency.data.sources import Example

from . import digit_kinds, questions, words
from .data_records import AUDIO, IMAGE, TEXT, RowForm
from .digit_kinds import KINDS, NUM_DIGITS, Kind
from .joined import Questions, joined

HELD_OUT_PAIRS = 'held_out_pairs'  # the probe of sums that training lacks
_SEED = 0
_NUMBERS = {word: number for number, word in enumerate(words.WORDS)}
_NUMBER_TOKENS = np.array([_NUMBERS[word] for word in words.NUMBERS])


@dataclass(frozen=True, kw_only=True)
class Media:
  """The images and recordings of a split.

  Attributes:
    patches: uint8 [images, patches, patch_dim].
    image_digits: the digit of each image, int [images].
    frames: frames of each recording, float32 [frames * mels], flat; None without audio.
    recording_digits: the digit of each recording, int [recordings].
  """

  patches: np.ndarray
  image_digits: np.ndarray
  frames: Ragged | None = None
  recording_digits: np.ndarray | None = None

  def digits(self, modality: int) -> np.ndarray:
    """Returns the digit of each image or recording; of words, the digits themselves.

    Raises:
      UserError: there is no audio.
    """
    if modality == TEXT:
      return np.arange(NUM_DIGITS)
    if modality == IMAGE:
      return self.image_digits
    if self.recording_digits is None:
      raise errors.UserError(
        'A question with audio needs recordings; this workload has none. Leave its kind out of '
        'the weights.'
      )
    return self.recording_digits


Open = Callable[[], Media]  # picklable, so that worker processes read the media themselves


class DigitSource:
  """The questions of one kind: number i always has the same operands.

  Digits are drawn first. Then each operand takes the images or recordings of its digit in a random
  order, again and again, so that all come equally often.

  Args:
    form: the form of a row.
    kind: name of the kind.
    split: its name sets the operands.
    number: number of questions.
    open_media: opens the images and recordings of the split.
    held_out: True draws the pairs that are held out, for a sum.
  """

  def __init__(
    self,
    form: RowForm,
    kind: str,
    split: str,
    number: int,
    open_media: Open,
    *,
    held_out: bool = False,
  ):
    self._arguments = (form, kind, split, number, open_media)
    self._held_out = held_out
    self._form, self._media = form, open_media()
    self._kind, self._task = KINDS[kind], form.kinds.index(kind)
    random = seeds.generator(_SEED, split, kind)
    draw = digit_kinds.pairs(held_out=True) if held_out else self._kind.draw
    self._digits = draw(random, number)
    self._chosen = np.stack(
      [
        _chosen(self._media.digits(modality), self._digits[:, operand], random, kind)
        for operand, modality in enumerate(self._kind.modalities)
      ],
      axis=1,
    )
    self._layout = _layout(self._kind)
    self._text = self._texts()
    self._num_targets = self._kind.num_answer_words + 1
    self._sizes = _sizes(form, self._layout)
    self._images = self._operands(IMAGE)
    self._recordings = self._operands(AUDIO)

  def __len__(self) -> int:
    return len(self._digits)

  def __getitem__(self, index: int) -> Example:
    sizes, patches, frames = self._sizes, None, None
    if self._recordings.shape[1]:
      recordings = [self._recording(number) for number in self._recordings[index].tolist()]
      sizes = sizes.copy()
      sizes[self._layout == AUDIO] = [len(recording) for recording in recordings]
      frames = np.concatenate(recordings)
    if self._images.shape[1]:
      patches = self._media.patches[self._images[index]].reshape(-1, self._form.patch_dim)
    return questions.question(
      task=self._task,
      modality=np.repeat(self._layout, sizes),
      text=self._text[index],
      num_targets=self._num_targets,
      patches=patches,
      frames=frames,
    )

  def __reduce__(self) -> tuple[Any, ...]:
    return functools.partial(DigitSource, held_out=self._held_out), self._arguments

  @property
  def lengths(self) -> np.ndarray:
    """Positions of each question, int64 [questions]."""
    lengths = np.full(len(self), self._sizes.sum())
    if self._recordings.shape[1]:
      assert self._media.frames is not None
      num_frames = self._media.frames.lengths // self._form.num_mels
      lengths += questions.num_positions(self._form, num_frames)[self._recordings].sum(axis=1)
    return lengths

  def _operands(self, modality: int) -> np.ndarray:
    """Returns the images or recordings of each question, int64 [questions, operands]."""
    return self._chosen[:, [one == modality for one in self._kind.modalities]]

  def _texts(self) -> np.ndarray:
    """Returns the tokens of each question and its answer, int32 [questions, tokens]."""
    columns, operand = [], 0
    for part in self._kind.template:
      if isinstance(part, str):
        columns.append(np.full(len(self), _NUMBERS[part]))
        continue
      if part == TEXT:
        columns.append(_NUMBER_TOKENS[self._digits[:, operand]])
      operand += 1
    answers = [self._kind.answer(*digits) for digits in self._digits.tolist()]
    tokens = np.array([[_NUMBERS[word] for word in (*answer, words.END)] for answer in answers])
    return np.column_stack([*columns, tokens]).astype(np.int32)

  def _recording(self, number: int) -> np.ndarray:
    """Returns the frames of a recording by position, float32 [positions, frames_dim]."""
    assert self._media.frames is not None
    frames = self._media.frames[number].reshape(-1, self._form.num_mels)
    return questions.by_position(self._form, frames)


def longest_without_audio(form: RowForm) -> int:
  """Returns the positions of the longest question, recordings apart."""
  longest = max(int(_sizes(form, _layout(KINDS[kind])).sum()) for kind in form.kinds)
  return form.num_turns * longest


def _layout(kind: Kind) -> np.ndarray:
  """Returns the modality of each part of a question and its answer, int8 [parts]."""
  given = [TEXT if isinstance(part, str) else part for part in kind.template]
  return np.array([*given, *[TEXT] * kind.num_answer_words], np.int8)


def _sizes(form: RowForm, layout: np.ndarray) -> np.ndarray:
  """Returns the positions of each part, int64 [parts]; 0 for recordings, which differ."""
  by_modality = {TEXT: 1, IMAGE: form.num_patches, AUDIO: 0}
  return np.array([by_modality[modality] for modality in layout.tolist()])


def _chosen(
  of_media: np.ndarray, digits: np.ndarray, random: np.random.Generator, kind: str
) -> np.ndarray:
  """Returns an image or recording for each drawn digit, int64 [questions].

  Raises:
    UserError: a digit has none.
  """
  chosen = np.empty(len(digits), np.int64)
  for digit in range(NUM_DIGITS):
    where = np.flatnonzero(digits == digit)
    found = np.flatnonzero(of_media == digit)
    if len(where) and not len(found):
      raise errors.UserError(
        f'Questions of the kind {kind} need each of the {NUM_DIGITS} digits; the split has no '
        f'image or recording of {digit}.'
      )
    chosen[where] = np.resize(random.permutation(found), len(where))
  return chosen


def source(definition: WorkloadDefinition, split: str, open_media: Open) -> Mixture | Packed:
  """Returns packed rows of all kinds for training, and questions of all kinds for another split.

  The kinds share a split evenly; in training, their weights set how often each comes.

  Raises:
    UserError: a kind is unknown, a weight is not positive, or a question does not fit in a row.
  """
  form, kinds = definition.data, definition.data.kinds
  for kind in kinds:
    if kind not in KINDS:
      raise errors.unknown(f'kind of question of {definition.name}', kind, KINDS)
  probe = definition.probes.get(split)
  is_probe = split == HELD_OUT_PAIRS
  if is_probe:
    kinds = tuple(kind for kind in kinds if KINDS[kind].is_sum)
  number = getattr(definition.splits, split) if probe is None else probe.num_examples
  name = f'{definition.name}, {split}'
  sources = {
    kind: _questions(form, kind, split, size, open_media, held_out=is_probe)
    for kind, size in zip(kinds, _shares(number, len(kinds)), strict=True)
  }
  lengths = {kind: one.lengths for kind, one in sources.items()}
  _check_lengths(lengths, form, name)
  mixture = Mixture(sources, {kind: dict(form.weights)[kind] for kind in kinds}, name=name)
  return (
    Packed(mixture, lengths, form.row_length, questions.together) if split == 'train' else mixture
  )


def _questions(
  form: RowForm, kind: str, split: str, number: int, open_media: Open, *, held_out: bool = False
) -> Questions:
  """Returns a source of so many questions of a kind, each of which may have several turns."""
  total = number * form.num_turns
  return joined(DigitSource(form, kind, split, total, open_media, held_out=held_out), form)


def _shares(total: int, number: int) -> list[int]:
  """Returns sizes of so many parts, which differ by 1 at most."""
  return np.diff(np.arange(number + 1) * total // number).tolist()


def _check_lengths(lengths: Mapping[str, np.ndarray], form: RowForm, name: str) -> None:
  """
  Raises:
    UserError: a question is longer than a row.
  """
  for kind, found in lengths.items():
    if len(found) and found.max() > form.row_length:
      raise errors.UserError(
        f'{name}: a question must fit in a row of {form.row_length} positions; one of the kind '
        f'{kind} has {found.max()}. Define a workload with longer rows, larger patches, or without '
        'the kind.'
      )


def generated(form: RowForm, media: Media, number: int, seed: int) -> Iterator[Example]:
  """Yields questions of every kind in turn, without end; they depend on the seed.

  Args:
    number: different questions of each kind.
  """
  sources = [
    _questions(form, kind, f'generated {seed}', number, lambda: media) for kind in form.kinds
  ]
  for index in itertools.count():
    yield from (one[index % number] for one in sources)
