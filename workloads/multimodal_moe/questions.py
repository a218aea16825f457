"""Questions of text, images and audio with text answers, and batches of rows of them.

A batch has these fields, all aligned with the positions of a row. Rows of evaluation hold one
question, and their batches may be shorter than those of training.

- `inputs`: int32 [batch, length], the text token; 0 where a position holds none.
- `modality`: int32 [batch, length], what a position holds: 0 padding, 1 text, 2 image, 3 audio.
- `patches`: uint8 [batch, length, patch_dim], the pixels of a patch; 0 elsewhere.
- `patch_positions`: int32 [batch, length, 2], row and column of a patch in its image.
- `frames`: float32 [batch, length, frames_dim], frames of audio, one after the other; 0 elsewhere.
  Workloads without audio lack it.
- `targets`: int32 [batch, length], the next token of an answer; 0 elsewhere.
- `weights`: float32 [batch, length], 1 where there is a target.
- `task`: int32 [batch, length], the kind of question, as in `task_names`.
- `segments`: int32 [batch, length], the number of a question in its row, from 1; 0 in padding.
  The turns of a question have its number.
- `positions`: int32 [batch, length], the position within the question.

Each question begins with a text token, and one stands between two recordings. So no two recordings
touch, and the audio of a row can be convolved at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from algorithmic_efficiency.data import trees
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.random_numbers import ExampleRandom
from algorithmic_efficiency.data.sources import Example

from .data_records import AUDIO, IMAGE, TEXT, RowForm


def question(
  *,
  task: int,
  modality: np.ndarray,
  text: np.ndarray,
  num_targets: int,
  patches: np.ndarray | None = None,
  frames: np.ndarray | None = None,
) -> Example:
  """Returns a question as an example of a source.

  Args:
    task: its kind, as a position in `task_names`.
    modality: what its positions hold, [length]; the answer ends them.
    text: its tokens in order, and last the one that is only predicted, [text positions + 1].
    num_targets: tokens of the answer, that one included.
    patches: uint8 [image positions, patch_dim]; None without images.
    frames: float32 [audio positions, frames_dim]; None without audio.
  """
  example: dict[str, Any] = {
    'modality': modality,
    'text': text,
    'num_targets': np.int32(num_targets),
    'task': np.int32(task),
  }
  if patches is not None:
    example['patches'] = patches
  if frames is not None:
    example['frames'] = frames
  return example


def num_positions(form: RowForm, num_frames: Any) -> Any:
  """Returns the positions of recordings of so many frames, for a number or an array."""
  return -(-num_frames // form.frames_per_position)


def by_position(form: RowForm, frames: np.ndarray) -> np.ndarray:
  """Returns frames, float32 [n, mels], by position, [positions, frames_dim], padded with 0."""
  number = num_positions(form, len(frames))
  padded = np.zeros((number * form.frames_per_position, form.num_mels), np.float32)
  padded[: len(frames)] = frames
  return padded.reshape(number, form.frames_dim)


def unchanged(example: Example, random: ExampleRandom | None) -> Example:
  """Transforms nothing: questions are made by their sources."""
  return example


def conversation(turns: Iterable[Example]) -> Example:
  """Returns a question with turns, each of which sees those before it and their answers."""
  return {'turns': tuple(turns)}


def _turns(example: Example) -> tuple[Example, ...]:
  return example.get('turns', (example,))


def _length(example: Example) -> int:
  return sum(len(turn['modality']) for turn in _turns(example))


def together(examples: list[Example], *, row_length: int) -> Example:
  """Joins the questions of a packed row.

  Raises:
    TreeError: they are longer than the row.
  """
  total = sum(map(_length, examples))
  if total > row_length:
    raise trees.TreeError(
      f'it and the other questions of its row must have {row_length} positions at most; they have '
      f'{total}, so the stored lengths are wrong.',
      0,
    )
  return {'questions': tuple(examples)}


class Rows:
  """Makes a batch of packed rows, or of questions that have a row each.

  Packed rows have the length of the form. Other rows are as long as the longest question of their
  batch, rounded up to a multiple that the form sets, so that evaluation computes little padding.
  The shards of a batch are equally long: see `for_longest`.

  Args:
    form: the form of a row.
    length: the length of every row; None for the above.
  """

  def __init__(self, form: RowForm, length: int | None = None):
    self._form = form
    self._length = length
    sides = np.arange(form.patches_per_side, dtype=np.int32)
    self._patch_positions = np.stack(np.meshgrid(sides, sides, indexing='ij'), -1).reshape(-1, 2)

  def for_longest(self, length: int) -> Rows:
    """Returns what makes rows for a shard of a batch whose longest question has this length."""
    return Rows(self._form, self._padded(length) if self._length is None else self._length)

  def __call__(self, examples: Sequence[Example]) -> Batch:
    """Returns the batch; see the module.

    Raises:
      TreeError: a question is longer than a row.
    """
    asked = [example.get('questions', (example,)) for example in examples]
    lengths = np.array([_length(one) for row in asked for one in row])
    sizes = [len(row) for row in asked]
    firsts = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)  # the first question of each one's row
    before = np.cumsum(lengths) - lengths
    starts = before - before[firsts]
    self._check(starts + lengths, np.repeat(np.arange(len(asked)), sizes))
    row_length = self._row_length(examples, int(lengths.max()))
    batch = self._empty(len(asked), row_length)
    positions = np.arange(lengths.sum()) - np.repeat(before, lengths)
    row_starts = np.repeat(np.arange(len(asked)), sizes) * row_length
    where = np.repeat(row_starts + starts, lengths) + positions
    numbers = np.arange(len(lengths)) - firsts + 1
    flat = [turn for row in asked for one in row for turn in _turns(one)]
    of_turns = np.array([_length(turn) for turn in flat])
    for name, values in (
      ('positions', positions),
      ('segments', np.repeat(numbers, lengths)),
      ('task', np.repeat([turn['task'] for turn in flat], of_turns)),
    ):
      batch[name].reshape(-1)[where] = values
    self._write_contents(batch, flat, where)
    self._write_targets(batch, flat, where, np.cumsum(of_turns))
    return batch

  def _check(self, stops: np.ndarray, rows: np.ndarray) -> None:
    too_long = np.flatnonzero(stops > self._form.row_length)
    if len(too_long):
      raise trees.TreeError(
        f'a question must fit in a row of {self._form.row_length} positions; it has '
        f'{stops[too_long[0]]}. Leave it out, or define a workload with longer rows.',
        int(rows[too_long[0]]),
      )

  def _row_length(self, examples: Sequence[Example], longest: int) -> int:
    form = self._form
    if self._length is not None:
      return self._length
    if 'questions' in examples[0]:
      return form.row_length
    return self._padded(longest)

  def _padded(self, length: int) -> int:
    multiple = self._form.eval_multiple
    return min(self._form.row_length, -(-length // multiple) * multiple)

  def _empty(self, batch_size: int, row_length: int) -> Batch:
    form = self._form
    names = ('inputs', 'modality', 'targets', 'task', 'segments', 'positions')
    shape = (batch_size, row_length)
    batch: Batch = {name: np.zeros(shape, np.int32) for name in names}
    batch['patches'] = np.zeros((*shape, form.patch_dim), np.uint8)
    batch['patch_positions'] = np.zeros((*shape, 2), np.int32)
    batch['weights'] = np.zeros(shape, np.float32)
    if form.has_audio:
      batch['frames'] = np.zeros((*shape, form.frames_dim), np.float32)
    return batch

  def _write_contents(self, batch: Batch, flat: Sequence[Example], where: np.ndarray) -> None:
    """Writes text, patches and frames to the positions of questions, int64 [positions]."""
    form = self._form
    modality = np.concatenate([one['modality'] for one in flat])
    batch['modality'].reshape(-1)[where] = modality
    texts = np.concatenate([one['text'][:-1] for one in flat])
    batch['inputs'].reshape(-1)[where[modality == TEXT]] = texts
    patches = [one['patches'] for one in flat if 'patches' in one]
    if patches:
      at = where[modality == IMAGE]
      batch['patches'].reshape(-1, form.patch_dim)[at] = np.concatenate(patches)
      tiled = np.tile(self._patch_positions, (len(at) // form.num_patches, 1))
      batch['patch_positions'].reshape(-1, 2)[at] = tiled
    frames = [one['frames'] for one in flat if 'frames' in one]
    if frames:
      at = where[modality == AUDIO]
      batch['frames'].reshape(-1, form.frames_dim)[at] = np.concatenate(frames)

  def _write_targets(
    self, batch: Batch, flat: Sequence[Example], where: np.ndarray, stops: np.ndarray
  ) -> None:
    """Writes the answers, which end the questions at `stops` in `where`."""
    numbers = [int(one['num_targets']) for one in flat]
    answers = np.concatenate(
      [where[stop - number : stop] for stop, number in zip(stops, numbers, strict=True)]
    )
    tokens = [one['text'][-number:] for one, number in zip(flat, numbers, strict=True)]
    batch['targets'].reshape(-1)[answers] = np.concatenate(tokens)
    batch['weights'].reshape(-1)[answers] = 1


def patches_of(form: RowForm, images: np.ndarray) -> np.ndarray:
  """Cuts images, uint8 [n, size, size, channels], into patches, uint8 [n, patches, patch_dim].

  Patches follow each other row by row; the values of one are in the order row, column, channel.
  """
  side, size = form.patches_per_side, form.patch_size
  shape = (len(images), side, size, side, size, form.channels)
  return images.reshape(shape).swapaxes(2, 3).reshape(len(images), side * side, form.patch_dim)


def fake_batch(form: RowForm, endless: Iterable[Example], num_rows: int) -> Batch:
  """Returns a training batch of generated questions: packed rows."""
  return Rows(form)(filled(form, endless, num_rows))


def fake_eval_batch(form: RowForm, endless: Iterable[Example], num_rows: int) -> Batch:
  """Returns an evaluation batch of generated questions, of the greatest length."""
  return Rows(form, form.row_length)(list(itertools.islice(endless, num_rows)))


def filled(form: RowForm, questions: Iterable[Example], num_rows: int) -> list[Example]:
  """Fills rows with the given questions in order, each with as many as fit, for generated data."""
  rows: list[Example] = []
  row: list[Example] = []
  for one in questions:
    if row and sum(map(_length, (*row, one))) > form.row_length:
      rows.append(together(row, row_length=form.row_length))
      row = []
    if len(rows) == num_rows:
      break
    row.append(one)
  return rows
