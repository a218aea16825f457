"""Spoken digits in small: wav files of tones, in the names of the Free Spoken Digit Dataset."""

from __future__ import annotations

import io
import tarfile
import wave
from pathlib import Path

import numpy as np

RATE = 8_000
SPEAKERS = ('ada', 'bob', 'yweweler')
NUM_EACH = 3  # recordings of a digit by a speaker


def samples(digit: int, speaker: str, number: int, rate: int = RATE) -> np.ndarray:
  """A tone that differs for each recording, int16 [samples]."""
  seconds = 0.12 + 0.01 * number
  time = np.arange(round(seconds * rate)) / rate
  frequency = 200 + 90 * digit + 17 * SPEAKERS.index(speaker) + 5 * number
  return np.round(9_000 * np.sin(2 * np.pi * frequency * time)).astype('<i2')


def wav(audio: np.ndarray, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
  content = io.BytesIO()
  with wave.open(content, 'wb') as file:
    file.setnchannels(channels)
    file.setsampwidth(width)
    file.setframerate(rate)
    file.writeframes(audio.tobytes())
  return content.getvalue()


def files(rate: int = RATE) -> dict[str, bytes]:
  return {
    f'{digit}_{speaker}_{number}.wav': wav(samples(digit, speaker, number, rate), rate)
    for digit in range(10)
    for speaker in SPEAKERS
    for number in range(NUM_EACH)
  }


def write(folder: Path, contents: dict[str, bytes]) -> Path:
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    (folder / name).write_bytes(content)
  return folder


def pack(path: Path, contents: dict[str, bytes]) -> Path:
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in contents.items():
      member = tarfile.TarInfo(f'recordings/{name}')
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return path
