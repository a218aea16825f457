"""AlgoPerf's `halton`: the points of a search space."""

from __future__ import annotations

from typing import Any

from algorithmic_efficiency.benchmark import search_space


def generate_search(search_space_content: Any, num_trials: int) -> list[Any]:
  """Returns `num_trials` points of a search space, each as a named tuple `Hyperparameters`.

  The points are AlgoPerf's. Their order, which is random there, is the same in every call.

  Args:
    search_space_content: a dictionary of ranges, or a list of points, as in the JSON file.

  Raises:
    UserError: the content is no search space.
  """
  space = search_space.parse(search_space_content, 'the search space of halton.generate_search')
  points = search_space.points(space, num_trials, seed=0)
  return [search_space.as_object(point) for point in points]
