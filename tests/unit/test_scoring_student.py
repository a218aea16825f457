"""Quantiles of Student's t: against tables, and against scipy where it is installed."""

from __future__ import annotations

import pytest

from scoring import student


@pytest.mark.parametrize(
  ('share', 'df', 'expected'),
  [
    *((0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 3, 3.1824), (0.975, 4, 2.7764)),
    *((0.95, 9, 1.8331), (0.995, 30, 2.7500), (0.975, 10_000, 1.9600), (0.5, 7, 0.0)),
  ],
)
def test_quantiles_are_those_of_the_tables(share, df, expected):
  assert student.quantile(share, df) == pytest.approx(expected, abs=1e-4)


def test_quantiles_are_those_of_scipy():
  special = pytest.importorskip('scipy.special', reason='scipy comes with the extra quick')
  for df in (1, 2, 5, 6, 39, 200):
    for share in (0.6, 0.975, 0.9999):
      assert student.quantile(share, df) == pytest.approx(special.stdtrit(df, share), rel=1e-6)


@pytest.mark.parametrize(('share', 'df'), [(1.0, 3), (0.4, 3), (0.975, 0)])
def test_what_has_no_quantile_is_refused(share, df):
  with pytest.raises(ValueError, match='from 1 on; they are'):
    student.quantile(share, df)
