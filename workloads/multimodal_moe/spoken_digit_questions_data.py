"""Questions about MNIST's images and spoken digits, packed into rows; see `questions.py`.

A prepared set has these fields:

- `images-<split>/patches`: uint8 [n, patches, patch_dim].
- `images-<split>/digits`: int32 [n].
- `recordings-<split>/frames`: float32 of varying length, frames [frames, mels] of a recording.
- `recordings-<split>/digits`: int32 [n].

Its `settings.json` has the settings of features and splits, and the hash of the recordings.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors, seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import digit_images, records
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.prepare import Progress, Source
from algorithmic_efficiency.data.sources import Example, Transform

from . import digits, log_mel, prepared_settings, questions, recordings
from .data_records import SpokenDigitQuestions
from .recordings import Recording

_MNIST, _FSDD = 'mnist', 'fsdd'  # the raw sources
_IMAGES, _RECORDINGS = 'images', 'recordings'  # prefixes of fields
_SPLITS = ('train', 'validation', 'test')
_NUM_VALIDATION_IMAGES = 10_000  # the last of MNIST's training file
_MAX_FAKE_FRAMES = 48


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin and license of images and recordings, and the bytes that both take."""
  mnist = digit_images.MNIST_ABOUT
  return records.About(
    origin=f'{mnist.origin}; Free Spoken Digit Dataset, Z. Jackson et al.',
    licence=f'{mnist.licence}; CC BY-SA 4.0',
    num_bytes=mnist.num_bytes + 21_000_000,
    sources=(_MNIST, _FSDD),
  )


