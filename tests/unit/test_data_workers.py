from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time

import data_examples
import numpy as np
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.pipeline import Batches, InOrder, Shuffled
from algorithmic_efficiency.data.workers import WorkerError


def shuffled(load, num_workers=0, seed=3):
  return Batches(Shuffled(num_examples=10, batch_size=4, seed=seed), load, num_workers=num_workers)


def in_order(load, num_workers):
  return Batches(InOrder(num_examples=10, batch_size=1), load, num_workers=num_workers)


@pytest.mark.parametrize('num_workers', [1, 3])
def test_batches_are_the_same_for_any_number_of_workers(num_workers):
  load = data_examples.mapped(data_examples.Numbers(10), data_examples.jitter, seed=9)
  alone, shared = shuffled(load), shuffled(load, num_workers)
  for _ in range(8):
    one, other = next(alone), next(shared)
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
      assert one[name].dtype == other[name].dtype
  shared.close()


def test_workers_are_seen_by_name_and_end_with_the_stream():
  stream = shuffled(data_examples.load_numbers, 2)
  next(stream)
  names = sorted(child.name for child in multiprocessing.active_children())
  assert names == ['algoeff-data-0', 'algoeff-data-1']
  stream.close()
  assert not multiprocessing.active_children()


def test_a_worker_is_two_batches_ahead_of_what_waits_and_no_more(tmp_path):
  """Two wait for the training, one is being made, and one is asked for."""
  stream = shuffled(functools.partial(data_examples.load_and_note, folder=str(tmp_path)), 1)
  for number in range(1, 4):
    next(stream)
    time.sleep(0.1)
    assert number <= len(list(tmp_path.iterdir())) <= number + 4
  stream.close()


def test_large_batches_pass_and_are_writable():
  stream = in_order(data_examples.load_large, 2)
  for number, batch in enumerate(stream):
    assert batch['inputs'].shape == (1, 1 << 16)
    assert (batch['inputs'] == number).all()
    batch['inputs'] += 1


def test_an_error_in_a_worker_is_raised_in_its_turn_with_its_traceback():
  stream = in_order(data_examples.load_or_fail, 2)
  for number in range(5):
    assert next(stream)['inputs'] == number
  with pytest.raises(ValueError, match='example 5 is bad') as caught:
    next(stream)
  assert 'load_or_fail' in caught.value.__notes__[0]
  stream.close()


def test_a_worker_that_dies_is_an_error_and_no_hang():
  stream = in_order(data_examples.load_or_die, 2)
  for _ in range(5):
    next(stream)
  with pytest.raises(WorkerError, match='algoeff-data-1 ended with exit code 7'):
    next(stream)
  stream.close()


def test_a_worker_that_dies_before_it_begins_is_an_error_and_no_hang(tmp_path):
  """Whatever it is to be told: here more than any pipe buffers."""
  script = tmp_path / 'script.py'
  script.write_text(
    textwrap.dedent(
      f"""
      import sys
      sys.path.insert(0, {os.path.dirname(data_examples.__file__)!r})
      import data_examples
      from algorithmic_efficiency.data.pipeline import Batches, Shuffled
      if __name__ != '__main__':
        raise SystemExit(3)
      order = Shuffled(num_examples=10, batch_size=4, seed=1)
      order.ballast = bytes(1 << 20)
      next(Batches(order, data_examples.load_numbers, num_workers=2))
      """
    )
  )
  ended = subprocess.run(
    [sys.executable, script],
    stderr=subprocess.PIPE,
    text=True,
    timeout=300,
    env={**os.environ, 'PYTHONPATH': str(registry.HOME)},
  )
  assert 'WorkerError: The data worker algoeff-data-0 ended with exit code 3' in ended.stderr


