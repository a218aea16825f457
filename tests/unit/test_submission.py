"""Batch sizes that a submission is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.submission import Submission

NAMES = ('some_variant', 'some_base')


def known(sizes: dict[str, int]) -> Callable[[str], int]:
  def size(name: str) -> int:
    if name not in sizes:
      raise ValueError(f'Unsupported workload name: {name}.')
    return sizes[name]

  return size


def submission(
  train: Callable[[str], int], evaluation: Callable[[str], int] | None = None
) -> Submission:
  def unused(*arguments: object) -> None:
    raise AssertionError

  return Submission(
    file=Path('submission.py'),
    get_batch_size=train,
    init_optimizer_state=unused,
    update_params=unused,
    data_selection=unused,
    prepare_for_eval=None,
    get_eval_batch_size=evaluation,
    wants_train_state=False,
  )


def test_an_unknown_variant_takes_the_size_of_its_base():
  assert submission(known({'some_base': 64})).batch_size(NAMES, 8, 4) == (64, 'some_base')


def test_an_unknown_workload_takes_the_size_of_the_definition():
  assert submission(known({})).batch_size(NAMES, 8, 4) == (8, '')


def test_the_evaluation_batch_size_falls_back_likewise():
  """Regression: an entry that did not know a workload's name ended its trial with a traceback."""
  assert submission(known({}), known({'some_base': 64})).eval_batch_size(NAMES, 10, 4) == 64
  assert submission(known({}), known({})).eval_batch_size(NAMES, 10, 4) == 12
  assert submission(known({})).eval_batch_size(NAMES, 10, 4) == 12


@pytest.mark.parametrize('size', [0, -8, 7.5, None, True, '8'])
def test_a_size_that_is_none_is_refused(size):
  with pytest.raises(errors.UserError, match='must be a positive integer'):
    submission(lambda name: size).batch_size(NAMES, 8, 1)
