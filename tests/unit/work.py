"""A measure of work that a busy machine does not change."""

from __future__ import annotations

import cProfile
from collections.abc import Callable


def num_calls(work: Callable[[], object]) -> int:
  """How many calls of functions `work` makes, in Python and of built-in ones."""
  profile = cProfile.Profile()
  profile.runcall(work)
  return sum(entry.callcount for entry in profile.getstats())