@pytest.mark.timeout(120)  # where it waits, it does so for ten minutes
def test_closing_does_not_wait_for_work_ahead():
  stream = shuffled(data_examples.load_once, 1)
  for _ in range(2):  # of the first pass; the next batch never comes
    next(stream)
  [worker] = multiprocessing.active_children()
  stream.close()
  assert worker.exitcode == -signal.SIGTERM  # at once, and not by a kill after some patience


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='needs /proc')
@pytest.mark.parametrize('load', ['load_numbers', 'load_once'], ids=['waiting', 'busy'])
def test_workers_die_with_a_parent_that_is_killed(tmp_path, load):
  script = tmp_path / 'parent.py'
  script.write_text(
    textwrap.dedent(
      f"""
      import multiprocessing, sys, time
      sys.path.insert(0, {os.path.dirname(data_examples.__file__)!r})
      import data_examples
      from algorithmic_efficiency.data.pipeline import Batches, Shuffled
      if __name__ == '__main__':
        order = Shuffled(num_examples=10, batch_size=4, seed=1)
        stream = Batches(order, data_examples.{load}, num_workers=2)
        next(stream)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
      """
    )
  )
  parent = subprocess.Popen(
    [sys.executable, script],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(registry.HOME)},
  )
  assert parent.stdout is not None
  workers = [int(word) for word in parent.stdout.readline().split()]
  assert len(workers) == 2
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  parent.stdout.close()
  deadline = time.monotonic() + 60
  while any(_is_alive(worker) for worker in workers):
    assert time.monotonic() < deadline, 'a worker outlived its parent'
    time.sleep(0.02)


def _is_alive(number):
  try:
    with open(f'/proc/{number}/stat') as file:
      return file.read().rpartition(')')[2].split()[0] not in 'ZX'
  except OSError:
    return False


@pytest.fixture
def outside_task(tmp_path):
  """A task folder outside the tree, with a loader of its own."""
  folder = tmp_path / 'toys'
  folder.mkdir()
  (folder / 'definition.py').write_text('WORKLOADS = {}\n')
  (folder / 'data.py').write_text(
    'class Loader:\n  def __call__(self, rows):\n    return {"inputs": rows.indices * 2}\n'
  )
  before = registry._single_tasks[:]
  registry.add_task(folder)
  yield registry.tasks()['toys']
  registry._single_tasks[:] = before
  registry._forget()


def test_workers_find_a_task_outside_the_tree(outside_task):
  stream = shuffled(outside_task.module('data').Loader(), 1)
  expected = next(shuffled(data_examples.load_numbers))['inputs'] * 2
  np.testing.assert_array_equal(next(stream)['inputs'], expected)
  stream.close()


def test_workers_read_prepared_records(tmp_path):
  about = records.About(origin='here', licence='none', num_bytes=0)
  out = records.Writer(tmp_path / 'set', dataset='set', about=about, inputs='', key='')
  texts = [np.arange(length, dtype=np.uint8) for length in (3, 0, 5, 1, 2, 4, 7, 6, 8, 9)]
  out.ragged('train/inputs', texts, dtype=np.uint8)
  out.finish()
  source = records.open_prepared(tmp_path / 'set').split('train')
  stream = Batches(
    InOrder(num_examples=10, batch_size=5),
    data_examples.mapped(source, length_of),
    num_workers=1,
  )
  found = np.concatenate([batch['length'] for batch in stream])
  np.testing.assert_array_equal(found, [len(text) for text in texts])


def length_of(example, random):
  return {'length': np.int32(len(example['inputs']))}


def test_a_user_error_stays_one_across_the_processes(tmp_path):
  source = records.Records.__new__(records.Records)
  source._prepared = type('Place', (), {'root': tmp_path / 'gone'})()
  source._split = 'train'
  stream = Batches(
    InOrder(num_examples=2, batch_size=1),
    data_examples.mapped(source, length_of),
    num_workers=1,
  )
  with pytest.raises(errors.UserError, match='algoeff data prepare gone'):
    next(stream)
  stream.close()
