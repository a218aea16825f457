"""The published scores of AlgoPerf 0.5 from its published logs, to four decimals."""

from __future__ import annotations

import os

import numpy as np
import pytest

import scoring
from scoring import profiles, published
from scoring.rules import resolve
from scoring.time_to_target import cells, medians, outcomes

PUBLISHED = {
  'shampoo_submission': 0.7784,
  'schedule_free_adamw': 0.7077,
  'generalized_adam': 0.6383,
  'cyclic_lr': 0.6301,
  'nadamp': 0.5909,
  'baseline': 0.5707,
  'amos': 0.4918,
  'caspr_adaptive': 0.4722,
  'lawa_queue': 0.3699,
  'lawa_ema': 0.3384,
  'schedule_free_prodigy': 0.0,
}


def rounded(result) -> dict[str, float]:
  return {
    name: round(float(s), 4) for name, s in zip(result.submissions, result.scores, strict=True)
  }


def test_the_table_that_ships_gives_the_published_scores():
  """Without the logs: the outcomes that the package carries for --against."""
  table = published.read('algoperf_v05', 'external')
  rules = resolve('algoperf_v05')
  gathered = cells(
    table.assign(time=table.submission_time_sec.fillna(np.inf)),
    sorted(PUBLISHED),
    list(rules.members),
  )
  which = profiles.columns(gathered.workloads, rules.base_of, 8)
  found = profiles.scores(
    medians(gathered.study_times), which, max_ratio=4.0, integral=rules.integral
  )
  assert dict(zip(gathered.submissions, found.round(4).tolist(), strict=True)) == PUBLISHED


@pytest.fixture(scope='module')
def logs(published_logs):
  return published_logs


@pytest.mark.data
def test_the_published_scores_to_four_decimals(logs):
  result = scoring.score(scoring.load(logs), 'algoperf_v05', statistics=False)
  assert rounded(result) == PUBLISHED


@pytest.mark.slow
@pytest.mark.data
def test_shuffling_changes_nothing_and_the_shipped_table_is_that_of_the_logs(logs, monkeypatch):
  frame = scoring.load(logs)
  scan = os.scandir

  class Shuffled:
    """A directory whose entries come in a random order."""

    def __init__(self, path):
      self.path = path

    def __enter__(self):
      with scan(self.path) as entries:
        found = list(entries)
      np.random.default_rng(len(found)).shuffle(found)
      return found

    def __exit__(self, *args):
      return None

  monkeypatch.setattr(os, 'scandir', Shuffled)
  other = scoring.load(logs)
  assert other.attrs['runs'] == frame.attrs['runs']
  assert rounded(scoring.score(other, 'algoperf_v05', statistics=False)) == PUBLISHED
  shuffled = frame.sample(frac=1.0, random_state=1)
  shuffled.attrs['runs'] = frame.attrs['runs']
  assert rounded(scoring.score(shuffled, 'algoperf_v05', statistics=False)) == PUBLISHED

  rules = resolve('algoperf_v05')
  table = outcomes(frame, rules)
  shipped = published.read('algoperf_v05', 'external')
  assert len(shipped) == len(table)
  # To the last bit, so that the same runs get the same score beside the published ones.
  np.testing.assert_array_equal(shipped.submission_time_sec, table.submission_time_sec)
  assert (shipped.status == table.status).all()


@pytest.mark.slow
@pytest.mark.data
def test_the_report_of_the_published_logs_is_at_most_6_mb(logs, tmp_path):
  from algorithmic_efficiency.cli import main

  assert main(['report', str(logs), '--suite', 'algoperf_v05', '--output_dir', str(tmp_path)]) == 0
  assert (tmp_path / 'report.html').stat().st_size < 6e6


@pytest.mark.slow
@pytest.mark.data
def test_the_time_table_is_written_before_the_filters(logs, tmp_path):
  from algorithmic_efficiency.cli import main

  out = tmp_path / 'out'
  arguments = ['score', str(logs), '--suite', 'algoperf_v05', '--no_report', '--output_dir']
  assert main([*arguments, str(out)]) == 0
  import pandas as pd

  table = pd.read_csv(out / 'time_to_targets.csv', index_col='submission')
  assert table.shape == (11, 14)
  assert np.isinf(table.loc['amos', 'criteo1tb'])
  # Slower than four times the fastest, so without a score, and in the table all the same.
  assert table.loc['amos', 'ogbg'] == pytest.approx(11_100, rel=0.01)
  scores = pd.read_csv(out / 'scores.csv', index_col='submission')
  assert scores.score.round(4).to_dict() == PUBLISHED
  assert list(scores.columns) == ['score', 'low', 'high', 'coverage']
