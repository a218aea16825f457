"""Settings of the data of each workload: the form of its rows, its kinds of questions, its sources.

A row is a sequence of positions. Each holds a token of text, a patch of an image, or some frames of
audio; `questions.py` says how.
"""

from __future__ import annotations

from dataclasses import dataclass

from .words import WORDS

# What a position of a row holds.
PADDING, TEXT, IMAGE, AUDIO = range(4)

WEB_KINDS = ('text', 'caption', 'transcript')  # the sources of `WebMixture`


@dataclass(frozen=True, kw_only=True)
class RowForm:
  """The form of a row, and the mixture that fills it.

  Attributes:
    row_length: positions of a row of training.
    eval_multiple: an evaluation batch is as long as its longest question, rounded up to a multiple
      of this, and at most as long as a row of training.
    vocab_size: number of text tokens.
    image_size: height and width of an image, in pixels.
    patch_size: height and width of a patch, in pixels.
    channels: colors of a pixel.
    num_mels: mel bands of a frame of audio; 0 if there is no audio.
    frames_per_position: frames of audio that share a position.
    num_turns: how many questions of one kind are asked in one context; see `joined.py`.
    weights: the kinds of questions, which are the sources of the training mixture, and the share
      of each among the questions. The shares need not add up to 1.

  Raises:
    ValueError: patches do not tile an image, a size is not positive, audio has only one of its two
      sizes, or a source has two weights.
  """

  row_length: int
  vocab_size: int
  image_size: int
  patch_size: int
  channels: int = 1
  num_mels: int = 0
  frames_per_position: int = 0
  eval_multiple: int = 16
  num_turns: int = 1
  weights: tuple[tuple[str, float], ...]

  def __post_init__(self) -> None:
    sizes = ('row_length', 'vocab_size', 'image_size', 'patch_size', 'channels', 'eval_multiple')
    for name in (*sizes, 'num_turns'):
      if getattr(self, name) < 1:
        raise ValueError(f'{name} must be at least 1; it is {getattr(self, name)}.')
    if self.image_size % self.patch_size:
      raise ValueError(
        f'Patches must tile an image; patches of {self.patch_size} pixels do not tile '
        f'{self.image_size}.'
      )
    if (self.num_mels > 0) != (self.frames_per_position > 0):
      raise ValueError(
        'Audio needs mel bands and frames a position, and both are 0 without audio; they are '
        f'{self.num_mels} and {self.frames_per_position}.'
      )
    if len(set(self.kinds)) < len(self.kinds):
      raise ValueError(f'A mixture names each source once; the names are {self.kinds!r}.')

  @property
  def turn_length(self) -> int:
    """Positions of a row for each turn."""
    return self.row_length // self.num_turns

  @property
  def patches_per_side(self) -> int:
    return self.image_size // self.patch_size

  @property
  def num_patches(self) -> int:
    """Positions of an image."""
    return self.patches_per_side**2

  @property
  def patch_dim(self) -> int:
    """Values of a patch, in the order row, column, channel."""
    return self.patch_size**2 * self.channels

  @property
  def frames_dim(self) -> int:
    """Values of the frames that share a position, frame after frame."""
    return self.frames_per_position * self.num_mels

  @property
  def has_audio(self) -> bool:
    return self.num_mels > 0

  @property
  def kinds(self) -> tuple[str, ...]:
    """The kinds of questions, in the order of `task` in a batch."""
    return tuple(kind for kind, _ in self.weights)


@dataclass(frozen=True, kw_only=True)
class DigitQuestions(RowForm):
  """Questions about scikit-learn's images of handwritten digits, answered in words.

  Pixels are 0 to 16. Images are held out for validation and test, as in the task `vision`. Pairs of
  digits (a, b) with (a + 3 b) % 10 = 7 are never added in training, validation or test; the probe
  adds these alone.
  """

  row_length: int = 24
  vocab_size: int = len(WORDS)
  image_size: int = 8
  patch_size: int = 4
  weights: tuple[tuple[str, float], ...] = (
    ('read_image', 1.0),
    ('read_two_images', 1.0),
    ('add_words', 1.0),
    ('add_image_and_word', 1.0),
    ('add_images', 1.0),
    ('compare_images', 1.0),
  )


