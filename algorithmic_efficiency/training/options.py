"""What submissions may say about a training step besides the optimizer, in either framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from algorithmic_efficiency import errors

LOG_PERIOD_STEPS = 100  # how often loss and gradient norm are logged


@dataclass(frozen=True, kw_only=True)
class StepOptions:
  """How the gradient of a step is computed.

  Attributes:
    label_smoothing: weight of the uniform distribution in the targets, where the loss has them.
    dropout_rate: None takes the workload's own; models without dropout ignore it.
    grad_clip: the largest global norm of the gradient; None does not clip.
    micro_batches: number of parts that a batch is split into, so that it fits the device's memory.
      The parts give the gradient of the whole batch.
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
    """The options among the hyperparameters; what a search space does not name has its default."""
    found = {
      name: getattr(hyperparameters, name)
      for name in cls.__dataclass_fields__
      if hasattr(hyperparameters, name)
    }
    return cls(**found)


def check_divisible(num_examples: int, micro_batches: int) -> None:
  """
  Raises:
    UserError: a batch does not split evenly into that many parts.
  """
  if num_examples % micro_batches:
    raise errors.UserError(
      f'A batch must split evenly into micro_batches; {num_examples} examples do not into '
      f'{micro_batches} parts.'
    )


def batch_norm_error() -> errors.UserError:
  """The reason why a model with running statistics cannot be trained in parts."""
  return errors.UserError(
    'micro_batches needs a model whose examples do not depend on each other; this one has batch '
    'norm, whose statistics over a part are not those of the whole batch. Leave micro_batches at 1.'
  )


def whole_batch_error() -> errors.UserError:
  """The reason why an optimizer that evaluates the loss by itself takes no parts."""
  return errors.UserError(
    'An optimizer that evaluates the loss by itself does so on the whole batch; leave '
    'micro_batches at 1.'
  )
