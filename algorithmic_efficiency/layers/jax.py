"""Layers that several flax models share.

`torch.py` beside this file has the same layers. Weights are initialized as in flax: kernels normal,
truncated at two standard deviations, with variance 1 / fan-in; biases zero. Layers compute in their
`dtype`. Parameters are float32, or float64 if the layer computes in float64.

A sum over the batch is a sum over all devices already, so that nothing here is the counterpart of
PyTorch's `sum_over_ranks`. Only under a device axis is it the sum of one device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax

from algorithmic_efficiency.layers._jax_attention import MultiHeadAttention as MultiHeadAttention
from algorithmic_efficiency.layers._jax_attention import attention as attention
from algorithmic_efficiency.layers._jax_attention import extend_cache as extend_cache
from algorithmic_efficiency.layers._jax_attention import rotate as rotate
from algorithmic_efficiency.layers._jax_attention import start_cache as start_cache
from algorithmic_efficiency.layers._jax_basics import ACTIVATIONS as ACTIVATIONS
from algorithmic_efficiency.layers._jax_basics import BatchNorm as BatchNorm
from algorithmic_efficiency.layers._jax_basics import Dropout as Dropout
from algorithmic_efficiency.layers._jax_basics import LayerNorm as LayerNorm
from algorithmic_efficiency.layers._jax_basics import RMSNorm as RMSNorm
from algorithmic_efficiency.layers._jax_basics import initializer as initializer
from algorithmic_efficiency.layers._jax_basics import linear as linear
from algorithmic_efficiency.layers._jax_basics import normalize as normalize
from algorithmic_efficiency.layers._jax_basics import types as types
from algorithmic_efficiency.layers._jax_blocks import Block as Block
from algorithmic_efficiency.layers._jax_blocks import FeedForward as FeedForward
from algorithmic_efficiency.layers._jax_blocks import patch_embedding as patch_embedding
from algorithmic_efficiency.layers._jax_blocks import residual as residual
from algorithmic_efficiency.layers._jax_classes import class_loss as class_loss
from algorithmic_efficiency.layers._jax_classes import class_sums as class_sums
from algorithmic_efficiency.layers._jax_experts import Experts as Experts
from algorithmic_efficiency.layers._jax_experts import grouped_matmul as grouped_matmul
from algorithmic_efficiency.layers._jax_loss import spread_weights as spread_weights
from algorithmic_efficiency.layers._jax_loss import token_loss as token_loss
from algorithmic_efficiency.layers._jax_loss import token_results as token_results
from algorithmic_efficiency.layers._jax_loss import token_sums as token_sums
from algorithmic_efficiency.layers._jax_loss import vocab_logits as vocab_logits
from algorithmic_efficiency.layers._jax_plain import plain_kernels as plain_kernels
from algorithmic_efficiency.layers._jax_routing import Dispatch as Dispatch
from algorithmic_efficiency.layers._jax_routing import Routes as Routes
from algorithmic_efficiency.layers._jax_routing import dispatch as dispatch
from algorithmic_efficiency.layers._jax_routing import route as route
from algorithmic_efficiency.layers._jax_routing import router_losses as router_losses
from algorithmic_efficiency.layers._jax_routing import router_statistics as router_statistics
from algorithmic_efficiency.layers._jax_search import Beams as Beams
from algorithmic_efficiency.layers._jax_search import beam_search as beam_search
from algorithmic_efficiency.layers._jax_search import greedy_search as greedy_search
from algorithmic_efficiency.layers.masks import padding_mask as padding_mask
from algorithmic_efficiency.layers.masks import segment_mask as segment_mask
from algorithmic_efficiency.layers.outputs import ActsAsLogits


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Outputs(ActsAsLogits):
  """What a model returns that has auxiliary losses. It acts as its logits in any computation.

  Attributes:
    logits: what a model without them returns.
    auxiliary: scalars by name, which the loss weighs and adds.
    statistics: sums over the positions of each row by name, [batch, ...], for `eval_step`; empty
      in training.
  """

  logits: jax.Array
  auxiliary: Mapping[str, jax.Array]
  statistics: Mapping[str, jax.Array] = field(default_factory=dict)

  def __jax_array__(self) -> jax.Array:
    return self.logits
