"""A mixture of experts over text, images and audio: every workload and variant of this task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Probe,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
  variant,
  variant_target,
)
from algorithmic_efficiency.spec import LossType

from .data_records import DigitQuestions, LogMel, RowForm, SpokenDigitQuestions, WebMixture


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
  """Parameters of a model, and those that take part in the output of one token."""

  total: int
  active: int


@dataclass(frozen=True, kw_only=True)
class SparseDecoder:
  """Blocks of causal attention and an MLP, of which every second is a mixture of experts.

  The blocks normalize their inputs by RMS norm, attention has rotary positions and groups of heads
  that share keys, and MLPs are gated by SiLU. No layer but those of the audio has biases. The
  output kernel is the embedding of text. Patches of images are projected, and sines and cosines of
  row and column are added. Audio frames pass two convolutions.

  Attributes:
    num_kv_heads: heads of keys and values, each for several heads of queries.
    mlp_dim: hidden units of the MLP of every other block, with as many gates.
    num_experts: experts of each sparse block; one alone is a plain MLP without a router.
    top_k: experts of each token.
    expert_dim: hidden units of an expert, with as many gates.
    capacity_factor: in training, an expert takes at most this multiple of the mean load; None
      drops nothing. Evaluation never drops.
    balance_weight: weight of the loss that balances the load of the experts.
    z_weight: weight of the loss that keeps the logits of the routers small.
    audio_dim: channels between the two convolutions.
    rope_theta: base of the wavelengths of rotary positions.
    init_stddev: standard deviation of initial kernels; divided by sqrt(2 * num_layers) in kernels
      that write to the residual sum. Kernels that read pixels, frames or router inputs have
      variance 1 / fan-in.

  Raises:
    ValueError: the sizes of heads or experts do not fit each other.
  """

  dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  mlp_dim: int
  num_experts: int
  top_k: int
  expert_dim: int
  capacity_factor: float | None = None
  balance_weight: float = 1e-2
  z_weight: float = 1e-3
  audio_dim: int = 64
  rope_theta: float = 10_000.0
  rms_norm_epsilon: float = 1e-6
  init_stddev: float = 0.02

  def __post_init__(self) -> None:
    if self.dim % (2 * self.num_heads) or self.dim % 4:
      raise ValueError(
        'The width must be a multiple of 4 and divide into heads of an even size; '
        f'{self.dim} does not divide into {self.num_heads} heads.'
      )
    if self.num_heads % self.num_kv_heads:
      raise ValueError(
        f'{self.num_heads} heads of queries must divide into those of keys; there are '
        f'{self.num_kv_heads} of keys.'
      )
    if self.num_layers < 2:
      raise ValueError(f'Every second block has experts; num_layers is {self.num_layers}.')
    if not 1 <= self.top_k <= self.num_experts:
      raise ValueError(
        f'A token goes to at least one expert and at most all {self.num_experts}; top_k is '
        f'{self.top_k}.'
      )
    if self.capacity_factor is not None and not self.capacity_factor > 0:
      raise ValueError(f'A capacity factor must be positive; it is {self.capacity_factor}.')

  @property
  def head_dim(self) -> int:
    return self.dim // self.num_heads

  @property
  def has_router(self) -> bool:
    return self.num_experts > 1

  @property
  def num_sparse_layers(self) -> int:
    return self.num_layers // 2

  def is_sparse(self, layer: int) -> bool:
    """Whether the block of this number, from 0, has experts."""
    return layer % 2 == 1

  @property
  def residual_stddev(self) -> float:
    """Initial standard deviation of the kernels that write to the residual sum."""
    return self.init_stddev / math.sqrt(2 * self.num_layers)

  def num_parameters(self, data: RowForm) -> ParameterCounts:
    """Returns how many parameters the model has over rows of this form."""
    expert = 3 * self.dim * self.expert_dim
    router = self.dim * self.num_experts * self.has_router
    sparse = self.num_sparse_layers
    dense_mlps = (self.num_layers - sparse) * 3 * self.dim * self.mlp_dim
    attention = 2 * self.dim**2 + 2 * self.dim * self.num_kv_heads * self.head_dim
    norms = self.dim * (2 * self.num_layers + 1)
    inputs = self.dim * (data.vocab_size + data.patch_dim)
    if data.has_audio:
      inputs += (3 * data.num_mels + 1) * self.audio_dim
      inputs += (data.frames_per_position * self.audio_dim + 1) * self.dim
    rest = inputs + norms + self.num_layers * attention + dense_mlps + sparse * router
    return ParameterCounts(
      total=rest + sparse * self.num_experts * expert, active=rest + sparse * self.top_k * expert
    )


_METRICS = (
  *('accuracy', 'loss', 'loss_of_kind', 'loss_of_modality'),
  *('exact_match', 'exact_match_of_modality'),
)
_ROUTER_METRICS = ('load_variation', 'largest_share', 'drop_rate', 'router_entropy')
_OUTPUT_PARAMS = {'jax': ('embed',), 'pytorch': ('embed_tokens.weight',)}
_SMOKE_MODEL = SparseDecoder(
  dim=16,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  mlp_dim=16,
  num_experts=4,
  top_k=2,
  expert_dim=8,
  capacity_factor=1.0,
  audio_dim=8,
  init_stddev=0.2,
)

_QUICK_DATA = DigitQuestions()
_QUICK = WorkloadDefinition(
  name='quick_moe',
  task='multimodal_moe',
  summary='Questions about images of digits, small mixture of experts: loss of answers',
  dataset='digit_questions',
  bundled=True,
  model=SparseDecoder(
    dim=64,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=128,
    num_experts=8,
    top_k=2,
    expert_dim=64,
    capacity_factor=2.0,
    init_stddev=0.1,
  ),
  data=_QUICK_DATA,
  loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
  metrics=_METRICS + _ROUTER_METRICS,
  target=Target(metric='loss', direction='min', validation=0.697003, test=0.732188),
  suites={'quick': Budget(step_hint=134, max_steps=400, eval_period_steps=3)},
  splits=Splits(train=48_000, eval_train=120, validation=360, test=360),
  batch_sizes=BatchSizes(train=32, eval=120),
  smoke=Smoke(model=_SMOKE_MODEL, data=replace(_QUICK_DATA, row_length=16)),
  output_params=_OUTPUT_PARAMS,
  train_mean=(4.8787,),
  train_stddev=(6.0181,),
  target_source='calibration/quick_moe_jax.md, with which quick_moe_pytorch.md agrees',
  independent_examples=False,  # the losses of the routers and their capacity
  task_names=_QUICK_DATA.kinds,
  probes={
    'held_out_pairs': Probe(
      num_examples=180,
      metrics=('accuracy', 'exact_match'),
      summary='sums of pairs of digits that training never adds',
    )
  },
)

_DIGITS_DATA = SpokenDigitQuestions()
_DIGITS = replace(
  _QUICK,
  name='digits_moe',
  base='',
  summary='Questions about written and spoken digits, mixture of experts: loss of answers',
  dataset='spoken_and_written_digits',
  bundled=False,
  model=SparseDecoder(
    dim=96,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    mlp_dim=160,
    num_experts=8,
    top_k=2,
    expert_dim=80,
    capacity_factor=2.0,
    init_stddev=0.1,
  ),
  data=_DIGITS_DATA,
  target=Target(metric='loss', direction='min', validation=0.309767, test=0.422432),
  suites={'lite': Budget(step_hint=320, max_steps=960, eval_period_steps=8)},
  splits=Splits(train=240_000, eval_train=350, validation=700, test=700),
  batch_sizes=BatchSizes(train=32, eval=56),
  smoke=Smoke(model=_SMOKE_MODEL, data=replace(_DIGITS_DATA, row_length=32, patch_size=14)),
  train_mean=(33.32,),
  train_stddev=(78.57,),
  target_source='calibration/digits_moe_pytorch.md, with which digits_moe_jax.md agrees',
  task_names=_DIGITS_DATA.kinds,
  probes={
    'held_out_pairs': replace(_QUICK.probes['held_out_pairs'], num_examples=200),
  },
)


def _web_splits(data: WebMixture, *, eval_train: int) -> Splits:
  """Returns the number of examples of each split, of all sources together."""
  train, validation, test = (
    sum(number // data.num_turns for _, number in of_kinds)
    for of_kinds in (data.num_train, data.num_validation, data.num_test)
  )
  return Splits(train=train, eval_train=eval_train, validation=validation, test=test)


_FULL_DATA = WebMixture()
_FULL = replace(
  _QUICK,
  name='multimodal_moe',
  base='',
  summary='Web text, captions of images, transcripts of speech, mixture of experts: mean loss',
  dataset='web_mixture',
  bundled=False,
  model=SparseDecoder(
    dim=1024,
    num_layers=12,
    num_heads=16,
    num_kv_heads=4,
    mlp_dim=3584,
    num_experts=16,
    top_k=2,
    expert_dim=2816,
    audio_dim=512,
  ),
  data=_FULL_DATA,
  target=Target(
    metric='loss_of_modality', direction='min', validation=3.0, test=3.0, provisional=True
  ),
  suites={'full': Budget(step_hint=60_000, max_sec=43_200, eval_period_sec=3_600)},
  splits=_web_splits(_FULL_DATA, eval_train=1_024),
  batch_sizes=BatchSizes(train=64, eval=64),
  smoke=Smoke(
    model=_SMOKE_MODEL,
    data=replace(
      _FULL_DATA,
      row_length=48,
      vocab_size=64,
      image_size=8,
      patch_size=4,
      num_mels=8,
      log_mel=LogMel(sample_rate=8_000, num_fft=256, num_mels=8),
    ),
  ),
  train_mean=(123.675, 116.28, 103.53),
  train_stddev=(58.395, 57.12, 57.375),
  accelerator_dtype='bfloat16',
  task_names=_FULL_DATA.kinds,
  probes={},
  target_source='provisional: a guess, not calibrated yet',
)


class _Change(NamedTuple):
  """How a variant differs from its base: in words, in its model, and in the length of its rows.

  Longer rows hold questions of as many turns, and a batch has as many times fewer of them.
  """

  text: str
  model: Any  # a function from the model of the base
  longer: int = 1


_CHANGES = {
  'dense': _Change(
    'plain MLPs of equal active size',
    lambda model: replace(
      model,
      num_experts=1,
      top_k=1,
      expert_dim=model.top_k * model.expert_dim,
      capacity_factor=None,
    ),
  ),
  'top1': _Change('one expert a token', lambda model: replace(model, top_k=1)),
  'no_balance': _Change(
    'no loss that balances the load', lambda model: replace(model, balance_weight=0.0)
  ),
  'more_experts': _Change(
    'four times as many experts', lambda model: replace(model, num_experts=4 * model.num_experts)
  ),
  'long': _Change('contexts of four times the length', lambda model: model, longer=4),
}


def _variants(
  base: WorkloadDefinition, targets: Mapping[str, tuple[float, float]]
) -> list[WorkloadDefinition]:
  """Returns the variants of a workload.

  Args:
    targets: targets on validation and test by the ending of the variant's name; the others have
      that of `base`, provisional.
  """
  return [
    _variant(base, f'{base.name}_{suffix}', change, targets.get(suffix))
    for suffix, change in _CHANGES.items()
  ]


def _variant(
  base: WorkloadDefinition, name: str, change: _Change, target: tuple[float, float] | None
) -> WorkloadDefinition:
  subject, _, metric = base.summary.partition(':')
  model, smoke = change.model(base.model), base.smoke
  return variant(
    _longer(base, change.longer),
    name=name,
    summary=f'{subject}, {change.text}:{metric}',
    model=model,
    smoke=replace(
      smoke, model=change.model(smoke.model), data=_longer_rows(smoke.data, change.longer)
    ),
    metrics=base.metrics if model.has_router else _METRICS,
    independent_examples=not model.has_router,
    **variant_target(base, name, target),
  )


def _longer(base: WorkloadDefinition, times: int) -> WorkloadDefinition:
  """Returns a definition with longer questions, as many positions in a batch, and fewer of them."""
  if times == 1:
    return base
  data, splits, sizes = _longer_rows(base.data, times), base.splits, base.batch_sizes
  if isinstance(data, WebMixture):
    splits = _web_splits(data, eval_train=splits.eval_train // times)
  else:
    splits = Splits(**{name: number // times for name, number in asdict(splits).items()})
  return replace(
    base,
    data=data,
    splits=splits,
    probes={
      name: replace(probe, num_examples=probe.num_examples // times)
      for name, probe in base.probes.items()
    },
    # Evaluation batches stay a multiple of eight rows, for as many devices.
    batch_sizes=replace(sizes, train=sizes.train // times, eval=sizes.eval // times // 8 * 8),
  )


def _longer_rows(data: Any, times: int) -> Any:
  sizes = {'row_length': times * data.row_length, 'eval_multiple': times * data.eval_multiple}
  return replace(data, **sizes, num_turns=times)


_TARGETS: Mapping[str, Mapping[str, tuple[float, float]]] = {}  # of variants, calibrated

WORKLOADS = {
  definition.name: definition
  for base in (_FULL, _DIGITS, _QUICK)
  for definition in (base, *_variants(base, _TARGETS.get(base.name, {})))
}
