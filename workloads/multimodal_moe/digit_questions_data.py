"""Questions about scikit-learn's images of digits, packed into rows; see `questions.py`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from algorithmic_efficiency import seeds
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import digit_images, records
from algorithmic_efficiency.data.mixture import Mixture
from algorithmic_efficiency.data.packing import Packed
from algorithmic_efficiency.data.pipeline import Batch
from algorithmic_efficiency.data.sources import Example, Transform

from . import digits, questions
from .data_records import DigitQuestions

_MAX_PIXEL = 16


def about(definition: WorkloadDefinition) -> records.About:
  """Returns origin, license and size of the images."""
  return digit_images.DIGITS_ABOUT


def source(definition: WorkloadDefinition, root: Path, split: str) -> Mixture | Packed:
  """Returns the questions of a split; those of a probe are about the images of validation.

  Raises:
    UserError: scikit-learn is missing, or a kind, a weight or a length is wrong.
  """
  images = split if split in ('train', 'validation', 'test') else 'validation'
  return digits.source(definition, split, functools.partial(_open, definition.data, images))


def transform(definition: WorkloadDefinition, train: bool) -> Transform:
  """Returns the function that leaves a question as it is."""
  return questions.unchanged


def collate(definition: WorkloadDefinition) -> questions.Rows:
  """Returns what makes a batch of rows."""
  return questions.Rows(definition.data)


def fake_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns a training batch of questions about generated images."""
  return questions.fake_batch(
    definition.data, _generated(definition.data, batch_size, seed), batch_size
  )


def fake_eval_batch(definition: WorkloadDefinition, batch_size: int, seed: int) -> Batch:
  """Returns an evaluation batch of questions about generated images."""
  return questions.fake_eval_batch(
    definition.data, _generated(definition.data, batch_size, seed), batch_size
  )


def _generated(form: DigitQuestions, batch_size: int, seed: int) -> Iterator[Example]:
  shape = (2 * digits.NUM_DIGITS, form.num_patches, form.patch_dim)
  random = seeds.generator(seed, 'fake')
  media = digits.Media(
    patches=random.integers(_MAX_PIXEL + 1, size=shape, dtype=np.uint8),
    image_digits=np.arange(shape[0]) % digits.NUM_DIGITS,
  )
  return digits.generated(form, media, 2 * batch_size, seed)


def _open(form: DigitQuestions, split: str) -> digits.Media:
  images, image_digits = digit_images.digits()[split]
  return digits.Media(patches=questions.patches_of(form, images), image_digits=image_digits)
