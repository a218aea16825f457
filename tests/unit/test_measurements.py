"""The log of a trial, the CSV files made from it, and the trial's record."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import work
from file_limit import file_size_limit
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.results import files, measurements
from algorithmic_efficiency.results.csv_table import CsvTable
from algorithmic_efficiency.results.measurements import RunLog, read
from algorithmic_efficiency.results.trial_record import TrialRecord, read_trial

EVAL_ROW = {
  'train/loss': 0.1 + 0.2,
  'train/accuracy': 0.5,
  'validation/loss': 1e-300,
  'validation/accuracy': 1 / 3,
  'validation/num_examples': 10000,
  'test/loss': math.pi,
  'test/num_examples': 10000,
  'score': 12.5,
  'total_duration': 14.25,
  'accumulated_submission_time': 12.5,
  'accumulated_eval_time': 1.0,
  'accumulated_logging_time': 0.75,
}
ALGOPERF_COLUMNS = [
  'accumulated_eval_time',
  'accumulated_logging_time',
  'accumulated_submission_time',
  'global_step',
  'preemption_count',
  'score',
  'test/loss',
  'test/num_examples',
  'total_duration',
  'train/accuracy',
  'train/loss',
  'validation/accuracy',
  'validation/loss',
  'validation/num_examples',
]
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
ROWS = st.dictionaries(st.text(max_size=5), st.one_of(FLOATS, st.integers()), max_size=4)


def bits(value: object) -> object:
  """Something that is equal only for the very same number."""
  if isinstance(value, float):
    return 'nan' if math.isnan(value) else struct.pack('<d', value)
  return value


def same(left: object, right: object) -> bool:
  if isinstance(left, dict) and isinstance(right, dict):
    return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
  if isinstance(left, list) and isinstance(right, list):
    return len(left) == len(right) and all(map(same, left, right))
  return type(left) is type(right) and bits(left) == bits(right)


def table(folder: Path, name: str) -> pd.DataFrame:
  return pd.read_csv(folder / name)


def test_columns_and_rows_are_those_of_algoperf(tmp_path):
  log = RunLog.open(tmp_path, header={'workload': 'toy'})
  log.append_eval(EVAL_ROW, 1)
  log.append_metrics({'loss': 0.25, 'grad_norm': 2.0}, 99)
  log.append_eval(EVAL_ROW | {'score': 30.0}, 100)
  log.append_end({'score': 31.0}, 101)
  log.close()

  evals = table(tmp_path, 'eval_measurements.csv')
  assert list(evals.columns) == ALGOPERF_COLUMNS
  assert evals['score'].tolist() == [12.5, 30.0]
  everything = table(tmp_path, 'measurements.csv')
  assert list(everything.columns) == [*ALGOPERF_COLUMNS, 'grad_norm', 'loss']
  assert everything['global_step'].tolist() == [1, 99, 100, 101]
  final = everything.iloc[3].dropna()
  assert dict(final) == {'score': 31.0, 'global_step': 101, 'preemption_count': 0}
  assert math.isnan(everything['loss'][0])
  assert everything['loss'][1] == 0.25


def test_first_row_may_be_the_submissions(tmp_path):
  log = RunLog.open(tmp_path, header={})
  log.append_metrics({'loss': 1.0, 'grad_norm': 2.0}, 0)
  log.append_eval({'score': 3.0}, 1)
  log.close()
  header = (tmp_path / 'measurements.csv').read_text().splitlines()[0]
  assert header == 'global_step,grad_norm,loss,preemption_count,score'
  assert not list(tmp_path.glob('*.tmp'))


def test_every_line_is_returned_as_written(tmp_path):
  log = RunLog.open(tmp_path, header={'workload': 'toy'})
  lines = [
    log.append_eval({'a': float('nan'), 'b': np.float32(0.1)}, 1),
    log.append_metrics({'c': np.int64(7)}, 1),
    log.append_event('note', text='two\nlines', value=float('inf')),
    log.append_end({'score': 1.0}, 1),
  ]
  log.close()
  assert (tmp_path / 'measurements.jsonl').read_text().splitlines()[1:] == lines
  for line in lines:
    json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
  rows = read(tmp_path)
  assert rows.header['schema'] == 1
  assert rows.header['workload'] == 'toy'
  assert rows.evals[0]['b'] == float(np.float32(0.1))
  assert math.isnan(rows.evals[0]['a'])
  assert rows.metrics == [{'c': 7, 'global_step': 1, 'preemption_count': 0}]
  assert rows.events[0]['text'] == 'two\nlines'
  assert rows.events[0]['value'] == math.inf
  assert rows.end == {'score': 1.0, 'global_step': 1, 'preemption_count': 0}
  assert rows.problems == []


def test_position_counts_records(tmp_path):
  log = RunLog.open(tmp_path, header={})
  assert log.position == 1
  log.append_eval({}, 1)
  log.append_event('note')
  assert log.position == 3 == len((tmp_path / 'measurements.jsonl').read_text().splitlines())
  log.close()


def test_only_numbers_are_rows(tmp_path):
  log = RunLog.open(tmp_path, header={})
  with pytest.raises(TypeError, match=r"'name' is str \('adam'\)"):
    log.append_metrics({'name': 'adam'}, 1)
  log.close()
  assert read(tmp_path).metrics == []


def test_a_field_cannot_take_the_place_of_ours(tmp_path):
  log = RunLog.open(tmp_path, header={'kind': 'end', 'schema': 99})
  log.append_metrics({'global_step': 77, 'preemption_count': 9, 'kind': 5}, 3)
  log.append_event('note', row='not a row', event='other')
  log.close()
  rows = read(tmp_path)
  assert rows.header['kind'] == 'header'
  assert rows.header['schema'] == measurements.SCHEMA_VERSION
  assert rows.metrics == [{'global_step': 3, 'preemption_count': 0, 'kind': 5}]
  assert [event['event'] for event in rows.events] == ['note']


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from(['eval', 'metrics']), ROWS), max_size=6))
def test_numbers_survive_log_and_csv_exactly(tmp_path_factory, rows):
  folder = tmp_path_factory.mktemp('log')
  log = RunLog.open(folder, header={})
  written: dict[str, list] = {'eval': [], 'metrics': []}
  for step, (kind, row) in enumerate(rows):
    (log.append_eval if kind == 'eval' else log.append_metrics)(row, step)
    written[kind].append(row | {'global_step': step, 'preemption_count': 0})
  log.close()
  found = read(folder)
  assert same(found.evals, written['eval'])
  assert same(found.metrics, written['metrics'])
  assert found.problems == []


@settings(max_examples=60, deadline=None)
@given(values=st.lists(FLOATS, min_size=1, max_size=20))
def test_pandas_reads_the_same_floats(values):
  text = '\n'.join(['x', *map(str, values), ''])
  found = pd.read_csv(io.StringIO(text), dtype=float)['x'].tolist()
  assert [bits(value) for value in found] == [bits(value) for value in values]


@settings(max_examples=60, deadline=None)
@given(
  rows=st.lists(
    st.dictionaries(st.sampled_from('abcdef'), FLOATS, min_size=1, max_size=4),
    min_size=1,
    max_size=8,
  ),
  split=st.integers(0, 8),
)
def test_csv_is_the_same_written_row_by_row_or_rebuilt(tmp_path_factory, rows, split):
  folder = tmp_path_factory.mktemp('csv')
  one = CsvTable(folder / 'one.csv')
  for row in rows:
    one.append(row)
  one.close()
  two = CsvTable(folder / 'two.csv', rows[:split])
  for row in rows[split:]:
    two.append(row)
  two.close()
  assert (folder / 'one.csv').read_bytes() == (folder / 'two.csv').read_bytes()
  parsed = pd.read_csv(folder / 'one.csv', dtype=float, skip_blank_lines=False)
  assert len(parsed) == len(rows)
  for number, row in enumerate(rows):
    for name, value in row.items():
      assert bits(float(parsed[name][number])) == bits(value)


def test_column_names_may_be_anything(tmp_path):
  log = RunLog.open(tmp_path, header={})
  names = {'a,b': 1, 'say "x"': 2, 'two\nlines': 3, 'ünï': 4, '\ud800': 5}
  log.append_metrics(names, 1)
  log.append_metrics({'late': 6}, 2)
  log.close()
  found = table(tmp_path, 'measurements.csv')
  assert {'a,b', 'say "x"', 'two\nlines', 'ünï', 'late'} <= set(found.columns)
  assert found['two\nlines'][0] == 3
  assert found['late'][1] == 6
  assert read(tmp_path).metrics[0]['\ud800'] == 5


# Fault 6 of the reference harness: a row costs the whole file.


class Writes:
  """Counts what goes to the disk."""

  def __init__(self, monkeypatch):
    self.num_bytes = self.num_calls = self.num_rewrites = 0
    write, replace = os.write, os.replace

    def counted_write(handle, data):
      self.num_calls += 1
      self.num_bytes += len(data)
      return write(handle, data)

    def counted_replace(*args):
      self.num_rewrites += 1
      return replace(*args)

    monkeypatch.setattr(os, 'write', counted_write)
    monkeypatch.setattr(os, 'replace', counted_replace)

  def taken(self) -> tuple[int, int, int]:
    counts = self.num_bytes, self.num_calls, self.num_rewrites
    self.num_bytes = self.num_calls = self.num_rewrites = 0
    return counts


def test_fault_6_a_row_costs_the_same_whether_first_or_last(tmp_path, monkeypatch):
  log = RunLog.open(tmp_path, header={})
  metrics = {'loss': 0.5, 'grad_norm': 1.25}

  def hundred_rows() -> None:
    for _ in range(100):
      log.append_metrics(metrics, 500)
      log.append_eval(EVAL_ROW, 500)

  log.append_metrics(metrics, 500)
  log.append_eval(EVAL_ROW, 500)
  writes = Writes(monkeypatch)
  early_calls = work.num_calls(hundred_rows)
  early = writes.taken()
  for _ in range(20):
    hundred_rows()
  writes.taken()
  late_calls = work.num_calls(hundred_rows)
  late = writes.taken()
  log.close()
  assert early == late
  assert early[1:] == (500, 0)  # a metrics row is two appends, an evaluation three; no rewrite
  assert late_calls == early_calls
  assert len(table(tmp_path, 'measurements.csv')) == 2 * 2201


def test_fault_6_only_a_new_column_rewrites_and_all_or_nothing(tmp_path, monkeypatch):
  log = RunLog.open(tmp_path, header={})
  log.append_eval({'a': 1.5}, 1)
  writes = Writes(monkeypatch)
  log.append_eval({'a': 2.5}, 2)
  assert writes.taken()[2] == 0
  log.append_eval({'a': 3.5, 'b': 4.5}, 3)
  assert writes.taken()[2] == 2  # both files
  log.append_eval({'b': 5.5}, 4)
  assert writes.taken()[2] == 0
  log.close()
  found = table(tmp_path, 'eval_measurements.csv')
  assert list(found.columns) == ['a', 'global_step', 'preemption_count', 'b']
  assert found['a'].tolist()[:3] == [1.5, 2.5, 3.5]
  assert found['b'].tolist()[2:] == [4.5, 5.5]


# Resuming.


def run(log: RunLog, steps: range, period: int = 2) -> dict[int, int]:
  """A trial that logs in every step, as a submission does, and evaluates every `period` steps.

  Returns the position of the log at each evaluation.
  """
  positions = {}
  for step in steps:
    log.append_metrics({'loss': 1 / (step + 1)}, step)  # before the step is counted
    if (step + 1) % period == 0:
      log.append_metrics({'prepared': float(step)}, step + 1)  # from prepare_for_eval
      log.append_eval({'validation/loss': 1 / (step + 1), 'score': step}, step + 1)
      positions[step + 1] = log.position
  return positions


def without_times(rows: list[dict]) -> list[dict]:
  return [{k: v for k, v in row.items() if k != 'preemption_count'} for row in rows]


@pytest.mark.parametrize('resumed_at', [0, 2, 4, 6])
@pytest.mark.parametrize('cut', [0, 1, 5])
def test_fault_11_a_resumed_trial_has_the_rows_of_an_uninterrupted_one(tmp_path, resumed_at, cut):
  whole = RunLog.open(tmp_path / 'whole', header={})
  run(whole, range(10))
  whole.append_end({'score': 10}, 10)
  whole.close()

  log = RunLog.open(tmp_path / 'resumed', header={})
  positions = run(log, range(7))
  log.close()
  path = tmp_path / 'resumed' / 'measurements.jsonl'
  os.truncate(path, path.stat().st_size - cut)
  log = RunLog.open(
    tmp_path / 'resumed',
    header={},
    resumed_at=resumed_at,
    preemption_count=1,
    position=positions.get(resumed_at),
  )
  run(log, range(resumed_at, 10))
  log.append_end({'score': 10}, 10)
  log.close()

  expected, found = read(tmp_path / 'whole'), read(tmp_path / 'resumed')
  assert found.problems == []
  for kind in ('evals', 'metrics', 'in_order'):
    assert without_times(getattr(found, kind)) == without_times(getattr(expected, kind))
  assert [event['global_step'] for event in found.events] == [resumed_at]
  for name in ('eval_measurements.csv', 'measurements.csv'):
    left, right = table(tmp_path / 'whole', name), table(tmp_path / 'resumed', name)
    assert list(left.columns) == list(right.columns)
    pd.testing.assert_frame_equal(
      left.drop(columns='preemption_count'), right.drop(columns='preemption_count')
    )
  steps = table(tmp_path / 'resumed', 'eval_measurements.csv')
  assert steps['preemption_count'].tolist() == [int(s > resumed_at) for s in steps['global_step']]


def test_resume_without_a_position_drops_larger_steps(tmp_path):
  log = RunLog.open(tmp_path, header={})
  for step in (1, 2, 3, 4):
    log.append_eval({'a': step}, step)
    log.append_event('note', global_step=step)
  log.append_event('undated')
  log.append_end({'score': 1}, 4)
  log.close()
  log = RunLog.open(tmp_path, header={}, resumed_at=2, preemption_count=1)
  log.append_eval({'a': 30}, 3)
  log.close()
  log = RunLog.open(tmp_path, header={}, resumed_at=3, preemption_count=2)
  log.append_eval({'a': 40}, 4)
  log.close()
  rows = read(tmp_path)
  assert [row['a'] for row in rows.evals] == [1, 2, 30, 40]
  assert [row['preemption_count'] for row in rows.evals] == [0, 0, 1, 2]
  assert rows.end is None
  dated = [event.get('event') or event['global_step'] for event in rows.events]
  assert dated == ['note', 'note', 'undated', 2, 3]


def test_a_log_that_exists_is_not_overwritten(tmp_path):
  RunLog.open(tmp_path, header={}).close()
  before = (tmp_path / 'measurements.jsonl').read_bytes()
  with pytest.raises(UserError, match='--resume'):
    RunLog.open(tmp_path, header={})
  assert (tmp_path / 'measurements.jsonl').read_bytes() == before


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_history_of_kills_and_resumes_reads_like_one_run(tmp_path_factory, data):
  folder = tmp_path_factory.mktemp('history')
  path = folder / 'measurements.jsonl'
  log = RunLog.open(folder, header={})
  positions = {0: 0}
  done = 0
  for preemption in range(1, data.draw(st.integers(0, 4)) + 1):
    positions |= run(log, range(done, data.draw(st.integers(done, 11))))
    log.close()
    done = data.draw(st.sampled_from(sorted(step for step in positions)[-2:]))
    # The kill: what the checkpoint counts on is on the disk, what came later is there in part.
    kept = sum(map(len, path.read_bytes().splitlines(keepends=True)[: positions[done]]))
    extra = (path.stat().st_size - kept) * data.draw(st.integers(0, 64)) // 64
    os.truncate(path, kept + extra)
    positions = {step: place for step, place in positions.items() if step <= done}
    log = RunLog.open(
      folder,
      header={},
      resumed_at=done,
      position=positions[done] or None,
      preemption_count=preemption,
    )
  run(log, range(done, 12))
  log.close()
  whole = RunLog.open(folder / 'whole', header={})
  run(whole, range(12))
  whole.close()
  rows, expected = read(folder), read(folder / 'whole')
  assert without_times(rows.in_order) == without_times(expected.in_order)
  assert rows.problems == []


# Damage.


def small_log(folder: Path) -> bytes:
  log = RunLog.open(folder, header={'workload': 'toy'})
  for step in (1, 2, 3):
    log.append_eval({'a': step / 7}, step)
  log.close()
  return (folder / 'measurements.jsonl').read_bytes()


def test_last_line_cut_at_every_byte(tmp_path):
  content = small_log(tmp_path)
  path = tmp_path / 'measurements.jsonl'
  last_line = content.rstrip(b'\n').rfind(b'\n') + 1
  for size in range(last_line, len(content)):
    path.write_bytes(content[:size])
    rows = read(tmp_path)
    assert [row['global_step'] for row in rows.evals] == [1, 2]
    assert len(rows.problems) == (size > last_line)
    log = RunLog.open(tmp_path, header={}, resumed_at=2, preemption_count=1)
    log.append_eval({'a': 3 / 7}, 3)
    log.close()
    rows = read(tmp_path)
    assert [row['a'] for row in rows.evals] == [1 / 7, 2 / 7, 3 / 7]
    assert rows.problems == []
    assert len(table(tmp_path, 'eval_measurements.csv')) == 3


def test_log_cut_within_its_header_starts_anew(tmp_path):
  content = small_log(tmp_path)
  path = tmp_path / 'measurements.jsonl'
  for size in (0, 1, content.find(b'\n')):
    path.write_bytes(content[:size])
    log = RunLog.open(tmp_path, header={'workload': 'toy'}, resumed_at=0)
    log.append_eval({'a': 1.0}, 1)
    log.close()
    rows = read(tmp_path)
    assert rows.header['workload'] == 'toy'
    assert len(rows.evals) == 1
    assert rows.problems == []


def test_damaged_middle_line_is_reported_and_left_out(tmp_path):
  content = small_log(tmp_path)
  path = tmp_path / 'measurements.jsonl'
  lines = content.split(b'\n')
  for damaged in (b'', b'{', b'\xff\xfe\x00', b'[1]', b'7', b'null', b'{"kind": "eval"}',
                  b'{"kind": "eval", "row": {"global_step": "x"}}', b'{"kind": "new"}',
                  b'{"kind": "resumed_at", "global_step": null}', b'{"kind": []}'):  # fmt: skip
    path.write_bytes(b'\n'.join([lines[0], lines[1], damaged, *lines[3:]]))
    rows = read(tmp_path)
    assert [row['global_step'] for row in rows.evals] == [1, 3]
    assert len(rows.problems) == 1
    assert f'{path}:3' in rows.problems[0]


def test_any_flipped_byte_is_survived(tmp_path):
  content = small_log(tmp_path)
  path = tmp_path / 'measurements.jsonl'
  for place in range(len(content)):
    damaged = bytearray(content)
    damaged[place] ^= 0x15
    path.write_bytes(bytes(damaged))
    try:
      rows = read(tmp_path)
    except UserError as error:
      assert 'newer version' in str(error)  # the schema's own digit was hit
    else:
      assert len(rows.evals) >= 1


def test_header_that_is_damaged_is_reported(tmp_path):
  content = small_log(tmp_path)
  (tmp_path / 'measurements.jsonl').write_bytes(b'x' + content)
  rows = read(tmp_path)
  assert rows.header == {}
  assert len(rows.evals) == 3
  assert any('no header' in problem for problem in rows.problems)


def test_a_log_of_a_newer_version_is_refused(tmp_path):
  (tmp_path / 'measurements.jsonl').write_text('{"kind": "header", "schema": 2}\n')
  with pytest.raises(UserError, match='newer version'):
    read(tmp_path)


def test_a_folder_without_a_log(tmp_path):
  with pytest.raises(UserError, match=r'measurements\.jsonl'):
    read(tmp_path)


# A full disk.


@pytest.mark.parametrize('limit', [1, 200, 1000, 1999, 3000, 5003, 20000])
def test_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, limit):
  lines = []
  with file_size_limit(limit), pytest.raises(UserError) as caught:
    log = RunLog.open(tmp_path, header={})
    for step in range(1, 1000):
      lines.append(log.append_eval({'a': step / 7, 'b': 0.5}, step))
  message = str(caught.value)
  assert str(tmp_path / 'measurements.jsonl') in message
  assert 'File too large' in message
  rows = read(tmp_path)
  assert [json.dumps(row) for row in rows.evals] == [
    json.dumps(json.loads(line)['row']) for line in lines
  ]
  assert rows.problems == []
  if lines:
    assert len(table(tmp_path, 'eval_measurements.csv')) == len(lines)
    log.append_eval({'a': 1.0, 'c': 2.0}, 1000)  # there is room again
    log.close()
    assert len(read(tmp_path).evals) == len(lines) + 1
    assert table(tmp_path, 'eval_measurements.csv')['c'].tolist()[-1] == 2.0
  assert not list(tmp_path.glob('*.tmp'))


@pytest.mark.parametrize('columns', [('a',), ('a', 'b')])
def test_full_disk_leaves_a_csv_file_as_it_was(tmp_path, columns):
  path = tmp_path / 'x.csv'
  csv = CsvTable(path, [{'a': 0.5}] * 100)
  before = path.read_bytes()
  with file_size_limit(len(before) + 2), pytest.raises(UserError, match='File too large'):
    csv.append(dict.fromkeys(columns, 0.123456))
  assert path.read_bytes() == before
  csv.append(dict.fromkeys(columns, 0.25))
  csv.close()
  assert pd.read_csv(path)[list(columns)].iloc[-1].tolist() == [0.25] * len(columns)
  assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_the_old_json_file(tmp_path):
  path = tmp_path / 'trial.json'
  files.write_json_atomic(path, {'status': 'running'})
  with file_size_limit(100), pytest.raises(UserError, match=r'trial\.json could not be written'):
    files.write_json_atomic(path, {'long': 'x' * 1000})
  assert json.loads(path.read_text()) == {'status': 'running'}
  assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='could not be written'):
    RunLog.open(tmp_path / 'file' / 'trial_1', header={})


@pytest.mark.parametrize('name', ['measurements.jsonl', 'eval_measurements.csv'])
def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(UserError, match=f'{name} could not be'):
    RunLog.open(tmp_path, header={}, resumed_at=1)


# JSON files.


@settings(max_examples=100, deadline=None)
@given(
  value=st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, st.text(max_size=4)),
    lambda inner: st.one_of(
      st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
  )
)
def test_json_round_trip_is_exact_and_legal(value):
  text = files.encode(value)
  json.loads(text, parse_constant=pytest.fail)
  assert '\n' not in text
  assert same(files.decode(text), value)
  assert same(files.decode(text.encode()), value)


def test_json_of_odd_values(tmp_path):
  path = tmp_path / 'flags_0.json'
  files.write_json_atomic(
    path,
    {'rate': np.float32(0.5), 'shape': np.arange(2), 'path': Path('/x'), 'pair': (1, math.inf)},
  )
  expected = {'rate': 0.5, 'shape': [0, 1], 'path': '/x', 'pair': [1, math.inf]}
  assert files.decode(path.read_text()) == expected


# The trial's record.


def test_a_view_that_does_not_hold_what_the_log_says_is_named(tmp_path):
  log = RunLog.open(tmp_path, header={})
  log.append_metrics({'loss': math.nan}, 0)
  log.append_eval({'validation/loss': 0.1 + 0.2}, 1)
  log.append_eval({'validation/loss': 1.0, 'a later column': 2}, 2)
  log.close()
  log = RunLog.open(tmp_path, header={}, resumed_at=1)
  log.append_eval({'validation/loss': -math.inf, 'another': 1e22}, 2)
  log.append_end({'score': 1}, 2)
  log.close()
  assert measurements.altered_views(tmp_path) == []
  path = tmp_path / 'eval_measurements.csv'
  path.write_text(path.read_text().replace('-inf', '0.001'))
  (tmp_path / 'measurements.csv').unlink()
  assert measurements.altered_views(tmp_path) == ['eval_measurements.csv', 'measurements.csv']


RECORD = TrialRecord(
  workload='toy',
  framework='jax',
  submission='adamw',
  suite='quick',
  ruleset='external',
  study=1,
  trial=2,
  status='finished',
  stop_reason='targets_reached',
  seeds={'trial': 2**62 + 1},
  buckets={'update': 0.1 + 0.2},
  notes=('first',),
)


def test_trial_record_round_trip(tmp_path):
  RECORD.write(tmp_path)
  assert read_trial(tmp_path) == RECORD


def test_trial_record_tolerates_fields_of_a_later_version(tmp_path):
  files.write_json_atomic(tmp_path / 'trial.json', RECORD.to_json() | {'new': 1})
  assert read_trial(tmp_path) == RECORD


NESTED = '[' * 100_000 + ']' * 100_000


@pytest.mark.parametrize(
  ('name', 'value', 'said'),
  [
    ('status', 'done', r'status: Invalid enum value .done.'),
    ('status', ['invalid'], r'status: Expected str, got array'),
    ('stop_reason', 'tired', r'stop_reason: Invalid enum value .tired.'),
    ('buckets', {'update': 'long'}, r'buckets.*: Expected float, got str'),
    ('buckets', {'update': -1.0}, r'buckets.*: Expected float >= 0.0'),
    ('options', {'splits': [[1]]}, r'options\[...\]\[0\]: Expected int | str, got array'),
    ('charged_steps', 10**400, r'charged_steps: Expected int <= \d+'),
    ('charged_steps', True, r'charged_steps: Expected int, got bool'),
    ('batch_size', 10**30, r'batch_size: Expected int <= \d+'),
    ('seeds', None, r'seeds: Expected object, got null'),
    ('environment', [1], r'environment: Expected object, got array'),
    ('environment', {'devices': 5}, r'devices: Expected object, got int'),
    ('environment', {'fingerprint': 5}, r'host_hash: Expected str, got int'),
    ('submission_time_sec', math.nan, r'submission_time_sec: Expected float >= 0.0'),
    ('wall_sec', 1e308, r'wall_sec: Expected float <= .*'),
  ],
)
def test_a_field_of_a_trial_record_that_does_not_fit_is_named(tmp_path, name, value, said):
  files.write_json_atomic(tmp_path / 'trial.json', RECORD.to_json() | {name: value})
  with pytest.raises(UserError, match=rf'trial\.json is damaged \({said}.*--overwrite'):
    read_trial(tmp_path)


@pytest.mark.parametrize('content', [NESTED, f'{{"seeds": {NESTED}}}', '1' * 5000])
def test_a_trial_record_that_cannot_be_decoded_is_damaged(tmp_path, content):
  (tmp_path / 'trial.json').write_text(content)
  with pytest.raises(UserError, match=r'trial\.json is damaged'):
    read_trial(tmp_path)


def test_a_trial_record_that_was_changed_since_is_damaged(tmp_path):
  dataclasses.replace(RECORD, status='invalid', hyperparameters={'a': math.nan}).write(tmp_path)
  assert read_trial(tmp_path).status == 'invalid'
  path = tmp_path / 'trial.json'
  path.write_text(path.read_text().replace('"invalid"', '"finished"'))
  with pytest.raises(UserError, match='its checksum differs'):
    read_trial(tmp_path)


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_damaged_and_does_not_block(tmp_path, make):
  make(tmp_path / 'trial.json')
  with pytest.raises(UserError, match='is damaged'):
    read_trial(tmp_path)


def test_trial_record_missing_or_damaged(tmp_path):
  assert read_trial(tmp_path) is None
  for text in ('{', '[]', '{}', '{"status": "running"}'):
    (tmp_path / 'trial.json').write_text(text)
    with pytest.raises(UserError, match='damaged'):
      read_trial(tmp_path)


def test_reading_needs_no_pandas_and_no_framework(tmp_path):
  small_log(tmp_path)
  code = (
    'import sys; from pathlib import Path; '
    'from algorithmic_efficiency.results.measurements import read; '
    f'rows = read(Path({str(tmp_path)!r})); '
    "print(len(rows.evals), sorted({'pandas', 'jax', 'torch'} & set(sys.modules)))"
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout == '3 []\n'
