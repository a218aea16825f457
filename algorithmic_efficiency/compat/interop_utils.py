"""AlgoPerf's `interop_utils`: arrays of one framework as those of the other, in the same memory."""

from __future__ import annotations

from typing import Any


def jax_to_pytorch(x: Any, take_ownership: bool = False) -> Any:
  """Returns a JAX array as a tensor on the same device.

  Args:
    take_ownership: accepted for AlgoPerf's call style; the memory lives as long as either needs it.
  """
  from algorithmic_efficiency.compat import pytorch_interop

  return pytorch_interop.from_dlpack(x)


def pytorch_to_jax(x: Any) -> Any:
  """Returns a tensor, without its gradient history, as a JAX array on the same device."""
  from algorithmic_efficiency.compat import jax_interop

  return jax_interop.from_dlpack(x.detach().contiguous())
