"""Masks of attention, for arrays of either framework; True where a query may attend to a key."""

from __future__ import annotations

from typing import Any


def padding_mask(is_token: Any) -> Any:
  """Returns the mask [batch, 1, 1, keys] that hides padding; `is_token` is bool [batch, keys]."""
  return is_token[:, None, None, :]


def segment_mask(queries: Any, keys: Any = None) -> Any:
  """Returns the mask [batch, 1, queries, keys] within which attention stays in its segment.

  Args:
    queries: number of each query's segment, int [batch, queries].
    keys: that of each key, [batch, keys]; None: the queries' own.
  """
  keys = queries if keys is None else keys
  return (queries[:, :, None] == keys[:, None, :])[:, None]
