"""How far a trial has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Segment = tuple[float, int]
"""The steps between two evaluations: median seconds of a step, and number of steps."""


@dataclass
class Position:
  """The progress of a trial: what a checkpoint holds besides the arrays.

  Attributes:
    global_step: updates done.
    charged_steps: steps on the step axis. An update counts as often as it drew batches from the
      input queue, at least once; a batch drawn in `prepare_for_eval` counts as one step.
    next_eval_steps: charged steps at which the next evaluation is due, on the step axis.
    num_evals: evaluations so far, partial ones among them.
    validation_reached, test_reached: whether any evaluation so far has reached that target.
    eval_results: step and row of each full evaluation.
    step_times: one entry for each segment; its time includes a step's share of `prepare_for_eval`.
    stop_reason: why the trial ended; None while it runs.
  """

  global_step: int = 0
  charged_steps: int = 0
  next_eval_steps: int = 1
  num_evals: int = 0
  validation_reached: bool = False
  test_reached: bool = False
  eval_results: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
  step_times: list[Segment] = field(default_factory=list)
  stop_reason: str | None = None
