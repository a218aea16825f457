"""Audio: log-mel features against a plain reference, recordings that are read or refused."""

from __future__ import annotations

import cmath
import dataclasses
import math
import sys

import moe_recordings
import numpy as np
import pytest

from algorithmic_efficiency import errors
from workloads.multimodal_moe import log_mel, questions, recordings
from workloads.multimodal_moe.data_records import LogMel, SpokenDigitQuestions, WebMixture

SMALL = LogMel(sample_rate=800, window_sec=0.02, hop_sec=0.01, num_fft=32, num_mels=6)


def plain_features(settings, samples):
  """Log-mel frames by their definition: loops over frames, frequencies, samples and bands."""
  window, hop, size = 16, 8, settings.num_fft
  samples = [*samples, *[0.0] * (window - len(samples))]
  top = 2595 * math.log10(1 + settings.sample_rate / 2 / 700)
  corners = [
    700 * (10 ** (top * i / (settings.num_mels + 1) / 2595) - 1)
    for i in range(settings.num_mels + 2)
  ]
  frames = []
  for start in range(0, len(samples) - window + 1, hop):
    powers = []
    for k in range(size // 2 + 1):
      total = 0j
      for n in range(window):
        hann = 0.5 - 0.5 * math.cos(2 * math.pi * n / window)
        total += samples[start + n] * hann * cmath.exp(-2j * math.pi * k * n / size)
      powers.append(abs(total) ** 2)
    bands = []
    for low, center, high in zip(corners, corners[1:], corners[2:], strict=False):
      total = 0.0
      for k, power in enumerate(powers):
        frequency = k * settings.sample_rate / size
        if low < frequency <= center:
          total += power * (frequency - low) / (center - low)
        elif center < frequency < high:
          total += power * (high - frequency) / (high - center)
      bands.append(math.log10(max(total, 1e-10)))
    frames.append(bands)
  least = max(map(max, frames)) - 8
  return [[(max(value, least) + 4) / 4 for value in bands] for bands in frames]


@pytest.mark.parametrize('length', [5, 16, 23, 24, 61])
def test_features_are_those_of_a_plain_reference(length):
  samples = np.random.default_rng(length).uniform(-1, 1, length)
  samples[length // 2 :] *= 1e-6  # so that the cut below the largest value matters
  found = log_mel.features(SMALL, samples)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, plain_features(SMALL, samples), rtol=0, atol=1e-5)


def test_silence_has_features():
  assert (log_mel.features(SMALL, np.zeros(40)) == np.float32((-10 + 4) / 4)).all()


def test_a_tone_is_loudest_in_its_band():
  settings = SpokenDigitQuestions().log_mel
  time = np.arange(4_000) / settings.sample_rate
  bands = log_mel.mel_bands(settings)
  for band in (5, 20, 35):
    frequency = np.argmax(bands[band]) * settings.sample_rate / settings.num_fft
    frames = log_mel.features(settings, np.sin(2 * np.pi * frequency * time))
    assert len(frames) == 1 + (4_000 - 200) // 80
    assert (np.abs(frames.argmax(axis=1) - band) <= 1).all()


def test_each_band_has_a_frequency():
  for settings in (SMALL, SpokenDigitQuestions().log_mel):
    assert (log_mel.mel_bands(settings).sum(axis=1) > 0).all()


@pytest.mark.slow
def test_other_rates_are_resampled():
  """A tone that both rates can hold stays; one above half of the wanted rate goes."""
  pytest.importorskip('scipy')
  time = np.arange(16_000) / 16_000
  low, high = (np.sin(2 * np.pi * f * time) for f in (500.0, 6_000.0))
  found = log_mel.resampled(low + high, 16_000, 8_000, 'it')
  expected = np.sin(2 * np.pi * 500.0 * np.arange(8_000) / 8_000)
  assert len(found) == 8_000
  np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=5e-3)
  assert log_mel.resampled(low, 8_000, 8_000, 'it') is low


def test_another_rate_without_scipy_names_rate_and_package(monkeypatch):
  monkeypatch.setitem(sys.modules, 'scipy', None)
  with pytest.raises(errors.UserError, match=r'0_ada_1\.wav has 16,000 .* need 8,000.*\[audio\]'):
    log_mel.resampled(np.zeros(9), 16_000, 8_000, '0_ada_1.wav')


def test_frames_share_positions_and_the_last_is_padded():
  form = dataclasses.replace(SpokenDigitQuestions(), frames_per_position=3)
  frames = np.random.default_rng(0).standard_normal((7, 40), np.float32)
  found = questions.by_position(form, frames)
  assert found.shape == (3, 120) and questions.num_positions(form, 7) == 3
  np.testing.assert_array_equal(found.reshape(9, 40)[:7], frames)
  assert not found[2, 40:].any()


