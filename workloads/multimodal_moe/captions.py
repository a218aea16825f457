"""Images with captions, from a folder with `captions.json` or from TensorFlow Datasets.

The file is one object. Its `images` is a list of objects with a `file` beside the JSON file, a
`split` ('train', 'validation' or 'test') and `captions`, a list of texts:

    {"images": [{"file": "photos/1.jpg", "split": "train", "captions": ["A red bus."]}]}
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import tfds
from algorithmic_efficiency.data.vocabulary import require

FILE = 'captions.json'
BUILDER = 'coco_captions'
SPLITS = ('train', 'validation', 'test')
_OF_BUILDER = {'train': 'train', 'validation': 'val', 'test': 'test'}


class Captioned(Protocol):
  """Images with captions, by split and in order."""

  def num_images(self, split: str) -> int: ...

  def captions(self, split: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the name of each image and its captions, one at least."""
    ...

  def files(self, split: str) -> Iterator[tuple[str, bytes]]:
    """Yields the name of each image and its file."""
    ...


def find(folder: Path) -> Captioned:
  """Opens images with captions.

  Args:
    folder: holds `captions.json`, or the builder `coco_captions` of TensorFlow Datasets.

  Raises:
    UserError: it holds neither, the JSON file has another form, or it names an absent image.
  """
  if (folder / FILE).is_file():
    return _OfJson(folder / FILE)
  if any(folder.rglob('dataset_info.json')):
    return OfBuilder(tfds.open_builder(BUILDER, folder))
  raise errors.UserError(
    f'The images must be in a folder with {FILE}, or in one of TensorFlow Datasets with its '
    f'builder {BUILDER!r}; {folder} holds neither.'
  )


def square(name: str, content: bytes, size: int) -> np.ndarray:
  """Returns the central square of an image at another size, uint8 [size, size, 3].

  Resizing is bilinear, without aliasing. An orientation that the file states is applied.

  Args:
    name: names the image in messages.
    content: its file.

  Raises:
    UserError: the image cannot be read, or Pillow is not installed.
  """
  require('PIL', 'data', what='images')
  from PIL import Image, ImageOps

  try:
    with Image.open(io.BytesIO(content)) as opened:
      image = ImageOps.exif_transpose(opened).convert('RGB')
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise errors.UserError(
      f'The image {name} is damaged or of an unknown kind ({error}); fetch it again.'
    ) from None
  side = min(image.size)
  left, top = ((length - side) // 2 for length in image.size)
  central = image.crop((left, top, left + side, top + side))
  return np.asarray(central.resize((size, size), Image.Resampling.BILINEAR))


class _Image(NamedTuple):
  path: Path
  captions: list[str]


class _OfJson:
  """Images that a JSON file names."""

  def __init__(self, path: Path):
    self._images: dict[str, list[_Image]] = {split: [] for split in SPLITS}
    for number, entry in enumerate(_entries(path)):
      split, image = _image(path, f'image {number} of {path}', entry)
      self._images[split].append(image)

  def num_images(self, split: str) -> int:
    return len(self._images[split])

  def captions(self, split: str) -> Iterator[tuple[str, list[str]]]:
    for image in self._images[split]:
      yield str(image.path), image.captions

  def files(self, split: str) -> Iterator[tuple[str, bytes]]:
    for image in self._images[split]:
      yield str(image.path), image.path.read_bytes()


def _entries(path: Path) -> list[Any]:
  """
  Raises:
    UserError: the file is no JSON, or has another form.
  """
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{path} cannot be read as JSON ({error}).') from None
  images = content.get('images') if isinstance(content, dict) else None
  if not isinstance(images, list):
    raise errors.UserError(
      f'{path} must be an object with a list `images`; its content is {errors.shown(content)}.'
    )
  return images


def _image(path: Path, where: str, entry: Any) -> tuple[str, _Image]:
  """
  Raises:
    UserError: an entry of the file has another form, or names an absent image.
  """
  if not isinstance(entry, dict) or not entry.keys() >= {'file', 'split', 'captions'}:
    raise errors.UserError(
      f'{where} must be an object with file, split and captions; it is {errors.shown(entry)}.'
    )
  file, split, texts = entry['file'], entry['split'], entry['captions']
  if split not in SPLITS:
    raise errors.unknown(f'split of {where}', str(split), SPLITS)
  if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
    raise errors.UserError(
      f'The captions of {where} must be a list of texts; they are {errors.shown(texts)}.'
    )
  if not isinstance(file, str) or not (path.parent / file).is_file():
    raise errors.UserError(
      f'The file of {where} must be an image beside {path.name}; {errors.shown(file)} is absent.'
    )
  return split, _Image(path.parent / file, texts)


class OfBuilder:
  """Images of the builder `coco_captions`."""

  def __init__(self, builder: tfds.Builder):
    self._builder = builder

  def num_images(self, split: str) -> int:
    return self._builder.num_examples(_OF_BUILDER[split])

  def captions(self, split: str) -> Iterator[tuple[str, list[str]]]:
    names = ('image/filename', 'captions')
    for example in self._builder.encoded(_OF_BUILDER[split], names, ()):
      texts = example['captions']
      texts = texts['text'] if isinstance(texts, Mapping) else [one['text'] for one in texts]
      yield _text(example['image/filename']), [_text(text) for text in texts]

  def files(self, split: str) -> Iterator[tuple[str, bytes]]:
    names = ('image/filename', 'image')
    for example in self._builder.encoded(_OF_BUILDER[split], names, ('image',)):
      yield _text(example['image/filename']), bytes(example['image'])


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)
