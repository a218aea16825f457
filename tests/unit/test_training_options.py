"""What a submission may say about a training step: both sides of each limit, and the defaults."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.training import options
from algorithmic_efficiency.training.options import StepOptions


@pytest.mark.parametrize('limit', [5e-324, 1.0, math.inf])
def test_any_positive_number_clips(limit):
  assert StepOptions(grad_clip=limit).grad_clip == limit


@pytest.mark.parametrize('limit', [0, 0.0, -1.0, math.nan])
def test_a_limit_of_the_gradient_is_positive(limit):
  with pytest.raises(UserError, match=f'grad_clip must be positive; it is {limit}'):
    StepOptions(grad_clip=limit)


def test_one_part_is_the_least():
  assert StepOptions(micro_batches=1).micro_batches == 1
  for wrong in (0, -1, 1.0, '2', None):
    with pytest.raises(UserError, match=f'positive whole number; it is {wrong}'):
      StepOptions(micro_batches=wrong)


def test_hyperparameters_name_options_and_what_they_leave_out_has_its_default():
  assert StepOptions.of(None) == StepOptions()
  point = SimpleNamespace(learning_rate=0.1, grad_clip=2.0, dropout_rate=0.5)
  assert StepOptions.of(point) == StepOptions(grad_clip=2.0, dropout_rate=0.5)
  assert StepOptions() == StepOptions(
    label_smoothing=0.0, dropout_rate=None, grad_clip=None, micro_batches=1
  )


def test_a_batch_divides_into_its_parts():
  for parts in (1, 2, 4, 8):
    options.check_divisible(8, parts)
  for parts in (3, 5, 16):
    with pytest.raises(UserError, match=f'8 is not divisible by {parts}'):
      options.check_divisible(8, parts)


def test_loss_and_gradient_norm_are_logged_every_hundred_steps():
  assert options.LOG_PERIOD_STEPS == 100
