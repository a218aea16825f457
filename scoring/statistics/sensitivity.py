"""Where the ranking hangs on a choice: one workload, the cut-off, the held-out variants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring import profiles
from scoring.profiles import Columns
from scoring.result import Result

CUT_OFFS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
  """Scores under other choices: a row a choice, a column a submission (in the result's order)."""

  without: dict[str, np.ndarray]  # by the base workload that is left out
  cut_offs: dict[float, np.ndarray]
  base_only: np.ndarray | None  # None where the suite has no held-out workloads
  sentences: tuple[str, ...]


def analyse(result: Result) -> Sensitivity:
  options = result.score_options()
  without = {
    name: profiles.scores(result.times, _without(result.columns, index), **options)
    for index, name in enumerate(result.base)
    if len(result.base) > 1
  }
  cut_offs = {
    tau: profiles.scores(result.times, result.columns, **{**options, 'max_ratio': tau})
    for tau in CUT_OFFS
  }
  base_only = None
  if result.columns.held_out:
    which = Columns(
      base=result.columns.base,
      held_out=(),
      held_out_base=(),
      num_counted=result.columns.num_counted,
    )
    base_only = profiles.scores(result.times, which, **options)
  return Sensitivity(
    without=without,
    cut_offs=cut_offs,
    base_only=base_only,
    sentences=_sentences(result, without, cut_offs, base_only),
  )


def _without(which: Columns, position: int) -> Columns:
  """The columns less one base workload and its variants."""
  kept = [i for i, owner in enumerate(which.held_out_base) if owner != position]
  return Columns(
    base=tuple(w for i, w in enumerate(which.base) if i != position),
    held_out=tuple(which.held_out[i] for i in kept),
    held_out_base=tuple(which.held_out_base[i] - (which.held_out_base[i] > position) for i in kept),
    num_counted=which.num_counted - 1,
  )


def _sentences(
  result: Result,
  without: dict[str, np.ndarray],
  cut_offs: dict[float, np.ndarray],
  base_only: np.ndarray | None,
) -> tuple[str, ...]:
  found = [_flips(result, scores, f'Without {name}') for name, scores in without.items()]
  found += [
    _flips(result, scores, f'With a cut-off of {tau:g}') for tau, scores in cut_offs.items()
  ]
  if base_only is not None:
    found.append(_flips(result, base_only, 'Without the held-out workloads'))
  sentences = [sentence for sentence in found if sentence]
  return tuple(sentences) or ('The ranking stays the same under every choice looked at.',)


def _flips(result: Result, scores: np.ndarray, condition: str) -> str:
  """Who overtakes whom among neighbors of the ranking, in words; empty if nobody does."""
  order = result.ranking
  moves = []
  for place, s in enumerate(order):
    passed = [
      o for o in order[:place] if scores[s] > scores[o] and result.scores[s] < result.scores[o]
    ]
    if passed:
      names = ', '.join(f'{result.submissions[o]} ({scores[o]:.3f})' for o in passed)
      moves.append(f'{result.submissions[s]} ({scores[s]:.3f}) passes {names}')
  return f'{condition}, {"; ".join(moves)}.' if moves else ''
