"""What external tuning tried, and with what outcome."""

from __future__ import annotations

import math
from pathlib import Path

from scoring_runs import hit_at, miss, write_trial

import scoring
from scoring import tuning_outcomes
from scoring.report import page, payload

WORKLOAD = 'ogbg'


def write(root: Path) -> Path:
  """Point 0.1 wins two studies of three, 0.2 one, and 0.3 never reaches the target."""
  seconds = {0.1: (100.0, 100.0, 300.0), 0.2: (200.0, 200.0, 200.0), 0.3: (None, None, None)}
  for trial, (rate, by_study) in enumerate(seconds.items(), 1):
    for study, sec in enumerate(by_study, 1):
      rows = miss(WORKLOAD) if sec is None else hit_at(WORKLOAD, sec)
      point = {'lr': rate, 'beta': 0.9}
      write_trial(root, 'a', WORKLOAD, rows, study=study, trial=trial, hyperparameters=point)
  return root


def scored(root: Path) -> tuple:
  frame = scoring.load(root)
  return frame, scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], num_resamples=10)


def test_points_are_counted_by_the_studies_that_they_win(tmp_path):
  (tried,) = tuning_outcomes.of(scored(write(tmp_path))[1])
  assert [point['lr'] for point in tried.points] == [0.1, 0.2, 0.3]
  assert tried.fixed == {'beta': 0.9}
  first, second, third = (outcomes[WORKLOAD] for outcomes in tried.outcomes)
  assert (first.num_won, first.num_reached, first.num_trials, first.time) == (2, 3, 3, 100.0)
  assert (second.num_won, second.time) == (1, 200.0)
  assert (third.num_won, third.num_reached) == (0, 0) and math.isnan(third.time)


def test_the_page_names_the_winners(tmp_path):
  tried = payload.build(*scored(write(tmp_path)))['tried']
  (one,) = tried['submissions']
  assert one['winners'] == ['#1 (2), #2 (1)'] and one['won'] == '2 of 3'
  assert one['points'][2]['outcomes'][0] == {'text': '0 of 3', 'time': '', 'won': 0}


def test_a_table_with_many_columns_is_two_with_upright_headings(tmp_path):
  """Regression: on paper and on a desktop, points and fourteen workloads ran beyond the edge."""
  (one,) = payload.build(*scored(write(tmp_path)))['tried']['submissions']
  text = "{% from 'parts.j2' import points_table %}{{ points_table(one, workloads) }}"
  template = page.templates().from_string(text)
  few = template.render(one=one, workloads=[WORKLOAD])
  assert few.count('<table') == 1 and 'upright' not in few
  many = template.render(one=one, workloads=[f'w{number}' for number in range(14)])
  assert many.count('<table') == 2 and many.count('upright') == 1


def test_trials_that_diverge_are_counted(tmp_path):
  for trial, value in ((1, float('nan')), (2, 0.1)):
    rows = [(10, 1.0, value)]
    write_trial(tmp_path, 'a', WORKLOAD, rows, trial=trial, hyperparameters={'lr': trial})
  (tried,) = tuning_outcomes.of(scored(tmp_path)[1])
  found = {
    point['lr']: one[WORKLOAD] for point, one in zip(tried.points, tried.outcomes, strict=True)
  }
  assert (found[1].num_diverged, found[2].num_diverged) == (1, 0)


def test_one_point_is_no_tuning(tmp_path):
  for study in (1, 2):
    rows = hit_at(WORKLOAD, 10.0)
    write_trial(tmp_path, 'a', WORKLOAD, rows, study=study, hyperparameters={'lr': 0.1})
  assert tuning_outcomes.of(scored(tmp_path)[1]) == ()
