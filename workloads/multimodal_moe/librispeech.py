"""Recordings with transcripts, from the folders of LibriSpeech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.vocabulary import require

from . import log_mel
from .data_records import LogMel

# The parts of LibriSpeech that make up each split, by the beginning of their names.
_PARTS = {'train': 'train-clean-', 'validation': 'dev-clean', 'test': 'test-clean'}
_ENDINGS = ('.flac', '.wav')


@dataclass(frozen=True, kw_only=True)
class Utterance:
  """A recording and its transcript, in lower case."""

  path: Path
  transcript: str


def find(folder: Path, splits: Sequence[str]) -> Mapping[str, list[Utterance]]:
  """Returns the utterances of each split, sorted by their names.

  Args:
    folder: `LibriSpeech`, or one above it, with `train-clean-100` and `-360`, `dev-clean` and
      `test-clean`. Each chapter has a file `*.trans.txt` beside its recordings.

  Raises:
    UserError: a part is missing, or a transcript is of another form or has no recording.
  """
  found: dict[str, list[Utterance]] = {}
  for split in splits:
    parts = sorted(path for path in folder.rglob(f'{_PARTS[split]}*') if path.is_dir())
    files = sorted(path for part in parts for path in part.rglob('*.trans.txt'))
    if not files:
      raise errors.UserError(
        f'The recordings must be folders of LibriSpeech with their transcripts; {folder} has no '
        f'*.trans.txt below a folder {_PARTS[split]}*.'
      )
    found[split] = [one for path in files for one in _of_chapter(path)]
  return found


def _of_chapter(path: Path) -> list[Utterance]:
  """
  Raises:
    UserError: a line is of another form or names an absent recording.
  """
  utterances = []
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f'{path} cannot be read ({error}); fetch it again.') from None
  for number, line in enumerate(lines, 1):
    name, _, transcript = line.strip().partition(' ')
    recording = next(
      (path.with_name(name + end) for end in _ENDINGS if path.with_name(name + end).is_file()), None
    )
    if not transcript:
      raise errors.UserError(
        f'A line of a transcript must be a name and a text; line {number} of {path} is '
        f'{errors.shown(line)}.'
      )
    if recording is None:
      raise errors.UserError(
        f'Each line of {path} must have a recording beside it; {name}{_ENDINGS[0]} is absent.'
      )
    utterances.append(Utterance(path=recording, transcript=transcript.lower()))
  return utterances


def frames(one: Utterance, settings: LogMel) -> np.ndarray:
  """Returns the log-mel frames of a recording, float32 [frames, mels]; resampled if it must be.

  Raises:
    UserError: the recording is damaged, empty or not of one channel, or a package is missing.
  """
  require('soundfile', 'audio', what='recordings')
  import soundfile

  try:
    samples, rate = soundfile.read(one.path, dtype='float64', always_2d=True)
  except (soundfile.SoundFileError, OSError) as error:
    raise errors.UserError(
      f'The recording {one.path} is damaged or no audio file ({error}); fetch it again.'
    ) from None
  if samples.shape[1] != 1 or not len(samples):
    raise errors.UserError(
      f'A recording must have one channel and some samples; {one.path} has {samples.shape[1]} and '
      f'{len(samples)}.'
    )
  samples = log_mel.resampled(samples[:, 0], rate, settings.sample_rate, str(one.path))
  return log_mel.features(settings, samples)
