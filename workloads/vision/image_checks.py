"""Checks encoded images, and brings those of odd kinds into one form.

A gray or RGB image that is coded as JPEG stays as it is, byte for byte. An image of another kind is
stored as PNG, without loss: ImageNet has 22 in CMYK, and a PNG that is named JPEG. EXIF orientation
is ignored, as AlgoPerf ignores it.

A damaged JPEG often decodes to its end, with gray or wrong pixels: libjpeg only warns. simplejpeg
raises the first of these warnings as an error. OpenCV prints them, and Pillow drops them. Some
warnings are not about pixels: files of ImageNet have bytes behind their last pixel (issue 1522 of
apache/mxnet). Changed bits that make other valid pixels cannot be found.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from algorithmic_efficiency import errors

from .pixels import BadImage, require

_MAX_16_BITS = 65_535
# In the warnings of libjpeg after which pixels are missing or wrong.
_DAMAGE = ('premature end', 'bad huffman code', 'bad arithmetic code', 'instead of rst')


class StoredImage(NamedTuple):
  """An image that `pixels.decode` reads: its bytes, its height and its width."""

  encoded: bytes
  height: int
  width: int


def checked(content: bytes) -> StoredImage:
  """Decodes an image completely, and returns what to store.

  Raises:
    BadImage: it is no image, is damaged, or has pixels of an unknown kind.
    UserError: a library is not installed.
  """
  require('PIL', 'Pillow')
  from PIL import Image

  try:
    with Image.open(io.BytesIO(content)) as image:
      is_jpeg = image.format == 'JPEG'
      is_decoded = is_jpeg and _decodes_unharmed(content)
      is_plain = is_jpeg and image.mode in ('L', 'RGB')
      if not (is_plain and is_decoded):
        image.load()
      width, height = image.size
      return StoredImage(content if is_plain else _png(_rgb(image)), height, width)
  except Image.UnidentifiedImageError:
    raise BadImage('is no image') from None
  except (BadImage, errors.UserError):
    raise
  except Exception as error:  # a decoder raises what it likes for damaged bytes
    raise BadImage(f'cannot be decoded ({error})') from None


def _decodes_unharmed(content: bytes) -> bool:
  """Decodes a JPEG file; returns False if it is of a kind that simplejpeg does not read.

  Raises:
    BadImage: pixels are missing or wrong.
  """
  require('simplejpeg', 'simplejpeg')
  import simplejpeg

  try:
    simplejpeg.decode_jpeg(content, strict=True)
  except ValueError as error:
    if any(text in str(error).lower() for text in _DAMAGE):
      raise BadImage(f'is damaged ({error})') from None
    return False
  return True


def _rgb(image: Any) -> Any:
  """
  Raises:
    BadImage: the pixels are no colors or gray values.
  """
  from PIL import Image

  if image.mode.startswith('I'):
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > _MAX_16_BITS:
      raise BadImage('has pixels of more than 16 bits')
    return Image.fromarray((pixels >> 8).astype(np.uint8)).convert('RGB')
  if image.mode == 'F':
    raise BadImage('has floating-point pixels')
  return image.convert('RGB')


def _png(image: Any) -> bytes:
  file = io.BytesIO()
  image.save(file, 'PNG')
  return file.getvalue()
