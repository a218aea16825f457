"""What attention, feed-forward layers and blocks are, and how their parameters are called.

Both frameworks build the same layers from these records. The names are those of one framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How a kernel begins: normal with this standard deviation; normal, truncated at two standard
# deviations, with variance 1 / fan-in; or uniform with variance 2 / (fan-in + fan-out).
Init = float | Literal['lecun_normal', 'xavier_uniform']


@dataclass(frozen=True, kw_only=True)
class QueryKeyNorm:
  """Scales queries and keys to Euclidean norm 1, and their products by a learned scalar.

  Attributes:
    initial_scale: what the scalar is at the beginning.
    epsilon: bounds the norms that are divided by.
  """

  initial_scale: float
  epsilon: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
  """Multi-head attention.

  Attributes:
    num_kv_heads: heads of keys and values, each for several heads of queries; None: `num_heads`.
    causal: True if a position attends only to itself and to earlier positions.
    use_bias: whether the projections have biases, which begin at 0.
    scale: factor of the products of queries and keys; a temperature is a part of it. None means
      1 / sqrt(head_dim), or the learned scale of `query_key_norm` alone.
    query_key_norm: None leaves queries and keys as they are.
    init, out_init: how the kernels of the heads and of the output begin.
    out_by_heads: flax's output kernel is [heads, head_dim, dim] if True, else
      [heads * head_dim, dim].

  Raises:
    ValueError: the heads of queries do not divide into those of keys and values, or the scale is
      given twice.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  causal: bool = False
  use_bias: bool = False
  scale: float | None = None
  query_key_norm: QueryKeyNorm | None = None
  init: Init = 'lecun_normal'
  out_init: Init = 'lecun_normal'
  out_by_heads: bool = True

  def __post_init__(self) -> None:
    if self.num_heads % self.kv_heads:
      raise ValueError(
        f'Each head of keys serves an equal number of heads of queries; {self.num_heads} heads do '
        f'not divide into {self.kv_heads}.'
      )
    if self.query_key_norm is not None and self.scale is not None:
      raise ValueError('Query-key norm learns the scale; set scale or query_key_norm, not both.')

  @property
  def kv_heads(self) -> int:
    return self.num_kv_heads or self.num_heads

  @property
  def factor(self) -> float:
    """Factor of the products of queries and keys, beside a learned one."""
    if self.query_key_norm is not None:
      return 1.0
    return self.head_dim**-0.5 if self.scale is None else self.scale


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
  """Two linear layers with an activation between them, and optionally a gate.

  Attributes:
    hidden_dim: width after the activation.
    activation: a name of `ACTIVATIONS`; 'glu' has a gate of its own, so that the first layer is
      twice as wide.
    gate: 'input' multiplies the hidden units by a linear function of the layer's input, as in WMT's
      GLU. With 'hidden' it is a function of the hidden units, as in the GLU of ViT.
    use_bias: whether all layers have biases.
    init, out_init: how the kernels begin; `out_init` is that of the last.
    bias_stddev: standard deviation of the initial biases.
  """

  hidden_dim: int
  activation: str
  gate: Literal['none', 'input', 'hidden'] = 'none'
  use_bias: bool = True
  init: Init = 'lecun_normal'
  out_init: Init = 'lecun_normal'
  bias_stddev: float = 0.0

  @property
  def first_dim(self) -> int:
    """Outputs of the first linear layer."""
    return 2 * self.hidden_dim if self.activation == 'glu' else self.hidden_dim


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
  """A mixture of experts: a router sends each token to the `top_k` likeliest of `num_experts`.

  The output is the weighted sum of the chosen experts. The weights are the probabilities of the
  router's softmax over all experts. They are divided by their sum, unless `top_k` is 1: the router
  would then have no gradient. Of equal probabilities, that of the first expert counts as larger.

  Attributes:
    expert: the layers of each expert, without biases.
    router_init: how the kernel of the router begins.
    capacity_factor: in training, an expert takes at most this multiple of the mean load, rounded
      up. Later assignments are dropped; first choices of all tokens come before second ones. None
      drops none. Evaluation drops none in any case. The papers on GShard and Switch give the
      multiple without a rounding; Mesh TensorFlow rounds it down, which drops one more at most.

  Raises:
    ValueError: a number is out of range, or experts have biases.
  """

  num_experts: int
  top_k: int
  expert: FeedForwardConfig
  router_init: Init = 'lecun_normal'
  capacity_factor: float | None = None

  def __post_init__(self) -> None:
    if not 1 <= self.top_k <= self.num_experts:
      raise ValueError(
        f'A token goes to at least one expert and at most all {self.num_experts}; top_k is '
        f'{self.top_k}.'
      )
    if self.capacity_factor is not None and not self.capacity_factor > 0:
      raise ValueError(f'A capacity factor must be positive; it is {self.capacity_factor}.')
    if self.expert.use_bias:
      raise ValueError('Experts have no biases; set use_bias=False.')


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
  """Self attention, cross attention if there is one, and a feed-forward layer, with residual sums.

  Attributes:
    dim: width of the residual sum.
    norm_position: 'pre' normalizes the input of each part; 'post' normalizes each residual sum.
  """

  dim: int
  self_attention: AttentionConfig
  feed_forward: FeedForwardConfig
  cross_attention: AttentionConfig | None = None
  norm: Literal['layer', 'rms'] = 'layer'
  norm_epsilon: float = 1e-6
  norm_position: Literal['pre', 'post'] = 'pre'


@dataclass(frozen=True, kw_only=True)
class AttentionNames:
  """Names of the layers of attention. In PyTorch, projections of one name are one layer.

  Attributes:
    scale: name of the learned scale of query-key norm.
  """

  query: str = 'query'
  key: str = 'key'
  value: str = 'value'
  out: str = 'out'
  scale: str = 'attn_scale'

  @property
  def layers(self) -> dict[str, list[str]]:
    """The projections that each layer makes, in order."""
    layers: dict[str, list[str]] = {}
    for projection, name in (('query', self.query), ('key', self.key), ('value', self.value)):
      layers.setdefault(name, []).append(projection)
    return layers


@dataclass(frozen=True, kw_only=True)
class FeedForwardNames:
  """Names of the linear layers in PyTorch; flax numbers them by their order."""

  first: str = 'linear1'
  gate: str = 'linear_glu'
  last: str = 'linear2'


@dataclass(frozen=True, kw_only=True)
class BlockNames:
  """Names of the parts of a block.

  Attributes:
    norms: those of self attention, cross attention (if there is one) and the feed-forward layer.
    feed_forward: empty if its layers are the block's own, in PyTorch.
  """

  self_attention: str
  feed_forward: str
  norms: tuple[str, ...]
  cross_attention: str = ''
  self_projections: AttentionNames = AttentionNames()
  cross_projections: AttentionNames = AttentionNames()
  feed_forward_layers: FeedForwardNames = FeedForwardNames()
