"""Click-through-rate prediction on the Criteo 1TB logs with a small DLRM, and its variants."""

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
class Dlrm:
  """One shared embedding table, a bottom and a top MLP, and pairwise dot interactions in between.

  `residual` adds the input of each layer to its output, and concatenates instead of interacting.
  `embedding_init_scale` is the standard deviation of the initial table. None is uniform in (0, 1),
  divided by the square root of the vocabulary size.
  """

  vocab_size: int = 4_194_304
  embedding_dim: int = 128
  num_dense_features: int = 13
  num_sparse_features: int = 26
  bottom_mlp: tuple[int, ...] = (512, 256, 128)
  top_mlp: tuple[int, ...] = (1024, 1024, 512, 256, 1)
  layer_norm: bool = False
  embedding_init_scale: float | None = None
  residual: bool = False


@dataclass(frozen=True, kw_only=True)
class ClickLogs:
  """Days of the log for training; the files of the last day are split in two."""

  train_days: tuple[int, int] = (0, 22)
  test_files: tuple[int, int] = (0, 18)
  validation_files: tuple[int, int] = (19, 35)


_HINT = 10_666
_CRITEO = WorkloadDefinition(
  name='criteo1tb',
  task='ctr',
  summary='Criteo 1TB click logs, DLRM small: probability of a click',
  dataset='criteo1tb',
  model=Dlrm(),
  data=ClickLogs(),
  loss_type=LossType.SIGMOID_CROSS_ENTROPY,
  metrics=('loss',),
  target=Target(metric='loss', direction='min', validation=0.123735, test=0.126041),
  suites={
    'algoperf_a100': Budget(step_hint=_HINT, max_sec=8_915, eval_period_sec=356),
    'algoperf_v06': Budget(step_hint=_HINT, max_sec=7_703, eval_period_sec=120),
    'algoperf_v05': Budget(step_hint=_HINT, max_sec=7_703, eval_period_sec=120),
  },
  splits=Splits(train=4_195_197_692, eval_train=83_361_792, validation=83_274_637, test=95_000_000),
  batch_sizes=BatchSizes(train=262_144, eval=131_072),
  smoke=None,
  output_params={'jax': ('Dense_7',), 'pytorch': ('top_mlp.4.weight', 'top_mlp.4.bias')},
  target_source='AlgoPerf; NadamW',
)


def _target(validation: float, test: float) -> Target:
  return replace(_CRITEO.target, validation=validation, test=test)


WORKLOADS = {
  definition.name: definition
  for definition in (
    _CRITEO,
    variant(
      _CRITEO,
      name='criteo1tb_test',
      summary='Criteo 1TB with a small embedding table, for tests on small machines',
      model=replace(_CRITEO.model, vocab_size=65_536),
    ),
    variant(
      _CRITEO,
      name='criteo1tb_layernorm',
      summary='Criteo 1TB, layer norm after each MLP layer and the embeddings',
      model=replace(_CRITEO.model, layer_norm=True),
      target=_target(0.123757, 0.126152),
    ),
    variant(
      _CRITEO,
      name='criteo1tb_embed_init',
      summary='Criteo 1TB, embeddings initialized with scale 1',
      held_out_in=('algoperf_v05',),
      model=replace(_CRITEO.model, embedding_init_scale=1.0),
      target=_target(0.129657, 0.131967),
    ),
    variant(
      _CRITEO,
      name='criteo1tb_resnet',
      summary='Criteo 1TB, residual MLPs and concatenation in place of dot interactions',
      model=replace(
        _CRITEO.model,
        residual=True,
        bottom_mlp=(256, 256, 256),
        top_mlp=(256, 256, 256, 256, 1),
      ),
      target=_target(0.12415, 0.12648),
    ),
  )
}
