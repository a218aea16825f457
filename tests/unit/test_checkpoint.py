"""Checkpoints: exact, complete or absent, and the older one stands in for the newer."""

from __future__ import annotations

import collections
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from file_limit import file_size_limit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.trial import checkpoint
from algorithmic_efficiency.trial.checkpoint import Checkpoints

PAYLOAD = {
  'params': {'Dense_0': {'kernel': np.arange(12, dtype=np.float32).reshape(3, 4), 'bias': None}},
  'optimizer_state': ({0: {'step': np.int64(7)}, 1: {'mu': np.ones(3)}}, [True, False], ()),
  'half': np.array([1.0, 2.5, -0.0], ml_dtypes.bfloat16),
  'half_scalar': ml_dtypes.bfloat16(1.5),
  'random': {'state': 2**127 + 1, 'negative': -(2**200), 'name': 'PCG64', 'raw': b'\x00\xff'},
  'clock': {'update': 0.1 + 0.2, 'nan': math.nan, 'inf': -math.inf, 'zero': -0.0},
  'empty': [np.empty((0, 3), np.int8), {}, [], '', b''],
  'zero_dim': np.array(7),
  'text': ['ü', '\ud800', np.array(['ab', 'c'])],
  'big_endian': np.arange(3, dtype='>i4'),
  'strided': np.arange(12.0).reshape(3, 4)[::-1, ::2],
  'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}

SMALL = {'params': [np.arange(6.0), np.float32(2)], 'step': 3, 'raw': b'\x00' * 70}


def same(left: object, right: object) -> bool:
  """Equal in type, structure and every bit."""
  if type(left) is not type(right):
    return False
  if isinstance(left, dict):
    return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
  if isinstance(left, (list, tuple)):
    return len(left) == len(right) and all(map(same, left, right))
  if isinstance(left, np.ndarray):
    equal_type = left.dtype == right.dtype and left.shape == right.shape
    return equal_type and left.tobytes() == right.tobytes()
  if isinstance(left, np.generic):
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()
  if isinstance(left, float):
    return struct.pack('<d', left) == struct.pack('<d', right)
  return left == right


def test_a_payload_comes_back_exactly(tmp_path):
  Checkpoints(tmp_path).save(5, PAYLOAD)
  loaded = Checkpoints(tmp_path).load()
  assert loaded.step == 5
  assert loaded.problems == ()
  assert same(loaded.payload, PAYLOAD)
  assert [path.name for path in tmp_path.iterdir()] == ['checkpoint_5']


def test_loaded_arrays_can_be_written_to(tmp_path):
  Checkpoints(tmp_path).save(5, PAYLOAD)
  loaded = Checkpoints(tmp_path).load()
  loaded.payload['params']['Dense_0']['kernel'][0, 0] = 9.0
  assert same(Checkpoints(tmp_path).load().payload, PAYLOAD)


KEYS = st.one_of(st.text(max_size=4), st.integers())
LEAVES = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.text(max_size=4),
  st.binary(max_size=8),
  npst.arrays(
    st.one_of(npst.scalar_dtypes(), npst.unicode_string_dtypes(), npst.byte_string_dtypes()),
    npst.array_shapes(min_dims=0, min_side=0, max_side=3),
  ),
  st.floats(width=32).map(np.float32),
  st.integers(-128, 127).map(np.int8),
)
PAYLOADS = st.dictionaries(
  st.text(max_size=4),
  st.recursive(
    LEAVES,
    lambda inner: st.one_of(
      st.lists(inner, max_size=3),
      st.lists(inner, max_size=3).map(tuple),
      st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
  ),
  max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(payload=PAYLOADS)
def test_round_trip(tmp_path_factory, payload):
  store = Checkpoints(tmp_path_factory.mktemp('round_trip'))
  store.save(1, payload)
  assert same(store.load().payload, payload)


class Pair(collections.namedtuple('Pair', 'left right')):
  pass


@pytest.mark.parametrize(
  'odd',
  [
    print,
    object(),
    {1, 2},
    Pair(1, 2),
    collections.OrderedDict(a=1),
    np.array([None]),
    np.zeros(2, [('a', 'f4')]),
    {1.5: 'x'},
    {True: 'x'},
    1j,
  ],
)
def test_what_cannot_be_kept_is_named_by_its_path(tmp_path, odd):
  store = Checkpoints(tmp_path)
  store.save(1, {'ok': 1})
  with pytest.raises(TypeError, match='/optimizer/1'):
    store.save(2, {'optimizer': [0, odd]})
  assert store.load().payload == {'ok': 1}
  assert [path.name for path in tmp_path.iterdir()] == ['checkpoint_1']


def test_the_last_two_are_kept(tmp_path):
  store = Checkpoints(tmp_path)
  for step in (1, 5, 20, 100):
    store.save(step, {'step': step})
    assert store.latest_step() == step
  assert sorted(path.name for path in tmp_path.iterdir()) == ['checkpoint_100', 'checkpoint_20']
  Checkpoints(tmp_path, keep=1).save(101, {})
  assert [path.name for path in tmp_path.iterdir()] == ['checkpoint_101']


def test_saving_a_step_again_replaces_it(tmp_path):
  store = Checkpoints(tmp_path)
  store.save(1, {'value': 1})
  store.save(1, {'value': 2})
  assert store.load().payload == {'value': 2}


def test_no_checkpoint(tmp_path):
  (tmp_path / 'checkpoint_notes.txt').write_text('')
  for folder in (tmp_path, tmp_path / 'missing'):
    assert Checkpoints(folder).load() is None
    assert Checkpoints(folder).latest_step() is None


# Damage.


def two_checkpoints(folder: Path) -> tuple[Checkpoints, Path, bytes]:
  store = Checkpoints(folder)
  store.save(1, {'old': np.arange(5)})
  store.save(2, SMALL)
  newer = folder / 'checkpoint_2'
  return store, newer, newer.read_bytes()


def assert_older_stands_in(store: Checkpoints, newer: Path) -> None:
  loaded = store.load()
  assert loaded.step == 1
  assert same(loaded.payload, {'old': np.arange(5)})
  assert len(loaded.problems) == 1
  assert str(newer) in loaded.problems[0]


def test_cut_at_any_byte_the_older_stands_in(tmp_path):
  store, newer, content = two_checkpoints(tmp_path)
  for size in reversed(range(len(content))):
    os.truncate(newer, size)
    assert_older_stands_in(store, newer)
    assert store.latest_step() == 1
  newer.write_bytes(content)
  assert store.load().step == 2


def test_any_byte_that_differs_is_found(tmp_path):
  store, newer, content = two_checkpoints(tmp_path)
  random.seed(0)
  num_found = 0
  with newer.open('rb+', buffering=0) as file:
    for place in range(len(content)):
      os.pwrite(file.fileno(), bytes([content[place] ^ 1 << random.randrange(8)]), place)
      loaded = store.load()
      if loaded.step == 2:  # a byte between two arrays, which nothing stands in
        assert same(loaded.payload, SMALL)
      else:
        assert_older_stands_in(store, newer)
        num_found += 1
      os.pwrite(file.fileno(), content[place : place + 1], place)
  assert num_found > 0.6 * len(content)


def test_bytes_behind_the_end_are_found(tmp_path):
  store, newer, content = two_checkpoints(tmp_path)
  newer.write_bytes(content + b'\0')
  assert_older_stands_in(store, newer)


def test_a_renamed_checkpoint_is_found(tmp_path):
  store, newer, _ = two_checkpoints(tmp_path)
  newer.rename(tmp_path / 'checkpoint_3')
  assert_older_stands_in(store, tmp_path / 'checkpoint_3')


def test_no_intact_checkpoint_is_an_error_that_names_them_all(tmp_path):
  store, newer, _ = two_checkpoints(tmp_path)
  for path in (newer, tmp_path / 'checkpoint_1'):
    path.write_bytes(b'x')
  with pytest.raises(UserError, match='--overwrite') as caught:
    store.load()
  assert 'checkpoint_1' in str(caught.value)
  assert 'checkpoint_2' in str(caught.value)


def test_a_damaged_future_goes_when_the_resumed_trial_saves(tmp_path):
  store = Checkpoints(tmp_path)
  store.save(10, {'step': 10})
  store.save(20, {'step': 20})
  (tmp_path / 'checkpoint_20').write_bytes(b'x')
  assert store.load().step == 10
  store.save(15, {'step': 15})
  assert sorted(path.name for path in tmp_path.iterdir()) == ['checkpoint_10', 'checkpoint_15']
  assert store.load().problems == ()


@pytest.mark.parametrize(
  'structure',
  [
    ['array', '|O', [1], 0],
    ['array', 'finfo', [1], 0],
    ['array', '<f8', [99], 0],
    ['bytes', 99],
    ['call', 'os.system'],
    ['dict', [[1]]],
    [],
  ],
)
def test_nothing_in_a_file_is_run_as_code(tmp_path, monkeypatch, structure):
  """A file made to look intact that holds objects, or tags of its own, is damaged and no more."""
  store = Checkpoints(tmp_path)
  store.save(1, {'old': np.arange(5)})

  def forged(packer, value):
    packer.blocks.append(np.zeros(8, np.uint8))
    return structure

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint._Packer, 'pack', forged)
    store.save(2, {})
  assert_older_stands_in(store, tmp_path / 'checkpoint_2')


# Kills and full disks while writing.

WRITER = """
import sys, numpy as np
from pathlib import Path
from algorithmic_efficiency.trial.checkpoint import Checkpoints
store = Checkpoints(Path(sys.argv[1]))
loaded = store.load()
step = loaded.step if loaded else 0
print('ready', flush=True)
while True:
  step += 1
  arrays = [np.full(300_000, step, np.int64)] * 4
  store.save(step, {'step': step, 'arrays': arrays, 'list': [step] * 999})
"""


def test_killed_at_any_moment_a_whole_checkpoint_remains(tmp_path):
  random.seed(0)
  reached = []
  for _ in range(5):
    writer = subprocess.Popen(
      [sys.executable, '-c', WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == 'ready\n'
    time.sleep(random.uniform(0.02, 0.25))
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    loaded = Checkpoints(tmp_path).load()
    assert loaded is not None
    assert loaded.problems == ()
    step = loaded.step
    assert loaded.payload['step'] == step
    assert all((array == step).all() for array in loaded.payload['arrays'])
    reached.append(step)
  assert reached == sorted(reached)
  assert reached[-1] > 5


def test_what_a_killed_writer_left_is_ignored_and_removed(tmp_path):
  store, _, content = two_checkpoints(tmp_path)
  for size in (0, 7, 8, len(content) // 2, len(content) - 1, len(content)):
    (tmp_path / 'checkpoint_3.tmp').write_bytes(content[:size])
    assert store.load().step == 2
    assert store.latest_step() == 2
  store.save(4, {})
  assert sorted(path.name for path in tmp_path.iterdir()) == ['checkpoint_2', 'checkpoint_4']


def test_killed_between_any_two_system_calls_the_older_stands_in(tmp_path, monkeypatch):
  """Stops the writer at its flush, its rename, its sync of the folder, and its first removal."""
  store = Checkpoints(tmp_path)
  store.save(1, {'step': 1})
  store.save(2, {'step': 2})
  for name in ('fsync', 'replace', 'unlink'):
    with monkeypatch.context() as patch:

      def killed(*args, **kwargs):
        raise KeyboardInterrupt

      patch.setattr(os, name, killed)
      with pytest.raises(KeyboardInterrupt):
        store.save(3, {'step': 3})
    loaded = store.load()
    assert loaded.payload == {'step': loaded.step}
    assert loaded.step == (3 if name == 'unlink' else 2)


def test_full_disk_keeps_the_old_ones_and_leaves_no_rest(tmp_path):
  store, _, content = two_checkpoints(tmp_path)
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
  for limit in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
    with file_size_limit(limit), pytest.raises(UserError) as caught:
      store.save(3, SMALL)
    assert 'checkpoint_3 could not be written: File too large' in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
  large = {'array': np.zeros(10_000_000, np.uint8)}
  with file_size_limit(5_000_000), pytest.raises(UserError):
    store.save(3, large)
  assert store.load().step == 2
  store.save(3, large)
  assert same(store.load().payload, large)


def test_content_and_name_are_on_the_disk_before_old_ones_go(tmp_path, monkeypatch):
  calls = []
  for name in ('fsync', 'replace', 'unlink'):
    real = getattr(os, name)
    monkeypatch.setattr(os, name, lambda *a, n=name, r=real, **k: (calls.append(n), r(*a, **k))[1])
  store = Checkpoints(tmp_path, keep=1)
  store.save(1, {})
  calls.clear()
  store.save(2, {})
  assert calls == ['fsync', 'replace', 'fsync', 'unlink']
