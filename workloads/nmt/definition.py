"""German to English translation (WMT) with an encoder-decoder Transformer, and its variants."""

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
class Transformer:
  """Encoder and decoder of equal depth; one table embeds source and target and makes the logits."""

  vocab_size: int = 32_000
  max_length: int = 256
  num_layers: int = 6
  dim: int = 1024
  num_heads: int = 16
  mlp_dim: int = 1024
  activation: str = 'relu'
  gated: bool = False
  pre_norm: bool = True
  attention_temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ParallelText:
  """Packed sentence pairs in training; beam search and BLEU (13a tokens) in evaluation."""

  vocab_size: int = 32_000
  max_length: int = 256
  beam_size: int = 4
  length_penalty: float = 0.6


_A100 = Budget(step_hint=120_000, max_sec=16_114, eval_period_sec=644)
_WMT = WorkloadDefinition(
  name='wmt',
  task='nmt',
  summary='WMT17 German to English, tested on WMT14, Transformer: BLEU',
  dataset='wmt',
  tfds='wmt17_translate/de-en:1.0.0',
  model=Transformer(),
  data=ParallelText(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=('accuracy', 'loss', 'bleu'),
  target=Target(metric='bleu', direction='max', validation=30.8491, test=30.7219),
  suites={
    'full': _A100,
    'algoperf_a100': _A100,
    'algoperf_v06': Budget(step_hint=120_000, max_sec=43_336, eval_period_sec=840),
    'algoperf_v05': Budget(step_hint=133_333, max_sec=48_151, eval_period_sec=840),
  },
  splits=Splits(train=5_906_184, eval_train=3_072, validation=3_000, test=3_003),
  batch_sizes=BatchSizes(train=128, eval=128),
  smoke=None,
  output_params={'jax': ('shared_embedding',), 'pytorch': ('shared_embedding.weight',)},
  dropout_rate=0.1,
  target_source='AlgoPerf; NadamW',
)


def _target(validation: float, test: float) -> Target:
  return replace(_WMT.target, validation=validation, test=test)


WORKLOADS = {
  definition.name: definition
  for definition in (
    _WMT,
    variant(
      _WMT,
      name='wmt_post_ln',
      summary='WMT, layer norm after each residual sum',
      model=replace(_WMT.model, pre_norm=False),
      target=_target(30.0779, 29.8982),
    ),
    variant(
      _WMT,
      name='wmt_attention_temp',
      summary='WMT, attention temperature 4',
      model=replace(_WMT.model, attention_temperature=4.0),
      target=_target(29.3379, 29.4143),
    ),
    variant(
      _WMT,
      name='wmt_glu_tanh',
      summary='WMT, gated feed-forward blocks with tanh',
      held_out_in=('algoperf_v05',),
      model=replace(_WMT.model, gated=True, activation='tanh'),
      target=_target(29.5779, 29.0515),
    ),
  )
}
