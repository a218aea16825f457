"""Plain forms of the layers, which have derivatives of every order."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax

# A part of the key of JAX's caches: what was traced outside of the context is not used within it.
_IS_PLAIN = jax.make_user_context(default_value=False)


def plain_kernels() -> AbstractContextManager[None]:
  """Returns a context within which layers avoid fused kernels and custom derivative rules.

  Attention and the loss of large vocabularies then have derivatives of every order, in forward and
  in reverse mode, as Hessian-vector products need. Values differ by rounding; memory and time are
  larger. The context is that of its thread, may be nested, and also holds in jitted functions.
  """
  return _IS_PLAIN(True)


def is_plain() -> bool:
  """Whether the caller is within `plain_kernels`."""
  return _IS_PLAIN.value
