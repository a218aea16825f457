"""Options of a training step besides the optimizer, the same in both frameworks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from algorithmic_efficiency import errors, spec

LOG_PERIOD_STEPS = 100  # loss and gradient norm are logged every so many steps


@dataclass(frozen=True, kw_only=True)
class StepOptions:
  """Options for the gradient of a step.

  Attributes:
    label_smoothing: weight of the uniform distribution in the targets of classification losses.
    dropout_rate: dropout rate; None is the workload's own. Models without dropout ignore it.
    grad_clip: largest global norm of the gradient; None does not clip.
    micro_batches: number of parts that a batch is split into to save memory. The gradient is that
      of the whole batch.

  Raises:
    UserError: a value is out of range.
  """

  label_smoothing: float = 0.0
  dropout_rate: float | None = None
  grad_clip: float | None = None
  micro_batches: int = 1

  def __post_init__(self) -> None:
    if self.grad_clip is not None and not self.grad_clip > 0:
      raise errors.UserError(f'grad_clip must be positive; it is {self.grad_clip}.')
    if not isinstance(self.micro_batches, int) or self.micro_batches < 1:
      raise errors.UserError(
        f'micro_batches must be a positive whole number; it is {self.micro_batches}.'
      )

  @classmethod
  def of(cls, hyperparameters: Any) -> StepOptions:
    """Returns the options among the hyperparameters; missing ones have their defaults."""
    found = {
      name: getattr(hyperparameters, name)
      for name in cls.__dataclass_fields__
      if hasattr(hyperparameters, name)
    }
    return cls(**found)


def check_divisible(num_examples: int, micro_batches: int) -> None:
  """Checks that a batch splits evenly into parts.

  Raises:
    UserError: it does not.
  """
  if num_examples % micro_batches:
    raise errors.UserError(
      f'The batch size must be divisible by micro_batches; {num_examples} is not divisible by '
      f'{micro_batches}.'
    )


def check_independent(workload: spec.Workload, micro_batches: int) -> None:
  """Checks that the loss of a batch is the sum of the losses of its parts, if there are several.

  Raises:
    UserError: it is not.
  """
  if micro_batches > 1 and not workload.independent_examples:
    raise errors.UserError(
      'micro_batches needs a workload whose examples do not depend on each other. The definition '
      'of this one has independent_examples=False: its model or its loss takes statistics over the '
      'whole batch, and those of a part differ. Leave micro_batches at 1.'
    )


def whole_batch_error() -> errors.UserError:
  """Returns the error for micro-batches of an optimizer that evaluates the loss itself."""
  return errors.UserError(
    'An optimizer that evaluates the loss itself needs the whole batch; leave micro_batches at 1.'
  )
