"""A study that was run or planned, and is gone, is a miss: deletion never makes a score better."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import rich.console
from scoring_runs import hit_at, write_recorded_trial, write_times

import scoring
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import PlannedTrials, StepCost
from scoring import console, outputs, report
from scoring.notes import Note

WORKLOAD = 'ogbg'
SECONDS = {'fast': (10.0, 30.0, 20.0), 'slow': (25.0, 15.0, 35.0)}


def write_race(root: Path, *names: str) -> Path:
  for name in names:
    for study, seconds in enumerate(SECONDS[name], 1):
      write_recorded_trial(root, name, WORKLOAD, hit_at(WORKLOAD, seconds), study=study)
  return root


def score(root: Path):
  frame = scoring.load(root)
  return scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], statistics=False)


def missing(result) -> list[Note]:
  return [note for note in result.notes if note.kind == 'missing_study']


@pytest.fixture
def race(tmp_path: Path) -> Path:
  return write_race(tmp_path, *SECONDS)


def test_a_whole_race_misses_none(race):
  result = score(race)
  assert result.times[:, 0].tolist() == [20.0, 25.0] and not missing(result)


@pytest.mark.parametrize('name', SECONDS)
@pytest.mark.parametrize('gone', [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3)])
def test_no_deletion_makes_a_time_better(name, gone, race):
  """Regression: without its slowest study a submission had a better median."""
  place = sorted(SECONDS).index(name)
  before = score(race).times[place, 0]
  for study in gone:
    shutil.rmtree(race / name / f'study_{study}')
  result = score(race)
  counted = [np.inf if study in gone else sec for study, sec in enumerate(SECONDS[name], 1)]
  assert result.times[place, 0] == sorted(counted)[1] >= before
  names = ', '.join(f'study_{study}' for study in gone)
  assert missing(result) == [
    Note('missing_study', f'{name}, {WORKLOAD} (jax)', f'{names} of {race}')
  ]


def test_the_terminal_and_the_files_name_the_submission_the_workload_and_the_studies(race):
  shutil.rmtree(race / 'fast' / 'study_2')
  frame = scoring.load(race)
  result = scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], num_resamples=10)
  shown = io.StringIO()
  console.show_leaderboard(result, rich.console.Console(file=shown, width=200))
  line = f'fast, {WORKLOAD} (jax): study_2 of {race}'
  assert f'  {line}\n' in shown.getvalue()
  where = [f'fast, {WORKLOAD} (jax)', f'study_2 of {race}']
  assert outputs.as_json(result)['notes']['missing_study']['where'] == [where]
  page = report.write(frame, result, race / 'out', figures=False).read_text()
  assert f'study_2 of {race}' in page


def test_what_others_wrote_reaches_no_terminal_as_a_command(race):
  """Regression: the reason of a trial, or the title of a suite, could clear the screen."""
  frame = scoring.load(race)
  result = scoring.score(frame, 'algoperf_v06', workloads=[WORKLOAD], num_resamples=10)
  suite = dataclasses.replace(result.rules.suite, title='\x1b[2Jtitle')
  notes = (Note('damaged', 'a\x1b[1mb', '\x07'),)
  rules = dataclasses.replace(result.rules, suite=suite, changes=('\x1b]0;name\x07',))
  shown = io.StringIO()
  console.show_leaderboard(
    dataclasses.replace(result, rules=rules, notes=notes), rich.console.Console(file=shown)
  )
  assert all(letter.isprintable() for letter in shown.getvalue().replace('\n', ''))
  assert r'\x1b[2Jtitle' in shown.getvalue() and r'a\x1b[1mb: \x07' in shown.getvalue()


def cost(name: str, study: int) -> StepCost:
  return StepCost(
    submission=name,
    baseline='nadamw',
    workload=WORKLOAD,
    framework='jax',
    study=study,
    host='h',
    rounds=((0.01, 0.01, 0.01),),
  )


def plan(name: str, num_trials: int) -> PlannedTrials:
  return PlannedTrials(
    submission=name,
    workload=WORKLOAD,
    framework='jax',
    num_trials=num_trials,
    at_most_sec=20.0,
    expected_sec=12.0,
    off_clock_sec=1.0,
    basis='the budget',
  )


@pytest.mark.parametrize('record', ['costs', 'estimate'])
def test_the_records_of_a_race_tell_of_studies_that_nobody_has_any_more(record, tmp_path):
  root = write_race(tmp_path, 'fast')
  if record == 'costs':
    race_files.append_costs(root, [cost('fast', study) for study in (1, 2, 3)])
  else:
    race_files.write_estimate(root, [plan('fast', 3)])
  assert not missing(score(root))
  shutil.rmtree(root / 'fast' / 'study_2')
  [note] = missing(score(root))
  assert note.detail == f'study_2 of {root}'


def test_studies_of_other_races_are_not_missed(tmp_path):
  """Runs with other seeds, and logs without records, have as many studies as they have."""
  write_race(tmp_path, 'fast')
  rows = hit_at(WORKLOAD, 5.0)
  write_recorded_trial(tmp_path, 'alone', WORKLOAD, rows, seeds={'seed': 2, 'study': 5})
  write_times(tmp_path, {'log': {WORKLOAD: 10.0}})
  result = score(tmp_path)
  assert not missing(result)
  noted = {note.where: note.detail for note in result.notes if note.kind == 'study_count'}
  assert noted == dict.fromkeys(
    (f'alone, {WORKLOAD}', f'log, {WORKLOAD}'), '1 of 3 studies: study_1'
  )


def test_a_study_that_nobody_has_any_more_is_said_by_the_number_of_studies(race):
  for name in SECONDS:
    shutil.rmtree(race / name / 'study_2')
  result = score(race)
  noted = {note.where: note.detail for note in result.notes if note.kind == 'study_count'}
  assert noted == {f'{name}, {WORKLOAD}': '2 of 3 studies: study_1, study_3' for name in SECONDS}
