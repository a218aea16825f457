"""Layers that several PyTorch models share.

`jax.py` beside this file has the same layers. Weights are initialized as in flax: normal, truncated
at two standard deviations, with variance 1 / fan-in; biases zero. Layers compute in their `dtype`.
Parameters are float32, or float64 if the layer computes in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree

from algorithmic_efficiency.layers._torch_attention import MultiHeadAttention as MultiHeadAttention
from algorithmic_efficiency.layers._torch_attention import attention as attention
from algorithmic_efficiency.layers._torch_attention import extend_cache as extend_cache
from algorithmic_efficiency.layers._torch_attention import rotate as rotate
from algorithmic_efficiency.layers._torch_attention import start_cache as start_cache
from algorithmic_efficiency.layers._torch_blocks import Block as Block
from algorithmic_efficiency.layers._torch_blocks import FeedForward as FeedForward
from algorithmic_efficiency.layers._torch_blocks import PatchEmbedding as PatchEmbedding
from algorithmic_efficiency.layers._torch_blocks import add_feed_forward as add_feed_forward
from algorithmic_efficiency.layers._torch_blocks import feed_forward as feed_forward
from algorithmic_efficiency.layers._torch_blocks import residual as residual
from algorithmic_efficiency.layers._torch_classes import class_loss as class_loss
from algorithmic_efficiency.layers._torch_classes import class_sums as class_sums
from algorithmic_efficiency.layers._torch_experts import Experts as Experts
from algorithmic_efficiency.layers._torch_experts import grouped_matmul as grouped_matmul
from algorithmic_efficiency.layers._torch_linear import ACTIVATIONS as ACTIVATIONS
from algorithmic_efficiency.layers._torch_linear import Conv1d as Conv1d
from algorithmic_efficiency.layers._torch_linear import Conv2d as Conv2d
from algorithmic_efficiency.layers._torch_linear import Embedding as Embedding
from algorithmic_efficiency.layers._torch_linear import Linear as Linear
from algorithmic_efficiency.layers._torch_linear import initialize_ as initialize_
from algorithmic_efficiency.layers._torch_linear import lecun_normal_ as lecun_normal_
from algorithmic_efficiency.layers._torch_linear import param_dtype as param_dtype
from algorithmic_efficiency.layers._torch_loss import spread_weights as spread_weights
from algorithmic_efficiency.layers._torch_loss import token_loss as token_loss
from algorithmic_efficiency.layers._torch_loss import token_results as token_results
from algorithmic_efficiency.layers._torch_loss import token_sums as token_sums
from algorithmic_efficiency.layers._torch_loss import vocab_logits as vocab_logits
from algorithmic_efficiency.layers._torch_norms import BatchNorm1d as BatchNorm1d
from algorithmic_efficiency.layers._torch_norms import BatchNorm2d as BatchNorm2d
from algorithmic_efficiency.layers._torch_norms import LayerNorm as LayerNorm
from algorithmic_efficiency.layers._torch_norms import RMSNorm as RMSNorm
from algorithmic_efficiency.layers._torch_norms import normalize as normalize
from algorithmic_efficiency.layers._torch_norms import sum_over_ranks as sum_over_ranks
from algorithmic_efficiency.layers._torch_plain import plain_kernels as plain_kernels
from algorithmic_efficiency.layers._torch_routing import Dispatch as Dispatch
from algorithmic_efficiency.layers._torch_routing import Routes as Routes
from algorithmic_efficiency.layers._torch_routing import dispatch as dispatch
from algorithmic_efficiency.layers._torch_routing import route as route
from algorithmic_efficiency.layers._torch_routing import router_losses as router_losses
from algorithmic_efficiency.layers._torch_routing import router_statistics as router_statistics
from algorithmic_efficiency.layers._torch_search import Beams as Beams
from algorithmic_efficiency.layers._torch_search import beam_search as beam_search
from algorithmic_efficiency.layers._torch_search import greedy_search as greedy_search
from algorithmic_efficiency.layers.masks import padding_mask as padding_mask
from algorithmic_efficiency.layers.masks import segment_mask as segment_mask
from algorithmic_efficiency.layers.outputs import ActsAsLogits


@dataclass(frozen=True, eq=False)
class Outputs(ActsAsLogits):
  """What a model returns that has auxiliary losses. It acts as its logits in any computation.

  Attributes:
    logits: what a model without them returns.
    auxiliary: scalars by name, which the loss weighs and adds. They are of the global batch; see
      `sum_over_ranks`.
    statistics: sums over the positions of each row by name, [batch, ...], for `eval_step`; empty
      in training.
  """

  logits: torch.Tensor
  auxiliary: Mapping[str, torch.Tensor]
  statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)

  @classmethod
  def __torch_function__(
    cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
  ) -> Any:
    """Calls a function of PyTorch with the logits in place of the outputs."""
    args, kwargs = _pytree.tree_map(
      lambda one: one.logits if isinstance(one, Outputs) else one,
      (args, kwargs or {}),
      is_leaf=lambda one: isinstance(one, Outputs),
    )
    return func(*args, **kwargs)


_pytree.register_dataclass(Outputs)
