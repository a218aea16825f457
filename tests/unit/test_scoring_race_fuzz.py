"""Damaged copies of a race end in a result or in one message, and nothing gets better unsaid."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from race_damages import DAMAGES
from scoring_runs import hit_at, write_recorded_trial

import scoring
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import PlannedTrials, StepCost
from scoring import outputs

NUM_CASES_PER_BATCH = 25
NUM_BATCHES = 20  # the first always, the others with the long tests
WORKLOADS = ('quick_lm', 'quick_vision')
STEPS = {'momentum': 150, 'nadamw': 100}


@pytest.fixture(scope='module')
def race(tmp_path_factory) -> Path:
  """A race as `algoeff bench` leaves it: two submissions, two workloads, two studies."""
  root = tmp_path_factory.mktemp('race')
  for name, steps in STEPS.items():
    for workload in WORKLOADS:
      for study in (1, 2):
        write_recorded_trial(
          root,
          name,
          workload,
          hit_at(workload, 10.0 + study, steps=steps + study),
          study=study,
          suite='quick',
          ruleset='self',
          step_time_sec=0.01,
          environment={'host_hash': 'h', 'machine_hash': 'm', 'devices': {'num_threads': 1}},
          buckets={'setup': 1.0, 'update': 10.0},
        )
  race_files.append_costs(root, [cost for study in (1, 2) for cost in costs(study)])
  race_files.write_estimate(root, [planned(name, w) for name in STEPS for w in WORKLOADS])
  return root


def costs(study: int) -> list[StepCost]:
  return [
    StepCost(
      submission=name,
      baseline='nadamw',
      workload=workload,
      framework='jax',
      study=study,
      host='h',
      rounds=tuple((0.01, 0.01 * factor, 0.01) for factor in (1.1, 1.2, 1.3)),
    )
    for name in STEPS
    for workload in WORKLOADS
  ]


def planned(name: str, workload: str) -> PlannedTrials:
  return PlannedTrials(
    submission=name,
    workload=workload,
    framework='jax',
    num_trials=2,
    at_most_sec=20.0,
    expected_sec=12.0,
    off_clock_sec=1.0,
    basis='the budget',
  )


def score(root: Path):
  frame = scoring.load(root)
  return scoring.score(frame, 'quick', ruleset='self', workloads=WORKLOADS, statistics=False)


def times_and_notes(result) -> tuple[dict[tuple[str, str], float], set]:
  times = {
    (name, workload): result.times[s, w]
    for s, name in enumerate(result.submissions)
    for w, workload in enumerate(result.workloads)
  }
  return times, {(note.kind, note.detail, Path(note.where).name) for note in result.notes}


def batches(*, always: int):
  marks = {True: [], False: [pytest.mark.long]}
  return [pytest.param(i, marks=marks[i < always]) for i in range(NUM_BATCHES)]


@pytest.mark.parametrize('batch', batches(always=1))
def test_a_damaged_race_is_scored_or_refused_and_never_better_without_a_word(tmp_path, race, batch):
  times, notes = times_and_notes(score(race))
  refused = changed = 0
  for case in range(NUM_CASES_PER_BATCH):
    rng = random.Random(f'{batch} {case}')
    root = tmp_path / f'{case}' / 'race'
    shutil.copytree(race, root)
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
      paths = sorted(path for path in root.rglob('*') if path.is_file())
      path, damage = rng.choice(paths), rng.choice(DAMAGES)
      done.append(f'{damage.__name__} {path.relative_to(root)}')
      damage(path, rng)
    try:
      result = score(root)
    except UserError as error:
      refused += 1
      assert str(error) and '\n' not in str(error), done
      continue
    json.dumps(outputs.as_json(result), allow_nan=False)
    new_times, new_notes = times_and_notes(result)
    assert not np.isnan(result.scores).any()
    changed += new_times != times
    for key, time in new_times.items():
      if time < times[key] * (1 - 1e-9):
        assert new_notes - notes, f'{key} took {times[key]:g} and now {time:g}, unsaid: {done}'
  assert refused + changed  # the damages do something
