"""Reads the recordings of the Free Spoken Digit Dataset, and audio files in general."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.prepare import Progress

_NAME = re.compile(r'(\d)_([a-z]+)_(\d+)\.wav')
_FULL_SCALE = 1 << 15


class Recording(NamedTuple):
  """A spoken digit.

  Attributes:
    digit: from 0 to 9.
    speaker: their name.
    number: number of the recording among those of digit and speaker.
    samples: int16 [samples].
    rate: samples a second.
  """

  digit: int
  speaker: str
  number: int
  samples: np.ndarray
  rate: int

  @property
  def name(self) -> str:
    return f'{self.digit}_{self.speaker}_{self.number}.wav'


def read(source: Path, progress: Progress) -> list[Recording]:
  """Reads all recordings, sorted by digit, speaker and number.

  Args:
    source: a folder with files named `{digit}_{speaker}_{number}.wav`, at any depth; a tar file of
      such a folder; or a folder with `recordings.tar.gz`.

  Raises:
    UserError: there are no recordings, one comes twice, or a file cannot be read.
  """
  found: dict[str, Recording] = {}
  for name, content in _files(source):
    match = _NAME.fullmatch(name)
    if match is None:
      continue
    if name in found:
      raise errors.UserError(f'{source} must hold each recording once; it holds {name} twice.')
    digit, speaker, number = match.groups()
    found[name] = Recording(int(digit), speaker, int(number), *_wave(content, f'{source}: {name}'))
    progress('read recordings', len(found), None)
  if not found:
    raise errors.UserError(
      'The recordings must be files named {digit}_{speaker}_{number}.wav, in a folder or a tar '
      f'file; {source} has none.'
    )
  return sorted(found.values(), key=lambda one: one[:3])


def sha256(recordings: list[Recording]) -> str:
  """Returns a hash of names, rates and samples, the same for any packing of the files."""
  content = hashlib.sha256()
  for one in recordings:
    content.update(f'{one.name} {one.rate} {len(one.samples)}\n'.encode())
    content.update(one.samples.astype('<i2').tobytes())
  return content.hexdigest()


def to_floats(samples: np.ndarray) -> np.ndarray:
  """Returns int16 samples as float64 from -1 to 1."""
  return samples.astype(np.float64) / _FULL_SCALE


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
  """Yields names and contents of the files of a folder or tar file.

  Raises:
    UserError: the tar file is truncated or none.
  """
  if source.is_dir():
    packed = source / 'recordings.tar.gz'
    if not packed.is_file():
      for path in sorted(source.rglob('*.wav')):
        yield path.name, path.read_bytes()
      return
    source = packed
  try:
    with tarfile.open(source) as archive:
      for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is not None:
          yield Path(member.name).name, file.read()
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    raise errors.UserError(
      f'{source} is truncated, damaged or no tar file ({error}); fetch it again.'
    ) from None


def _wave(content: bytes, name: str) -> tuple[np.ndarray, int]:
  """Returns samples, int16 [samples], and rate of a wav file.

  Raises:
    UserError: it is damaged, empty, or has other than one channel of 16 bits.
  """
  try:
    with wave.open(io.BytesIO(content)) as file:
      form = (file.getnchannels(), file.getsampwidth())
      rate, expected = file.getframerate(), file.getnframes()
      samples = np.frombuffer(file.readframes(expected), '<i2') if form == (1, 2) else None
  except (wave.Error, EOFError, ValueError) as error:
    raise errors.UserError(f'{name} is damaged or no wav file ({error}).') from None
  if samples is None:
    raise errors.UserError(
      f'A recording must have one channel of 16 bits; {name} has {form[0]} of {8 * form[1]} bits.'
    )
  if len(samples) != expected or not expected:
    raise errors.UserError(
      f'{name} must hold {expected} samples, and one at least; it holds {len(samples)}.'
    )
  return samples, rate
