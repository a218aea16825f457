"""Damaged logs end in a result or in one clear message, never in a traceback."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
from scoring_runs import hit_at, write_trial

import scoring
from algorithmic_efficiency.errors import UserError
from scoring import outputs
from scoring.report import payload

NUM_CASES_PER_BATCH = 50
NUM_BATCHES = 12  # the first one always, three with the slow tests, the others with the long ones
WORKLOADS = ('ogbg', 'wmt')


@pytest.fixture(scope='module')
def intact(tmp_path_factory):
  root = tmp_path_factory.mktemp('intact')
  for name, seconds in (('a', 10.0), ('b', 20.0)):
    for workload in WORKLOADS:
      for study in (1, 2):
        write_trial(
          root,
          name,
          workload,
          hit_at(workload, seconds * study),
          study=study,
          hyperparameters={'lr': 0.1},
          record={'status': 'finished', 'suite': 'algoperf_v06', 'seeds': {'study': study}},
        )
  return root


def flip_bytes(content: bytes, rng: random.Random) -> bytes:
  found = bytearray(content)
  for _ in range(rng.choice([1, 1, 2, 10])):
    if found:
      found[rng.randrange(len(found))] = rng.randrange(256)
  return bytes(found)


def cut(content: bytes, rng: random.Random) -> bytes:
  start = rng.choice([0, 0, rng.randrange(len(content) + 1)])
  return content[start : start + rng.randrange(len(content) + 1)]


def drop_column(content: bytes, rng: random.Random) -> bytes:
  lines = [line.split(b',') for line in content.splitlines()]
  index = rng.randrange(max(1, len(lines[0]) if lines else 1))
  return b'\n'.join(b','.join(line[:index] + line[index + 1 :]) for line in lines) + b'\n'


def mix_lines(content: bytes, rng: random.Random) -> bytes:
  lines = content.splitlines(keepends=True)
  lines = [rng.choice(lines) for _ in range(len(lines) + rng.randrange(3))] if lines else lines
  return b''.join(lines)


def odd_values(content: bytes, rng: random.Random) -> bytes:
  odd = [
    b'nan',
    b'inf',
    b'-inf',
    b'',
    b'-1',
    b'1e999',
    b'"',
    b'0x1',
    b'null',
    b'\xff',
    b'{}',
    b'1e18',
  ]
  parts = content.replace(b'\n', b'\n,').split(b',')
  for _ in range(rng.choice([1, 3])):
    parts[rng.randrange(len(parts))] = rng.choice(odd)
  return b','.join(parts).replace(b'\n,', b'\n')


DAMAGES = (flip_bytes, cut, drop_column, mix_lines, odd_values)


def damage_a_file(root, rng: random.Random) -> None:
  path = rng.choice(sorted(path for path in root.rglob('*') if path.is_file()))
  what = rng.randrange(12)
  if what == 0:
    path.unlink()
  elif what == 1:
    path.unlink()
    path.mkdir()
  elif what == 2:
    shutil.rmtree(path.parent)
  else:
    path.write_bytes(rng.choice(DAMAGES)(path.read_bytes(), rng))


@pytest.mark.parametrize(
  'batch',
  [
    *(0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 4))),
    *(pytest.param(i, marks=pytest.mark.long) for i in range(4, NUM_BATCHES)),
  ],
)
def test_damaged_logs_are_scored_or_refused_with_a_message(tmp_path, intact, batch):
  refused = noted = 0
  clean = None
  for case in range(NUM_CASES_PER_BATCH):
    rng = random.Random(f'{batch} {case}')
    root = tmp_path / str(case)
    shutil.copytree(intact, root)
    for _ in range(rng.choice([1, 1, 1, 4, 20])):
      damage_a_file(root, rng)
      if not any(root.rglob('*.csv')):
        break
    try:
      frame = scoring.load(root)
      result = scoring.score(
        frame, 'algoperf_v06', workloads=WORKLOADS, num_resamples=20, statistics=case % 5 == 0
      )
    except UserError as error:
      refused += 1
      assert str(error) and '\n' not in str(error)
      continue
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    assert not np.isnan(result.scores).any()
    if result.statistics is not None:
      for record in (outputs.as_json(result), payload.build(frame, result)):
        json.dumps(record, allow_nan=False)
    noted += bool(result.notes)
    clean = result
  assert clean is not None and noted > 0


def test_the_intact_runs_score_cleanly(intact):
  result = scoring.score(
    scoring.load(intact), 'algoperf_v06', workloads=WORKLOADS, integral='exact'
  )
  assert result.scores.tolist() == pytest.approx([1.0, 2 / 3])
