"""Log-mel features of audio, computed once when a data set is prepared."""

from __future__ import annotations

import functools
import math

import numpy as np

from algorithmic_efficiency import errors

from .data_records import LogMel

_FLOOR = 1e-10  # least power
_RANGE = 8.0  # powers of ten from the loudest value of a recording to the quietest that is kept


def features(settings: LogMel, samples: np.ndarray) -> np.ndarray:
  """Returns log-mel frames, float32 [frames, mels].

  A frame is the power spectrum of a Hann window in triangular bands of the mel scale. Its logarithm
  to base 10 is cut at 8 below the largest value of the recording. Then 4 is added and the sum is
  divided by 4, as in Radford et al. (2022), "Robust Speech Recognition via Large-Scale Weak
  Supervision".

  Args:
    samples: audio at the sample rate of the settings, from -1 to 1, [samples]. A recording that is
      shorter than a window is padded with zeros.
  """
  window, hop = settings.window_length, settings.hop_length
  padded = np.pad(samples.astype(np.float64), (0, max(0, window - len(samples))))
  windows = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
  spectra = np.fft.rfft(windows * _hann(window), settings.num_fft, axis=1)
  power = np.square(np.abs(spectra)) @ mel_bands(settings).T
  logs = np.log10(np.maximum(power, _FLOOR))
  return ((np.maximum(logs, logs.max() - _RANGE) + 4) / 4).astype(np.float32)


@functools.lru_cache(maxsize=8)
def mel_bands(settings: LogMel) -> np.ndarray:
  """Returns the weight of each frequency in each band, float64 [mels, num_fft / 2 + 1].

  Bands are triangles of height 1. Their corners are evenly spaced on the scale of O'Shaughnessy
  (1987): 2595 log10(1 + f / 700).

  Raises:
    UserError: a band lies between two frequencies of the transform.
  """
  nyquist = settings.sample_rate / 2
  mels = np.linspace(0.0, 2595 * math.log10(1 + nyquist / 700), settings.num_mels + 2)
  corners = 700 * (10 ** (mels / 2595) - 1)
  frequencies = np.linspace(0.0, nyquist, settings.num_fft // 2 + 1)
  low, center, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
  rising = (frequencies - low) / (center - low)
  falling = (high - frequencies) / (high - center)
  bands = np.maximum(0.0, np.minimum(rising, falling))
  empty = np.flatnonzero(~bands.any(axis=1))
  if len(empty):
    raise errors.UserError(
      f'Each mel band must have a frequency of the Fourier transform; band {empty[0]} of '
      f'{settings.num_mels} has none with num_fft={settings.num_fft}. Lower num_mels or raise '
      'num_fft.'
    )
  return bands


def resampled(samples: np.ndarray, rate: int, wanted: int, name: str) -> np.ndarray:
  """Returns audio at another rate, by a polyphase filter that removes what the rate cannot hold.

  Args:
    samples: [samples] at `rate`.
    name: names the recording in messages.

  Raises:
    UserError: scipy, which resamples, is not installed.
  """
  if rate == wanted:
    return samples
  try:
    from scipy import signal
  except ModuleNotFoundError:
    raise errors.UserError(
      f'{name} has {rate:,} samples a second; the features need {wanted:,}. Resampling needs '
      "scipy, which is not installed: pip install 'algorithmic-efficiency[audio]'"
    ) from None
  divisor = math.gcd(rate, wanted)
  return signal.resample_poly(samples, wanted // divisor, rate // divisor)


@functools.lru_cache(maxsize=8)
def _hann(length: int) -> np.ndarray:
  """Returns a periodic Hann window, float64 [length]."""
  return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
