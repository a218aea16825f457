"""What the comparison of a mixture with plain MLPs says of finished trials."""

from __future__ import annotations

import math

import mixture_against_dense
import pandas as pd
import pytest

RATES = (0.001, 0.002, 0.004)


def trials(losses: dict[str, dict[float, list[float]]]) -> pd.DataFrame:
  return pd.DataFrame(
    {
      'workload': workload,
      'study': study,
      'learning_rate': rate,
      'loss': loss,
      'load': 0.2 if workload == 'w' else math.nan,
      'step_sec': 0.3 if workload == 'w' else 0.2,
    }
    for workload, of_rates in losses.items()
    for rate, of_studies in of_rates.items()
    for study, loss in enumerate(of_studies, 1)
  )


def said(mixture: list[float], dense: list[float]) -> list[str]:
  """Each side is better at its middle rate than at the others, of which one diverges."""

  def of_rates(losses: list[float]) -> dict[float, list[float]]:
    return dict(zip(RATES, ([9.0, 9.0, 9.0], losses, [0.1, 0.1, math.nan]), strict=True))

  found = {'w': of_rates(mixture), 'w_dense': of_rates(dense), 'w_no_balance': of_rates(mixture)}
  return list(mixture_against_dense.lines(trials(found), 'w'))


def test_each_side_is_at_its_best_rate_and_one_that_diverged_is_none():
  lines = said([0.5, 0.6, 0.7], [0.8, 0.9, 1.0])
  assert lines[0] == (
    'w: learning rate 0.002; last loss 0.5000, 0.6000, 0.7000; median step 0.300 s; '
    'load variation 0.200'
  )
  assert lines[1].startswith('w_dense: learning rate 0.002; last loss 0.8000') and (
    'load' not in lines[1]
  )
  assert lines[-1].endswith(': 1.50')


@pytest.mark.parametrize(
  ('dense', 'expected'),
  [
    ([0.8, 0.9, 1.0], '-0.3000, 95 % interval -0.3000 to -0.3000'),
    # Differences -.2, -.3, -.4: t(.975, 2) = 4.303 times .1 / root(3) is .2484.
    ([0.7, 0.9, 1.1], '-0.3000, 95 % interval -0.5484 to -0.0516'),
  ],
)
def test_the_interval_is_of_paired_seeds(dense, expected):
  assert said([0.5, 0.6, 0.7], dense)[3] == f'Mixture less dense, paired: {expected}'
