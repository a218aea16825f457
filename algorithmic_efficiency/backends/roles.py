"""What each parameter of a model is for, and the matrices it consists of, by rule in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from algorithmic_efficiency.spec import MatrixView, ParameterRole, ParameterType

_BIASES = (ParameterType.BIAS, ParameterType.ATTENTION_BIAS)
_NORMS = (
  ParameterType.BATCH_NORM_SCALE,
  ParameterType.BATCH_NORM_BIAS,
  ParameterType.LAYER_NORM_SCALE,
  ParameterType.LAYER_NORM_BIAS,
)
_FUSED = {ParameterType.ATTENTION_QKV: 3, ParameterType.ATTENTION_KV: 2}
# AlgoPerf's rules for types miss these in a layer whose name does not say that it attends.
_FUSED_NAMES = {'qkv': ParameterType.ATTENTION_QKV, 'kv_proj': ParameterType.ATTENTION_KV}
# Their kernels may have an axis for the heads, which belongs to the outputs.
_PROJECTIONS = (
  ParameterType.ATTENTION_Q,
  ParameterType.ATTENTION_K,
  ParameterType.ATTENTION_V,
  *_FUSED,
)
_WITHOUT_MATRICES = (ParameterRole.NORM, ParameterRole.BIAS, ParameterRole.VECTOR)
_NO_VIEW = MatrixView(num_matrices=0, rows=0, columns=0)


@dataclass(frozen=True, kw_only=True)
class Parameter:
  """A parameter, as `algoeff list parameters` shows it; one that is frozen is not trained."""

  name: str
  shape: tuple[int, ...]
  type: ParameterType
  role: ParameterRole
  matrix_view: MatrixView
  is_frozen: bool = False


def describe(
  name: str, shape: tuple[int, ...], kind: ParameterType, *, is_output: bool, outputs_first: bool
) -> Parameter:
  """
  Args:
    outputs_first: whether the axis of the outputs comes first, as in PyTorch, or last.
  """
  role = _role(name.lower(), shape, kind, is_output)
  view = _matrix_view(shape, _kind_of_view(name.lower(), kind), role, outputs_first)
  return Parameter(name=name, shape=shape, type=kind, role=role, matrix_view=view)


def _role(name: str, shape: tuple[int, ...], kind: ParameterType, is_output: bool) -> ParameterRole:
  """The first rule that holds; the name is in lower case."""
  if kind in _NORMS:
    return ParameterRole.NORM
  if kind in _BIASES:
    return ParameterRole.BIAS
  if not (is_output or _is_matrix(shape)):
    return ParameterRole.VECTOR
  if 'router' in name:
    return ParameterRole.ROUTER
  if 'expert' in name:
    return ParameterRole.EXPERT
  # AlgoPerf's rules for types miss a table that is called neither kernel nor weight.
  if kind == ParameterType.EMBEDDING or (kind == ParameterType.WEIGHT and 'embed' in name):
    return ParameterRole.TIED if is_output else ParameterRole.EMBEDDING
  if is_output:
    return ParameterRole.HEAD
  if kind == ParameterType.CONV_WEIGHT:
    return ParameterRole.CONVOLUTION
  return ParameterRole.HIDDEN_MATRIX


def _is_matrix(shape: tuple[int, ...]) -> bool:
  return len(shape) == 2 or sum(size > 1 for size in shape) > 1


def _kind_of_view(name: str, kind: ParameterType) -> ParameterType:
  if kind != ParameterType.WEIGHT:
    return kind
  return next((fused for mark, fused in _FUSED_NAMES.items() if mark in name), kind)


def _matrix_view(
  shape: tuple[int, ...], kind: ParameterType, role: ParameterRole, outputs_first: bool
) -> MatrixView:
  if role in _WITHOUT_MATRICES or len(shape) < 2:
    return _NO_VIEW
  num_matrices, by_columns = 1, False
  if role == ParameterRole.EXPERT and len(shape) > 2:
    num_matrices, *rest = shape
    shape = tuple(rest)
  split = 1 if outputs_first or kind in _PROJECTIONS else len(shape) - 1
  rows, columns = math.prod(shape[:split]), math.prod(shape[split:])
  if kind in _FUSED:
    num_matrices, by_columns = _FUSED[kind], not outputs_first
    rows, columns = (
      (rows // num_matrices, columns) if outputs_first else (rows, columns // num_matrices)
    )
  return MatrixView(num_matrices=num_matrices, rows=rows, columns=columns, by_columns=by_columns)
