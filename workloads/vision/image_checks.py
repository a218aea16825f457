"""Checks encoded images, and brings those of odd kinds into one form.

A gray or RGB image that is coded as JPEG stays as it is, byte for byte. An image of another kind is
stored as PNG, without loss: ImageNet has 22 in CMYK, and a PNG that is named JPEG. EXIF orientation
is ignored, as AlgoPerf ignores it.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import numpy as np

from .pixels import BadImage, require

_MAX_16_BITS = 65_535


class StoredImage(NamedTuple):
  """An image that `pixels.decode` reads: its bytes, its height and its width."""

  encoded: bytes
  height: int
  width: int


def checked(content: bytes) -> StoredImage:
  """Decodes an image completely, and returns what to store.

  Raises:
    BadImage: it is no image, cannot be decoded to its end, or has pixels of an unknown kind.
  """
  require('PIL', 'Pillow')
  from PIL import Image

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of damaged EXIF data and very many pixels
    try:
      with Image.open(io.BytesIO(content)) as image:
        image.load()
        width, height = image.size
        if image.format == 'JPEG' and image.mode in ('L', 'RGB'):
          return StoredImage(content, height, width)
        return StoredImage(_png(_rgb(image)), height, width)
    except Image.UnidentifiedImageError:
      raise BadImage('is no image') from None
    except BadImage:
      raise
    except Exception as error:  # a decoder raises what it likes for damaged bytes
      raise BadImage(f'cannot be decoded ({error})') from None


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
