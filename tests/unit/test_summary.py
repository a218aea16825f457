"""Who leads, how sure that is and why, in sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scoring_runs import hit_at, write_times, write_trial

import scoring
from scoring import summary
from scoring.statistics import verdicts

WORKLOADS = ('ogbg', 'wmt')


def said(root: Path) -> str:
  frame = scoring.load(root)
  result = scoring.score(frame, 'algoperf_v06', workloads=WORKLOADS, statistics=False)
  return ' '.join(summary.sentences(result, verdicts.all_pairs(result, seed=0)))


def both(seconds: float | None) -> dict[str, float | None]:
  return dict.fromkeys(WORKLOADS, seconds)


def noisy(root: Path, centers: dict[str, float], studies: int = 5) -> Path:
  rng = np.random.default_rng(0)
  for name, center in centers.items():
    for workload in WORKLOADS:
      for study in range(1, studies + 1):
        seconds = center * float(np.exp(0.05 * rng.standard_normal()))
        write_trial(root, name, workload, hit_at(workload, seconds), study=study)
  return root


def test_a_leader_that_is_better_than_all(tmp_path):
  text = said(noisy(tmp_path, {'fast': 100.0, 'slow': 150.0, 'slower': 200.0}))
  assert text == (
    'fast leads with a score of 1.000. The runs are enough to say that it is better than all 2 '
    'others. fast is the fastest on 2 of 2 workloads, and misses none.'
  )


def test_a_leader_that_is_not_told_from_the_next(tmp_path):
  text = said(noisy(tmp_path, {'fast': 100.0, 'close': 100.5, 'slow': 200.0}))
  assert 'The runs do not tell it from' in text and 'It is better than slow.' in text


def test_too_few_studies_are_named(tmp_path):
  text = said(write_times(tmp_path, {'a': both(10.0), 'b': both(20.0)}))
  assert (
    'a leads with a score of 1.000. That is not sure yet: on 2 workloads a verdict needs 3 studies '
    'at least, and these runs have 1.'
  ) in text


def test_a_single_workload_is_told_by_its_times(tmp_path):
  frame = scoring.load(write_times(tmp_path, {'a': {'ogbg': 10.0}, 'b': {'ogbg': 20.0}}))
  result = scoring.score(frame, 'algoperf_v06', workloads=('ogbg',), statistics=False)
  text = ' '.join(summary.sentences(result, verdicts.all_pairs(result, seed=0)))
  assert text.endswith('On ogbg a wins, after 10 seconds; b takes 2.00 times as many.')


def test_a_shared_first_place(tmp_path):
  times = {'a': {'ogbg': 10.0, 'wmt': None}, 'b': {'ogbg': None, 'wmt': 10.0}}
  text = said(write_times(tmp_path, times, studies=3))
  assert text.startswith('a and b share the first place, with a score of 0.500.')
  assert 'a is the fastest on 1 of 2 workloads, and does not score on wmt.' in text
  assert 'b is the fastest on 1 of 2 workloads, and does not score on ogbg.' in text


def test_nobody_leads_without_a_hit(tmp_path):
  text = said(write_times(tmp_path, {'a': both(None), 'b': both(None)}))
  assert text == 'No submission reaches a target in time, so that nobody leads.'


def test_a_submission_alone(tmp_path):
  text = said(write_times(tmp_path, {'a': both(10.0)}))
  assert text.startswith('a is alone here, with a score of 1.000.')


def test_many_names_are_counted(tmp_path):
  names = dict.fromkeys('abcdefg', both(10.0))
  assert 'a, b, c and 4 others share' in said(write_times(tmp_path, names))


def sentences_by_workload(root: Path) -> list[str]:
  result = scoring.score(scoring.load(root), 'algoperf_v06', workloads=WORKLOADS, statistics=False)
  return summary.by_workload(result)


def test_each_workload_has_its_winner_and_the_next(tmp_path):
  times = {'a': {'ogbg': 10.0, 'wmt': 30.0}, 'b': {'ogbg': 25.0, 'wmt': 20.0}}
  assert sentences_by_workload(write_times(tmp_path, times)) == [
    'On ogbg a wins, after 10 seconds; b takes 2.50 times as many.',
    'On wmt b wins, after 20 seconds; a takes 1.50 times as many.',
  ]


def test_a_miss_is_explained_by_its_best_value(tmp_path):
  times = {'a': {'ogbg': 10.0, 'wmt': None}, 'b': {'ogbg': None, 'wmt': None}}
  first, second = sentences_by_workload(write_times(tmp_path, times))
  assert first.startswith('On ogbg a wins, after 10 seconds; b misses the target: its best ')
  assert first.endswith(' is asked for.')
  assert second == 'Nobody reaches a target on wmt.'


def test_a_submission_that_is_alone_is_called_so(tmp_path):
  [only, _] = sentences_by_workload(write_times(tmp_path, {'a': {'ogbg': 10.0}}))
  assert only == 'On ogbg a wins, after 10 seconds, alone.'
