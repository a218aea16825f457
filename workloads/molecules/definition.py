"""128 binary properties of molecules (ogbg-molpcba) with a graph network, and its variants."""

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
class GraphNetwork:
  """Message passing with MLPs on edges, nodes and globals."""

  num_steps: int = 5
  latent_dim: int = 256
  hidden_dims: tuple[int, ...] = (256,)
  num_outputs: int = 128
  activation: str = 'relu'


@dataclass(frozen=True, kw_only=True)
class Molecules:
  """Graphs are packed into batches of a fixed number of nodes and edges for each graph."""

  num_node_features: int = 9
  num_edge_features: int = 3
  num_nodes_per_graph: int = 26
  num_edges_per_graph: int = 56


_OGBG = WorkloadDefinition(
  name='ogbg',
  task='molecules',
  summary='ogbg-molpcba, graph network: mean average precision over 128 properties',
  dataset='ogbg',
  tfds='ogbg_molpcba:0.1.3',
  model=GraphNetwork(),
  data=Molecules(),
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,  # as AlgoPerf declares it; the loss is binary
  metrics=('accuracy', 'loss', 'mean_average_precision'),
  target=Target(
    metric='mean_average_precision', direction='max', validation=0.28098, test=0.268729
  ),
  suites={
    'algoperf_a100': Budget(step_hint=52_000, max_sec=11_303, eval_period_sec=452),
    'algoperf_v06': Budget(step_hint=52_000, max_sec=12_011, eval_period_sec=240),
    'algoperf_v05': Budget(step_hint=80_000, max_sec=18_477, eval_period_sec=240),
  },
  splits=Splits(train=350_343, eval_train=43_793, validation=43_793, test=43_793),
  batch_sizes=BatchSizes(train=512, eval=32_768),
  smoke=None,
  output_params={'jax': ('Dense_17',), 'pytorch': ('decoder.weight', 'decoder.bias')},
  dropout_rate=0.1,
  target_source='AlgoPerf; Nesterov',
)


def _target(validation: float, test: float) -> Target:
  return replace(_OGBG.target, validation=validation, test=test)


WORKLOADS = {
  definition.name: definition
  for definition in (
    _OGBG,
    variant(
      _OGBG,
      name='ogbg_gelu',
      summary='ogbg-molpcba, GELU',
      model=replace(_OGBG.model, activation='gelu'),
      target=_target(0.27771, 0.262926),
    ),
    variant(
      _OGBG,
      name='ogbg_silu',
      summary='ogbg-molpcba, SiLU',
      model=replace(_OGBG.model, activation='silu'),
      target=_target(0.282178, 0.272144),
    ),
    variant(
      _OGBG,
      name='ogbg_model_size',
      summary='ogbg-molpcba, deeper MLPs, smaller latents, fewer steps',
      held_out_in=('algoperf_v05',),
      model=replace(_OGBG.model, hidden_dims=(256, 256), latent_dim=128, num_steps=3),
      target=_target(0.269446, 0.253051),
    ),
  )
}
