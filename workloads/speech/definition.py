"""Speech recognition on LibriSpeech with a Conformer and with DeepSpeech, and their variants."""

from __future__ import annotations

from dataclasses import dataclass, replace

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
)
from algorithmic_efficiency.spec import LossType


@dataclass(frozen=True, kw_only=True)
class SpecAugment:
  """Masks on the log-mel spectrogram; widths in bins and frames."""

  num_freq_masks: int = 2
  max_freq_bins: int = 27
  num_time_masks: int = 10
  max_time_frames: int = 40
  max_time_ratio: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Conformer:
  vocab_size: int = 1024
  dim: int = 512
  num_heads: int = 8
  num_layers: int = 4
  conv_kernel: int = 5
  feed_forward_factor: int = 4
  activation: str = 'swish'
  attention_temperature: float = 1.0
  post_block_layer_norm: bool = True
  spec_augment: SpecAugment = SpecAugment()


@dataclass(frozen=True, kw_only=True)
class DeepSpeech:
  """Convolutional subsampling, bidirectional LSTMs with `norm` before, feed-forward layers."""

  vocab_size: int = 1024
  dim: int = 512
  num_lstm_layers: int = 6
  num_feed_forward_layers: int = 3
  activation: str = 'relu'
  residual: bool = True
  norm: str = 'batch'
  decoder_layer_norm: bool = True
  spec_augment: SpecAugment = SpecAugment()


@dataclass(frozen=True, kw_only=True)
class Librispeech:
  """Audio of at most 20 seconds, transcripts of at most 256 tokens, log-mel front end."""

  sample_rate_hz: int = 16_000
  max_audio_samples: int = 320_000
  max_target_tokens: int = 256
  num_mel_bins: int = 80
  window_sec: float = 0.025
  hop_sec: float = 0.010
  min_hz: float = 125.0
  max_hz: float = 7600.0
  preemphasis: float = 0.97


_CONFORMER = WorkloadDefinition(
  name='librispeech_conformer',
  task='speech',
  summary='LibriSpeech, Conformer: word error rate',
  dataset='librispeech',
  model=Conformer(),
  data=Librispeech(),
  loss_type=LossType.CTC_LOSS,
  metrics=('ctc_loss', 'wer'),
  target=Target(metric='wer', direction='min', validation=0.085884, test=0.052981),
  suites={
    'algoperf_a100': Budget(step_hint=76_000, max_sec=43_680, eval_period_sec=1_747),
    'algoperf_v06': Budget(step_hint=76_000, max_sec=58_015, eval_period_sec=1_440),
    'algoperf_v05': Budget(step_hint=80_000, max_sec=61_068, eval_period_sec=1_440),
  },
  splits=Splits(train=263_840, eval_train=5_376, validation=5_348, test=2_472),
  batch_sizes=BatchSizes(train=256, eval=256),
  smoke=None,
  output_params={'jax': ('Dense_0',), 'pytorch': ('lin.weight', 'lin.bias')},
  independent_examples=False,  # batch norm in the convolution of each block
  dropout_rate=0.1,
  target_source='AlgoPerf; NadamW',
)

_DEEPSPEECH = replace(
  _CONFORMER,
  name='librispeech_deepspeech',
  base='librispeech_deepspeech',
  summary='LibriSpeech, DeepSpeech: word error rate',
  model=DeepSpeech(),
  target=replace(_CONFORMER.target, validation=0.119936, test=0.074143),
  suites={
    'algoperf_a100': Budget(step_hint=38_400, max_sec=36_949, eval_period_sec=1_447),
    'algoperf_v06': Budget(step_hint=38_400, max_sec=44_405, eval_period_sec=1_440),
    'algoperf_v05': Budget(step_hint=48_000, max_sec=55_506, eval_period_sec=1_440),
  },
)


def _target(validation: float, test: float) -> Target:
  return replace(_CONFORMER.target, validation=validation, test=test)


WORKLOADS = {
  definition.name: definition
  for definition in (
    _CONFORMER,
    _DEEPSPEECH,
    variant(
      _CONFORMER,
      name='librispeech_conformer_attention_temperature',
      summary='LibriSpeech, Conformer, attention temperature 1.6',
      model=replace(_CONFORMER.model, attention_temperature=1.6),
      target=_target(0.109977, 0.068065),
    ),
    variant(
      _CONFORMER,
      name='librispeech_conformer_layernorm',
      summary='LibriSpeech, Conformer without layer norm after each block',
      held_out_in=('algoperf_v05',),
      model=replace(_CONFORMER.model, post_block_layer_norm=False),
      target=_target(0.09731, 0.05996),
    ),
    variant(
      _CONFORMER,
      name='librispeech_conformer_gelu',
      summary='LibriSpeech, Conformer, GELU',
      model=replace(_CONFORMER.model, activation='gelu'),
      target=_target(0.094114, 0.056629),
    ),
    variant(
      _DEEPSPEECH,
      name='librispeech_deepspeech_tanh',
      summary='LibriSpeech, DeepSpeech, tanh',
      model=replace(_DEEPSPEECH.model, activation='tanh'),
      target=_target(0.150883, 0.098613),
    ),
    variant(
      _DEEPSPEECH,
      name='librispeech_deepspeech_no_resnet',
      summary='LibriSpeech, DeepSpeech without residual connections',
      model=replace(_DEEPSPEECH.model, residual=False),
      target=_target(0.131564, 0.079297),
    ),
    variant(
      _DEEPSPEECH,
      name='librispeech_deepspeech_norm_and_spec_aug',
      summary='LibriSpeech, DeepSpeech, layer norm for batch norm and more spectrogram masks',
      model=replace(
        _DEEPSPEECH.model,
        norm='layer',
        decoder_layer_norm=False,
        spec_augment=SpecAugment(num_freq_masks=4, num_time_masks=15),
      ),
      independent_examples=True,
      batch_sizes=BatchSizes(train=256, eval=128),
      target=_target(0.14342, 0.090976),
    ),
  )
}