def prepare(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes patches of MNIST's images and log-mel frames of the recordings.

  Args:
    source: `mnist`, a folder with the four files of MNIST; and `fsdd`, a folder or tar file of the
      Free Spoken Digit Dataset.

  Raises:
    UserError: a source is missing or damaged, or holds other recordings than the definition needs.
  """
  if not isinstance(source, Mapping):
    raise errors.UserError(
      f'The data set {definition.dataset} cannot be downloaded: name its sources with --source '
      f'{_MNIST}=FOLDER --source {_FSDD}=FOLDER.'
    )
  folders = {name: Path(source[name]) for name in (_MNIST, _FSDD)}
  _write_images(definition.data, folders[_MNIST], out, progress)
  _write_recordings(definition.data, folders[_FSDD], out, progress)


def source(definition: WorkloadDefinition, root: Path, split: str) -> Mixture | Packed:
  """Returns the questions of a split; those of a probe are about the media of validation.

  Raises:
    UserError: the data is missing or damaged, or a kind, a weight or a length is wrong.
  """
  media = split if split in _SPLITS else 'validation'
  return digits.source(definition, split, functools.partial(_open, definition.data, root, media))


def transform(definition: WorkloadDefinition, train: bool) -> Transform:
  """Returns the function that leaves a question as it is."""
  return questions.unchanged


def collate(definition: WorkloadDefinition) -> questions.Rows:
  """Returns what makes a batch of rows."""
  return questions.Rows(definition.data)


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of questions about generated images and recordings."""
  return questions.fake_batch(
    definition.data, _generated(definition.data, batch_size, seed), batch_size
  )


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of questions about generated images and recordings."""
  return questions.fake_eval_batch(
    definition.data, _generated(definition.data, batch_size, seed), batch_size
  )


def _generated(form: SpokenDigitQuestions, batch_size: int, seed: int) -> Iterator[Example]:
  random = seeds.generator(seed, 'fake')
  number = 2 * digits.NUM_DIGITS
  of_digits = np.arange(number) % digits.NUM_DIGITS
  longest = min(_MAX_FAKE_FRAMES, _space(form) * form.frames_per_position)
  lengths = random.integers(1, longest + 1, size=number) * form.num_mels
  frames = random.standard_normal(lengths.sum(), np.float32)
  shape = (number, form.num_patches, form.patch_dim)
  media = digits.Media(
    patches=random.integers(256, size=shape, dtype=np.uint8),
    image_digits=of_digits,
    frames=records.Ragged(frames, np.cumsum([0, *lengths])),
    recording_digits=of_digits,
  )
  return digits.generated(form, media, 2 * batch_size, seed)


def _space(form: SpokenDigitQuestions) -> int:
  """Returns the positions of the longest generated recording, so that each question fits."""
  num_recordings = 2 * form.num_turns  # two in a question at most
  return max(1, (form.row_length - digits.longest_without_audio(form)) // num_recordings)


def _write_images(
  data: SpokenDigitQuestions, folder: Path, out: records.Writer, progress: Progress
) -> None:
  for group, names in (('train', ('train', 'validation')), ('test', ('test',))):
    if all(out.has(f'{_IMAGES}-{split}/digits') for split in names):
      continue
    images, labels = digit_images.mnist(group, folder, progress)
    first = len(images) - _NUM_VALIDATION_IMAGES
    rows = {'train': slice(first), 'validation': slice(first, None), 'test': slice(None)}
    for split in names:
      patches = questions.patches_of(data, images[rows[split], ..., None])
      own = labels[rows[split]]
      out.array(f'{_IMAGES}-{split}/patches', [patches], shape=patches.shape, dtype=np.uint8)
      out.array(f'{_IMAGES}-{split}/digits', [own], shape=own.shape, dtype=np.int32)


def _write_recordings(
  data: SpokenDigitQuestions, folder: Path, out: records.Writer, progress: Progress
) -> None:
  if all(out.has(f'{_RECORDINGS}-{split}/digits') for split in _SPLITS):
    return
  found = recordings.read(folder, progress)
  sha256 = recordings.sha256(found)
  _check(data, found, sha256, folder)
  prepared_settings.write(out, {**_settings(data), 'recordings_sha256': sha256})
  for split, own in _split(data, found).items():
    if not own:
      raise errors.UserError(
        f'Each split must have recordings; {folder} has none for {split}. The test speaker is '
        f'{data.test_speaker!r}, and of each digit of each other speaker the first '
        f'{data.num_validation} are validation.'
      )
    frames = (_frames(data, one).reshape(-1) for one in own)
    out.ragged(f'{_RECORDINGS}-{split}/frames', frames, dtype=np.float32)
    numbers = np.array([one.digit for one in own], np.int32)
    out.array(f'{_RECORDINGS}-{split}/digits', [numbers], shape=numbers.shape, dtype=np.int32)


def _settings(data: SpokenDigitQuestions) -> dict[str, Any]:
  """The settings that the recordings of a prepared set depend on."""
  settings = {
    'log_mel': asdict(data.log_mel),
    'test_speaker': data.test_speaker,
    'num_validation': data.num_validation,
  }
  if data.recordings_sha256:
    settings['recordings_sha256'] = data.recordings_sha256
  return settings


def _check(data: SpokenDigitQuestions, found: list[Recording], sha256: str, folder: Path) -> None:
  """
  Raises:
    UserError: the definition needs other recordings.
  """
  if data.recordings_sha256 and sha256 != data.recordings_sha256:
    speakers = sorted({one.speaker for one in found})
    raise errors.UserError(
      'The recordings must be those that the target is defined on, with the hash '
      f'{data.recordings_sha256[:12]}; those of {folder}, {len(found):,} by '
      f'{", ".join(speakers)}, have {sha256[:12]}. Give the original files, or define a workload '
      'of your own.'
    )


def _split(data: SpokenDigitQuestions, found: list[Recording]) -> dict[str, list[Recording]]:
  split: dict[str, list[Recording]] = {name: [] for name in _SPLITS}
  for one in found:
    if one.speaker == data.test_speaker:
      split['test'].append(one)
    else:
      split['validation' if one.number < data.num_validation else 'train'].append(one)
  return split


def _frames(data: SpokenDigitQuestions, one: Recording) -> np.ndarray:
  wanted = data.log_mel.sample_rate
  samples = log_mel.resampled(recordings.to_floats(one.samples), one.rate, wanted, one.name)
  return log_mel.features(data.log_mel, samples)


def _open(data: SpokenDigitQuestions, root: Path, split: str) -> digits.Media:
  """Opens the images and recordings of a split.

  Raises:
    UserError: the data is missing or damaged, or was prepared for other settings.
  """
  prepared = records.open_prepared(root)
  prepared_settings.check(prepared, _settings(data))
  patches = prepared.field(f'{_IMAGES}-{split}/patches')
  if patches.shape[1:] != (data.num_patches, data.patch_dim):
    raise records.damaged(
      root,
      f'its images have {list(patches.shape[1:])} patches and values, and the workload needs '
      f'{[data.num_patches, data.patch_dim]}',
    )
  return digits.Media(
    patches=patches,
    image_digits=np.array(prepared.field(f'{_IMAGES}-{split}/digits')),
    frames=prepared.field(f'{_RECORDINGS}-{split}/frames'),
    recording_digits=np.array(prepared.field(f'{_RECORDINGS}-{split}/digits')),
  )