def read(path):
  return recordings.read(path, lambda *_: None)


def test_a_folder_and_a_tar_file_give_the_same_recordings(tmp_path):
  contents = moe_recordings.files()
  folder = moe_recordings.write(tmp_path / 'folder' / 'below', contents).parent
  (folder / 'README.md').write_text('Recordings.')
  shuffled = dict(reversed(contents.items()))
  packed = moe_recordings.pack(tmp_path / 'recordings.tar.gz', shuffled)
  found = [read(path) for path in (folder, packed, tmp_path)]
  assert [len(one) for one in found] == [len(contents)] * 3
  assert len({recordings.sha256(one) for one in found}) == 1
  for one in found[1]:
    expected = moe_recordings.samples(one.digit, one.speaker, one.number)
    np.testing.assert_array_equal(one.samples, expected)
  assert [one[:3] for one in found[0]] == sorted(one[:3] for one in found[0])


def test_the_hash_of_recordings_depends_on_samples_and_rate(tmp_path):
  found = read(moe_recordings.write(tmp_path / 'a', moe_recordings.files()))
  expected = recordings.sha256(found)
  louder = [*found[:-1], found[-1]._replace(samples=found[-1].samples + 1)]
  faster = [*found[:-1], found[-1]._replace(rate=16_000)]
  assert len({expected, *map(recordings.sha256, (louder, faster, found[1:]))}) == 4


TONE = moe_recordings.samples(1, 'ada', 1)
DAMAGED = {
  'stereo': (moe_recordings.wav(TONE, channels=2), 'one channel of 16 bits; .* has 2 of 16 bits'),
  'bytes': (moe_recordings.wav(TONE, width=1), 'has 1 of 8 bits'),
  'cut': (moe_recordings.wav(TONE)[:-100], r'must hold 1040 samples, .*holds 990'),
  'empty': (moe_recordings.wav(TONE[:0]), 'must hold 0 samples, and one at least'),
  'text': (b'no wav file at all', 'damaged or no wav file'),
  'header': (moe_recordings.wav(TONE)[:20], 'damaged or no wav file'),
}


@pytest.mark.parametrize('damage', DAMAGED)
def test_a_damaged_recording_is_named(tmp_path, damage):
  content, message = DAMAGED[damage]
  folder = moe_recordings.write(tmp_path / 'a', {**moe_recordings.files(), '1_ada_1.wav': content})
  with pytest.raises(errors.UserError, match=message) as caught:
    read(folder)
  assert '1_ada_1.wav' in str(caught.value)


def test_a_folder_without_recordings_says_what_it_must_hold(tmp_path):
  moe_recordings.write(tmp_path / 'a', {'one.wav': b'', '1_ada.wav': b''})
  with pytest.raises(errors.UserError, match=r'named \{digit\}_\{speaker\}_\{number\}\.wav'):
    read(tmp_path / 'a')


def test_a_recording_that_comes_twice_is_named(tmp_path):
  for below in ('one', 'two'):
    moe_recordings.write(tmp_path / below, {'1_ada_1.wav': moe_recordings.wav(TONE)})
  with pytest.raises(errors.UserError, match=r'holds 1_ada_1\.wav twice'):
    read(tmp_path)


@pytest.mark.parametrize('damage', ['truncated', 'text'])
def test_a_damaged_tar_file_is_named(tmp_path, damage):
  path = moe_recordings.pack(tmp_path / 'recordings.tar.gz', moe_recordings.files())
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2] if damage == 'truncated' else b'not packed')
  with pytest.raises(
    errors.UserError, match=r'recordings\.tar\.gz is truncated, damaged or no tar'
  ):
    read(path)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'sample_rate': 0}, 'sample_rate must be positive; it is 0'),
    ({'hop_sec': float('nan')}, 'hop_sec must be positive; it is nan'),
    ({'num_mels': -1}, 'num_mels must be positive; it is -1'),
    ({'window_sec': 0.05}, 'a window has 40, the transform 32, and a hop 8'),
    ({'window_sec': 1e-5}, 'a window has 0, the transform 32, and a hop 8'),
    ({'hop_sec': 1e-5}, 'a window has 16, the transform 32, and a hop 0'),
  ],
)
def test_settings_of_features_are_checked(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **change)


def test_a_mel_band_without_a_frequency_is_refused():
  settings = dataclasses.replace(SMALL, num_mels=30)
  with pytest.raises(errors.UserError, match=r'band \d+ of 30 has none with num_fft=32'):
    log_mel.features(settings, np.zeros(40))


@pytest.mark.parametrize('settings', [SpokenDigitQuestions().log_mel, WebMixture().log_mel])
def test_every_band_of_the_workloads_has_a_frequency(settings):
  assert log_mel.mel_bands(settings).any(axis=1).all()
