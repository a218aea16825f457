"""Logits of a large vocabulary that are computed when an operation first asks for them.

Shapes: hidden states [batch, length, dim], kernel [vocab, dim], logits [batch, length, vocab].
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree

Factors = tuple[torch.Tensor, torch.Tensor]  # hidden states and kernel

_MAX_NUM_PROBES = 64

# These read the memory of a tensor directly, which `__torch_dispatch__` does not see.
_MEMORY_METHODS = (
  'numpy',
  'tolist',
  'data_ptr',
  '__dlpack__',
  '__deepcopy__',
  '__reduce_ex__',
  '__repr__',
)


def product(hidden: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
  """Returns the logits `hidden @ kernel.T`, in the type of the hidden states."""
  return hidden @ kernel.to(hidden.dtype).T


class LazyLogits(torch.Tensor):
  """The logits `hidden @ kernel.T`, a tensor that has no memory until an operation reads it.

  Autograd knows this tensor as the output of a function like any other: it has a gradient, hooks
  and views. Below autograd every operation works on the product instead, which is computed once.

  Use `LazyLogits.of` to make one.
  """

  __torch_function__ = torch._C._disabled_torch_function_impl

  _factors: Factors
  _marker: tuple[Any, torch.Tensor]  # of the kernel when these logits were made
  _product: torch.Tensor | None
  _was_cut: bool

  @staticmethod
  def of(hidden: torch.Tensor, kernel: torch.Tensor) -> LazyLogits:
    """Returns the logits, in their place in autograd's graph."""
    return _Logits.apply(hidden, kernel)

  @staticmethod
  def __new__(cls, hidden: torch.Tensor, kernel: torch.Tensor) -> LazyLogits:
    self = torch.Tensor._make_wrapper_subclass(
      cls, (*hidden.shape[:-1], len(kernel)), dtype=hidden.dtype, device=hidden.device
    )
    self._factors = hidden, kernel
    self._marker = _version(kernel), _probes(kernel)
    self._product = None
    self._was_cut = False
    return self

  @classmethod
  def __torch_dispatch__(
    cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
  ) -> Any:
    args, kwargs = _pytree.tree_map_only(LazyLogits, LazyLogits._computed, (args, kwargs or {}))
    return func(*args, **kwargs)

  def factors(self) -> Factors | None:
    """Returns hidden states and kernel, for a loss that has no need of these logits.

    Returns None if the values of these logits or their gradient were already used. They may have
    been changed in place, and their gradient must come through this tensor.

    Raises:
      RuntimeError: the parameters have changed since the forward pass.
    """
    wants_gradient = self.retains_grad or bool(self._backward_hooks)
    if self._product is not None or wants_gradient or (self.is_leaf and self.requires_grad):
      return None
    # A first loss comes right after the forward pass, and is not worth waiting for a GPU.
    self._check_kernel(by_value=self._was_cut)
    self._was_cut = True
    return self._factors

  def retain_grad(self) -> None:
    self._check_gradient_comes()
    super().retain_grad()

  def register_hook(self, hook: Any) -> Any:
    self._check_gradient_comes()
    return super().register_hook(hook)

  def _check_gradient_comes(self) -> None:
    if self._was_cut and self._product is None:
      raise RuntimeError(
        'A loss of these logits was computed without them, so they get no gradient from it. '
        'Call retain_grad or register_hook on the logits before loss_fn.'
      )

  def _computed(self) -> torch.Tensor:
    """The product, without gradient.

    Raises:
      RuntimeError: the parameters have changed since the forward pass.
    """
    if self._product is None:
      hidden, kernel = (factor.detach() for factor in self._factors)
      with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(hidden.device.type, enabled=False),
      ):
        self._check_kernel(by_value=True)
        self._product = product(hidden, kernel)
    return self._product

  def _check_kernel(self, *, by_value: bool) -> None:
    """Compares the kernel with that of the forward pass.

    Args:
      by_value: also compare some values, as fused optimizers and changes through `.data` leave the
        version as it is.

    Raises:
      RuntimeError: the kernel has changed.
    """
    version, probes = self._marker
    kernel = self._factors[1]
    if _version(kernel) != version or (by_value and not _same(_probes(kernel), probes)):
      raise RuntimeError(
        'The parameters have changed since model_fn gave these logits, and the logits were not '
        'computed before. Use the logits before the step, or keep logits.clone() for after it.'
      )


class _Logits(torch.autograd.Function):
  """The product as a function of its factors. Its value is left for later."""

  @staticmethod
  def forward(ctx: Any, hidden: torch.Tensor, kernel: torch.Tensor) -> LazyLogits:
    ctx.save_for_backward(hidden, kernel)
    return LazyLogits(hidden, kernel)

  @staticmethod
  def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    hidden, kernel = ctx.saved_tensors
    of_kernel = gradient.flatten(0, 1).T @ hidden.flatten(0, 1)
    return gradient @ kernel.to(hidden.dtype), of_kernel.to(kernel.dtype)


def _version(tensor: torch.Tensor) -> int | None:
  """Returns the number of changes in place that autograd knows of."""
  return None if tensor.is_inference() else tensor._version


@torch.no_grad()
def _probes(kernel: torch.Tensor) -> torch.Tensor:
  """Returns some values of the kernel, spread over the vocabulary."""
  return kernel[:: max(len(kernel) // _MAX_NUM_PROBES, 1), 0].clone()


def _same(x: torch.Tensor, y: torch.Tensor) -> bool:
  """Whether two tensors are equal, where values that are not numbers equal each other."""
  return torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)


def _of_product(name: str) -> Any:
  def method(self: LazyLogits, *args: Any, **kwargs: Any) -> Any:
    return getattr(self.view_as(self), name)(*args, **kwargs)

  method.__name__ = name
  return method


for _name in _MEMORY_METHODS:
  setattr(LazyLogits, _name, _of_product(_name))
