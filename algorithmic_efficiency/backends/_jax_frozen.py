"""Keeps the frozen parameters of a flax model in its state, apart from those that are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

STATE = 'frozen'  # the entry of the model state that holds them


def flat(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parameters by name, with '/' between the names of modules."""
  return traverse_util.flatten_dict(params, sep='/')


def split(params: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], Any]:
  """Returns the parameters that are trained, and the named others; both are nested dicts."""
  parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
  for name, value in flat(params).items():
    parts[name in names][name] = value
  trained, frozen = (traverse_util.unflatten_dict(part, sep='/') for part in parts)
  return trained, frozen


def join(params: Any, model_state: Any) -> tuple[Any, dict[str, Any]]:
  """Returns all parameters of the model, and the model state without the frozen ones."""
  state = dict(model_state or {})
  frozen = state.pop(STATE, None)
  if frozen is not None:
    params = traverse_util.unflatten_dict({**flat(params), **flat(frozen)}, sep='/')
  return params, state


def hash_of(model_state: Any) -> bytes:
  """Returns a hash of the names and values of the frozen parameters; of nothing, without any."""
  found = hashlib.blake2b(digest_size=16)
  frozen = (model_state or {}).get(STATE) or {}
  for name, value in sorted(jax.device_get(flat(frozen)).items()):
    found.update(f'{name} {value.dtype} {value.shape} '.encode())
    found.update(np.ascontiguousarray(value).tobytes())
  return found.digest()
