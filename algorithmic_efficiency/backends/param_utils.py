"""AlgoPerf's `param_utils`: shapes and types of the parameters of a model, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algorithmic_efficiency.spec import ParameterType, ShapeTuple


def pytorch_param_shapes(model: Any) -> dict[str, ShapeTuple]:
  """Returns the shape of every parameter of an `nn.Module`."""
  return {name: ShapeTuple(tuple(value.shape)) for name, value in model.named_parameters()}


def pytorch_param_types(param_shapes: Mapping[str, Any]) -> dict[str, ParameterType]:
  """Returns the type of every parameter, told by its name.

  Raises:
    ValueError: the name of a norm's or attention's parameter does not tell its type.
  """
  from algorithmic_efficiency.backends import _torch_workload

  return _torch_workload.param_types(param_shapes)


def jax_param_shapes(params: Any) -> Any:
  """Returns a tree of the same structure as nested dicts of arrays, with `ShapeTuple` leaves."""
  if isinstance(params, Mapping):
    return {name: jax_param_shapes(value) for name, value in params.items()}
  return ShapeTuple(tuple(params.shape))


def jax_param_types(param_shapes: Mapping[str, Any], parent_name: str = '') -> dict[str, Any]:
  """Returns the type of every parameter, told by its name, in a tree of the same structure.

  Args:
    parent_name: path of the module that holds the tree.

  Raises:
    ValueError: the name of a norm's or attention's parameter does not tell its type.
  """
  from algorithmic_efficiency.backends import _jax_workload

  return _jax_workload.param_types(param_shapes, parent_name.lower())