@dataclass(frozen=True, kw_only=True)
class LogMel:
  """Log-mel frames of audio: a Hann window, squared magnitudes of its Fourier transform, mel bands.

  Attributes:
    sample_rate: samples a second.
    window_sec: length of a window, in seconds.
    hop_sec: time from one window to the next, in seconds.
    num_fft: length of the Fourier transform, in samples; a window is padded with zeros to it.
    num_mels: triangular bands, evenly spaced on the mel scale from 0 Hz to half the sample rate.

  Raises:
    ValueError: a number is not positive, a window or hop has no sample, or the Fourier transform is
      shorter than a window.
  """

  sample_rate: int
  window_sec: float = 0.025
  hop_sec: float = 0.01
  num_fft: int
  num_mels: int

  def __post_init__(self) -> None:
    for name in ('sample_rate', 'window_sec', 'hop_sec', 'num_fft', 'num_mels'):
      if not getattr(self, name) > 0:
        raise ValueError(f'{name} must be positive; it is {getattr(self, name)}.')
    if not 1 <= self.window_length <= self.num_fft or self.hop_length < 1:
      raise ValueError(
        'Windows and hops must have a sample at least, and windows fit in the Fourier transform; '
        f'a window has {self.window_length}, the transform {self.num_fft}, and a hop '
        f'{self.hop_length}.'
      )

  @property
  def window_length(self) -> int:
    """Samples of a window."""
    return round(self.window_sec * self.sample_rate)

  @property
  def hop_length(self) -> int:
    """Samples from one window to the next."""
    return round(self.hop_sec * self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class SpokenDigitQuestions(RowForm):
  """Questions about MNIST's images and spoken digits, alone and together, answered in words.

  Pixels are 0 to 255. Images are split as in the task `vision`. Held-out pairs of digits are those
  of `DigitQuestions`.

  Attributes:
    log_mel: settings of the audio features.
    test_speaker: the speaker of the test split, who speaks in no other.
    num_validation: of each digit of each other speaker, the first so many recordings are
      validation.
    recordings_sha256: SHA-256 of all recordings, on which the target depends; empty accepts any.
  """

  row_length: int = 128
  vocab_size: int = len(WORDS)
  image_size: int = 28
  patch_size: int = 7
  num_mels: int = 40
  frames_per_position: int = 4
  weights: tuple[tuple[str, float], ...] = (
    ('read_image', 1.0),
    ('transcribe', 1.0),
    ('transcribe_two', 1.0),
    ('add_words', 0.5),
    ('add_spoken_and_image', 2.0),
    ('compare_spoken_and_image', 1.0),
    ('find_spoken_image', 2.0),
  )
  log_mel: LogMel = LogMel(sample_rate=8_000, num_fft=256, num_mels=40)
  test_speaker: str = 'yweweler'
  num_validation: int = 5
  recordings_sha256: str = '28094f9d7a75f872f67e48c71f7bf3605ad9ec8cd4acf5f062870b79dd3feaa7'

  def __post_init__(self) -> None:
    super().__post_init__()
    _check_mels(self, self.log_mel)


@dataclass(frozen=True, kw_only=True)
class WebMixture(RowForm):
  """Pieces of web pages, images with their captions, and recordings with their transcripts.

  A piece of text is predicted token by token. A caption follows its image, a transcript its
  recording, and both are answers.

  Attributes:
    separator: text of the token that begins and ends each example.
    vocabulary_sha256: SHA-256 of the prepared set's `tokenizer.json`; empty accepts any vocabulary
      of the right size.
    captions_per_image: captions of an image that become examples in training; evaluation takes
      the first alone.
    num_train: training examples of each source.
    num_validation: validation examples of each source.
    num_test: test examples of each source.
    log_mel: settings of the audio features.

  Raises:
    ValueError: as of `RowForm`, mel bands differ, or a split lacks the number of a source.
  """

  row_length: int = 1_024
  vocab_size: int = 50_257
  image_size: int = 224
  patch_size: int = 16
  channels: int = 3
  num_mels: int = 80
  frames_per_position: int = 4
  eval_multiple: int = 256
  # About half of the positions are text, a quarter images, and a quarter audio.
  weights: tuple[tuple[str, float], ...] = (('text', 0.27), ('caption', 0.46), ('transcript', 0.27))
  separator: str = '<|endoftext|>'
  vocabulary_sha256: str = '58f5cb8d0be3212fc257c58e507252d5e84eb4ee065e8998090dbddca182abe0'
  captions_per_image: int = 5
  num_train: tuple[tuple[str, int], ...] = (
    ('text', 10_000_000),
    ('caption', 413_915),
    ('transcript', 132_553),
  )
  num_validation: tuple[tuple[str, int], ...] = (
    ('text', 2_500),
    ('caption', 5_000),
    ('transcript', 2_703),
  )
  num_test: tuple[tuple[str, int], ...] = (
    ('text', 2_500),
    ('caption', 5_000),
    ('transcript', 2_620),
  )
  log_mel: LogMel = LogMel(sample_rate=16_000, num_fft=512, num_mels=80)

  def __post_init__(self) -> None:
    super().__post_init__()
    _check_mels(self, self.log_mel)
    for name in ('num_train', 'num_validation', 'num_test'):
      found = tuple(kind for kind, _ in getattr(self, name))
      if found != WEB_KINDS:
        raise ValueError(
          f'{name} must have the number of examples of {", ".join(WEB_KINDS)}; it has those of '
          f'{", ".join(map(str, found))}.'
        )


def _check_mels(form: RowForm, log_mel: LogMel) -> None:
  """
  Raises:
    ValueError: rows and features have different mel bands.
  """
  if form.num_mels != log_mel.num_mels:
    raise ValueError(
      f'Rows must have the mel bands of their features, {log_mel.num_mels}; they have '
      f'{form.num_mels}.'
    )
