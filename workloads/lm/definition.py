"""Language modelling on FineWeb-Edu with a decoder-only Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from algorithmic_efficiency.definition import BatchSizes, Budget, Goal, Splits, WorkloadDefinition
from algorithmic_efficiency.spec import LossType


@dataclass(frozen=True, kw_only=True)
class Decoder:
  """Rotary positions, RMS norm, normalised queries and keys, gated MLP, tied embeddings."""

  vocab_size: int = 50_257
  sequence_length: int = 1024
  dim: int = 1024
  num_layers: int = 12
  num_heads: int = 8
  mlp_dim: int = 4096
  rope_theta: float = 500_000.0
  rms_norm_epsilon: float = 1e-6
  init_stddev: float = 0.02


@dataclass(frozen=True, kw_only=True)
class TokenWindows:
  """Consecutive windows of one stream of GPT-2 tokens."""

  sequence_length: int = 1024
  tokenizer: str = 'gpt2'
  source: str = 'FineWeb-Edu sample-10BT'


_A100 = Budget(step_hint=72_000, max_sec=31_967, eval_period_sec=2_571)

WORKLOADS = {
  'finewebedu_lm': WorkloadDefinition(
    name='finewebedu_lm',
    task='lm',
    summary='FineWeb-Edu 10BT, decoder-only Transformer: perplexity',
    dataset='fineweb_edu_10B',
    model=Decoder(),
    data=TokenWindows(),
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metrics=('loss', 'ppl'),
    goal=Goal(metric='ppl', direction='min', validation=22.2995),
    suites={'full': _A100, 'algoperf_a100': _A100},
    splits=Splits(train=8_749_870, eval_train=10_000, validation=100_000, test=None),
    batch_sizes=BatchSizes(train=64, eval=256),
    smoke=None,
    output_params={'pytorch': ('lm_head.weight',)},
    target_source='AlgoPerf, leaderboard of 2026',
  )
}
