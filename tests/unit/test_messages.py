"""What a trial's process may tell its parent: every kind of message, and nothing else."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency.trial import messages
from algorithmic_efficiency.trial.messages import GarbledError, LineBuffer, Message, encoded

BUCKETS = {
  'setup': 1.0,
  'init_optimizer': 0.0,
  'data': 0.5,
  'update': 1.5,
  'prepare_for_eval': 0.0,
  'eval': 0.0,
  'log': 0.0,
  'checkpoint': 0.0,
}
PROGRESS = {
  'global_step': 3,
  'charged_steps': 6,
  'submission_time': 0.5,
  'total_duration': 1.0,
  'eval': {'validation/accuracy': 0.5, 'charged_steps': 6},
  'steps_per_sec': 2.0,
  'is_evaluating': True,
  'batch_size': 128,
}
ENDED = {
  'status': 'failed',
  'stop_reason': 'out_of_memory',
  'reason': 'MemoryError',
  'wall_sec': 1.0,
  'log_offset': 7,
}
INTERVAL = {
  'num_steps': 4,
  'charged_steps': 8,
  'buckets': BUCKETS,
  'peak_memory_bytes': {'host': 5},
  'step_secs': [0.25, 0.5],
}
FINDING = {'rule': 'network', 'text': 'It does.', 'file': 'a.py', 'line': 3, 'ends': True}
SOUND: dict[str, dict[str, Any]] = {
  'start': {'age_sec': 0.25},
  'begin': {},
  'row': {'line': '{"kind": "eval"}', 'global_step': 3},
  'progress': PROGRESS,
  'finding': FINDING,
  'user_error': {'message': 'a mistake'},
  'ended': ENDED,
  'ready': {'eval_batch_size': 8, 'clock_sec': 1.0},
  'interval': INTERVAL,
  'failed': {'reason': 'the cause', 'mendable': False},
}


def heard(*lines: bytes) -> list[Message]:
  return list(LineBuffer().feed(b''.join(line + b'\n' for line in lines)))


def line_of(kind: str, fields: dict[str, Any]) -> bytes:
  return json.dumps({'kind': kind, **fields}).encode()


def test_there_is_a_sound_example_of_every_kind():
  assert set(SOUND) == set(messages._KINDS)


@pytest.mark.parametrize('kind', SOUND)
def test_every_kind_arrives_as_it_was_sent(kind: str):
  receive, send = os.pipe()
  messages.Reporter(send).send(kind, **SOUND[kind])
  os.close(send)
  with open(receive, 'rb') as pipe:
    data = pipe.read()
  assert json.loads(data) == {'kind': kind, **SOUND[kind]}
  [message] = LineBuffer().feed(data)
  assert {name: getattr(message, name) for name in SOUND[kind]} == SOUND[kind]


@pytest.mark.parametrize('kind', [kind for kind, fields in SOUND.items() if fields])
def test_no_field_of_any_kind_may_be_missing_or_of_another_type(kind: str):
  for name in SOUND[kind]:
    without = {key: value for key, value in SOUND[kind].items() if key != name}
    for wrong in ({'a': []},) if name == 'step_secs' else ([], [1], {'a': []}):  # it is a list
      with pytest.raises(GarbledError):
        heard(line_of(kind, {**SOUND[kind], name: wrong}))
    if (kind, name) != ('row', 'global_step'):
      with pytest.raises(GarbledError, match=f'missing required field `{name}`'):
        heard(line_of(kind, without))


@pytest.mark.parametrize('kind', SOUND)
def test_no_kind_has_further_fields(kind: str):
  with pytest.raises(GarbledError, match='unknown field `more`'):
    heard(line_of(kind, {**SOUND[kind], 'more': 1}))
  with pytest.raises(TypeError):
    encoded(kind, {**SOUND[kind], 'more': 1})


DEEP = '[' * 100_000 + ']' * 100_000


@pytest.mark.parametrize(
  'line',
  [
    *('', '1', '[]', 'null', '{}', '{"kind"', '{"kind": 1}', '{"kind": ["row"]}', '{"kind": "x"}'),
    *('{"kind": "row"}', '{"kind": "row", "line": 1}', DEEP, f'{{"a": {DEEP}}}'),
    f'{{"kind": "row", "line": {DEEP}}}',
    f'{{"kind": "start", "age_sec": {"9" * 5000}}}',
    *(f'{{"kind": "start", "age_sec": {sec}}}' for sec in ('1e400', '1e300', '-1', 'NaN', 'true')),
    *(
      f'{{"kind": "row", "line": "", "global_step": {step}}}'
      for step in ('1' + '0' * 400, '1.5', '-1', '"3"', 'true')
    ),
  ],
)
def test_what_is_no_message_is_garbled_whatever_it_is(line: str):
  """Regression: one without its fields, or nested too deep, ended the launcher, and the race."""
  with pytest.raises(GarbledError, match='Only the harness may write there'):
    heard(line.encode())


@pytest.mark.parametrize(
  ('kind', 'changes'),
  [
    ('ended', {'status': 'running'}),
    ('ended', {'stop_reason': 'bored'}),
    ('ended', {'log_offset': 10**30}),
    ('ended', {'log_offset': -1}),
    ('ended', {'wall_sec': -0.5}),
    ('finding', {'rule': 'no such rule'}),
    ('interval', {'buckets': {'data': 1.0}}),
    ('interval', {'buckets': {**BUCKETS, 'data': 0.0, 'update': 0.0}}),
    ('interval', {'charged_steps': 0}),
    ('interval', {'num_steps': 0}),
    ('interval', {'step_secs': [-1.0]}),
    ('ready', {'eval_batch_size': 0}),
  ],
)
def test_values_lie_in_their_ranges(kind: str, changes: dict[str, Any]):
  with pytest.raises(GarbledError):
    heard(line_of(kind, {**SOUND[kind], **changes}))


def test_what_came_before_a_garbled_line_is_heard():
  given = []
  with pytest.raises(GarbledError):
    for message in LineBuffer().feed(b'{"kind": "begin"}\nnot ours\n'):
      given.append(message)
  assert given == [messages.Begin()]


def test_a_message_may_come_in_pieces():
  buffer = LineBuffer()
  data = encoded('start', {'age_sec': 0.5}) + encoded('begin', {})
  found = [message for byte in data for message in buffer.feed(bytes([byte]))]
  assert found == [messages.Start(age_sec=0.5), messages.Begin()]


def test_a_line_without_an_end_is_garbled_before_it_fills_the_memory():
  buffer, piece = LineBuffer(), bytes(1 << 20)
  for _ in range(16):
    assert list(buffer.feed(piece)) == []
  with pytest.raises(GarbledError, match='longer than'):
    list(buffer.feed(piece))


def test_what_is_not_finite_arrives_as_nan():
  values = {'a': math.nan, 'b': math.inf, 'c': 2.5}
  [message] = LineBuffer().feed(encoded('progress', {**PROGRESS, 'eval': values}))
  assert isinstance(message, messages.Progress)
  assert math.isnan(message.metrics['a']) and math.isnan(message.metrics['b'])
  assert message.metrics['c'] == 2.5


def test_numbers_of_numpy_arrive():
  fields = {**PROGRESS, 'steps_per_sec': np.float64(2.5), 'global_step': np.int64(4)}
  [message] = LineBuffer().feed(encoded('progress', fields))
  assert isinstance(message, messages.Progress)
  assert (message.steps_per_sec, message.global_step) == (2.5, 4)


def test_text_that_is_none_in_utf8_arrives_as_escapes():
  """Regression: a trial whose error had such a name in it could not say how it ended."""
  [message] = LineBuffer().feed(encoded('ended', {**ENDED, 'reason': 'bad name \udcff'}))
  assert isinstance(message, messages.Ended)
  assert message.reason == r'bad name \udcff'


def test_a_parent_that_has_gone_is_no_error():
  receive, send = os.pipe()
  os.close(receive)
  reporter = messages.Reporter(send)
  reporter.send('begin')
  reporter.send('begin')
  os.close(send)
