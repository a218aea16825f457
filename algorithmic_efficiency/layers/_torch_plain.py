"""Plain forms of the layers, which have derivatives of every order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch

_IS_PLAIN: ContextVar[bool] = ContextVar('is_plain', default=False)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
  """Returns a context within which layers avoid fused kernels and custom derivative rules.

  Attention and the loss of large vocabularies then have derivatives of every order, as
  Hessian-vector products need. Values differ by rounding; memory and time are larger. The context
  is that of its thread and may be nested. Run the forward pass and the loss within it. It has no
  effect in what `torch.compile` compiles, which has no second derivatives.
  """
  token = _IS_PLAIN.set(True)
  try:
    yield
  finally:
    _IS_PLAIN.reset(token)


def is_plain() -> bool:
  """Whether the caller is within `plain_kernels`."""
  # The compiler cannot trace a context variable.
  return not torch.compiler.is_compiling() and _IS_PLAIN.get()
