"""Outputs of a model that act as its logits, for arrays of either framework."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

_BINARY = ('add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow', 'matmul')
_COMPARISONS = ('lt', 'le', 'eq', 'ne', 'gt', 'ge')
_UNARY = ('neg', 'pos', 'abs', 'invert')
_CONTAINER = ('len', 'iter', 'getitem', 'array')


class ActsAsLogits:
  """Has the operators, methods and attributes of its array `logits`.

  So code that knows nothing of auxiliary losses can compute with what `model_fn` returns. What it
  computes is a plain array. The losses stay beside the logits as long as these are passed on as
  they are.
  """

  logits: Any

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__') or name == 'logits':
      raise AttributeError(f'{type(self).__name__} has no attribute {name!r}.')
    return getattr(self.logits, name)


def _unwrapped(value: Any) -> Any:
  return value.logits if isinstance(value, ActsAsLogits) else value


def _applied(function: Callable[..., Any]) -> Callable[..., Any]:
  return lambda self, *others: function(self.logits, *map(_unwrapped, others))


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
  return lambda self, other: function(other, self.logits)


def _called(name: str) -> Callable[..., Any]:
  return lambda self, *arguments, **options: getattr(self.logits, name)(*arguments, **options)


for _name in (*_BINARY, *_COMPARISONS, *_UNARY):
  setattr(ActsAsLogits, f'__{_name}__', _applied(getattr(operator, _name)))
for _name in _BINARY:
  setattr(ActsAsLogits, f'__r{_name}__', _reflected(getattr(operator, _name)))
for _name in _CONTAINER:
  setattr(ActsAsLogits, f'__{_name}__', _called(f'__{_name}__'))
