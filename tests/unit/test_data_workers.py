from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import data_examples
import numpy as np
import pytest

from algorithmic_efficiency import errors, trust
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import records
from algorithmic_efficiency.data.pipeline import Batches, InOrder, Shuffled
from algorithmic_efficiency.data.workers import WorkerError, Workers


def shuffled(load, workers=None):
  order = Shuffled(num_examples=10, batch_size=4, seed=3)
  return Batches(order, load, workers=workers, name='toy, train')


def in_order(load, workers):
  return Batches(InOrder(num_examples=10, batch_size=1), load, workers=workers, name='toy, train')


@pytest.fixture(scope='module')
def two():
  """Two workers that no test ends."""
  with contextlib.closing(Workers(2)) as workers:
    yield workers


@pytest.fixture
def one():
  with contextlib.closing(Workers(1)) as workers:
    yield workers


def test_workers_start_with_the_first_batch_are_trusted_and_end_when_closed():
  workers = Workers(1)
  stream = shuffled(data_examples.load_numbers, workers)
  before = multiprocessing.active_children()
  next(stream)
  [child] = [one for one in multiprocessing.active_children() if one not in before]
  assert child.name == 'algoeff-data-0' and child.pid in trust.processes
  [thread] = [one for one in threading.enumerate() if one.name == 'algoeff-data']
  assert thread.native_id in trust.threads
  workers.close()
  workers.close()
  with pytest.raises(WorkerError, match='have been closed'):
    next(stream)
  assert child not in multiprocessing.active_children() and not thread.is_alive()


def test_two_batches_a_worker_are_made_ahead_and_no_more(tmp_path, one):
  load = functools.partial(data_examples.load_and_note, folder=str(tmp_path))
  stream = shuffled(load, one)
  for number in range(1, 4):
    next(stream)
    for _ in range(200):
      if len(list(tmp_path.iterdir())) == number + 2:
        break
      time.sleep(0.01)
    time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == number + 2
  assert stream.state()['num_batches'] == 3  # those ahead do not count
  stream.pause()
  next(stream)
  time.sleep(0.05)
  assert stream.num_ahead == 2


def test_no_worker_runs_while_a_stream_is_paused_and_it_stays_where_it_is(tmp_path, one):
  load = functools.partial(data_examples.load_slowly, folder=str(tmp_path))
  stream, alone = shuffled(load, one), shuffled(data_examples.load_numbers)
  for _ in range(3):
    np.testing.assert_array_equal(next(stream)['inputs'], next(alone)['inputs'])
    stream.pause()
    assert stream.num_ahead == 0
    begun = {path.name for path in tmp_path.iterdir()}
    assert {name for name in begun if name.endswith('.done')} == {
      f'{name}.done' for name in begun if not name.endswith('.done')
    }
    time.sleep(0.1)
    assert {path.name for path in tmp_path.iterdir()} == begun


def test_streams_share_workers(two):
  """A batch of one is not taken for a batch of the other, and large code does not block."""
  large = np.zeros(1 << 20, np.uint8)
  first = in_order(data_examples.load_large, two)
  second = in_order(functools.partial(data_examples.load_with, ballast=large), two)
  for number in range(10):
    assert next(first)['inputs'].shape == (1, 1 << 16)
    np.testing.assert_array_equal(next(second)['inputs'], [number])


def test_a_split_that_is_opened_again_is_no_further_stream(one):
  for _ in range(3):
    batches = in_order(data_examples.load_numbers, one)
    np.testing.assert_array_equal(next(batches)['inputs'], [0])
    batches.close()
  in_order(data_examples.load_large, one).make_ahead(1)
  assert len(one._payloads) == 2


def test_code_that_cannot_be_sent_is_told(two):
  with pytest.raises(
    errors.UserError, match=r'toy, train: .* can be pickled.*--num_data_workers 0'
  ):
    next(shuffled(lambda rows: {}, two))


def test_code_that_fails_to_be_sent_or_read_is_told(two):
  fails = (
    (data_examples.FailsToBeSent(), 'can be pickled'),
    (data_examples.FailsToBeRead(), 'not unpickle'),
  )
  for load, said in fails:
    with pytest.raises(
      errors.UserError, match=rf'toy, train: .*{said}.*OSError: .*--num_data_workers 0'
    ):
      next(shuffled(load, two))


def test_large_batches_pass_and_are_writable(two):
  stream = in_order(data_examples.load_large, two)
  for number, batch in enumerate(stream):
    assert batch['inputs'].shape == (1, 1 << 16)
    assert (batch['inputs'] == number).all()
    batch['inputs'] += 1


def test_an_error_in_a_worker_is_raised_in_its_turn_and_again_with_its_traceback(two):
  stream = in_order(data_examples.load_or_fail, two)
  for number in range(5):
    assert next(stream)['inputs'] == number
  for _ in range(2):
    with pytest.raises(ValueError, match='example 5 is bad') as caught:
      next(stream)
  assert 'load_or_fail' in caught.value.__notes__[0]
  assert stream.state()['num_batches'] == 5


@pytest.mark.parametrize(
  ('how', 'said'),
  [
    ('exit', 'algoeff-data-0 ended with exit code 7 while it was making batch 5 of toy, train'),
    ('crash', '(?s)was ended by SIGSEGV while it was making batch 5 .*in die'),
    (
      'kill',
      'was ended by SIGKILL, most likely as there was not enough memory, while it was making',
    ),
  ],
)
def test_a_worker_that_dies_is_named_with_its_batch_and_stack(one, how, said):
  stream = in_order(functools.partial(data_examples.load_or_die, how=how), one)
  with pytest.raises(WorkerError, match=said):
    for _ in range(6):
      next(stream)
  with pytest.raises(WorkerError, match=said):  # nor does it go on
    next(stream)


def test_the_death_of_an_idle_worker_is_noticed_at_the_next_batch(one):
  stream = in_order(data_examples.load_numbers, one)
  next(stream)
  stream.pause()
  [process] = [child for child in multiprocessing.active_children() if child.pid == pid_of(one)]
  process.kill()
  one._thread.join(60)  # two that wait for one process would take the exit code from each other
  with pytest.raises(WorkerError, match=r'algoeff-data-0 was ended by SIGKILL.*memory,\.'):
    next(stream)


def pid_of(workers):
  return workers._workers[0].process.pid


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
      from algorithmic_efficiency.data.workers import Workers
      if __name__ != '__main__':
        raise SystemExit(3)
      order = Shuffled(num_examples=10, batch_size=4, seed=1)
      order.ballast = bytes(1 << 20)
      next(Batches(order, data_examples.load_numbers, workers=Workers(2)))
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
  assert 'WorkerError: The data worker algoeff-data-' in ended.stderr
  assert ' ended with exit code 3' in ended.stderr  # it may not have been asked for a batch yet


@pytest.mark.timeout(120)  # where it waits, it does so for ten minutes
def test_closing_does_not_wait_for_work_ahead():
  workers = Workers(1)
  stream = shuffled(data_examples.load_once, workers)
  for _ in range(2):  # of the first pass; the next batch never comes
    next(stream)
  [worker] = [child for child in multiprocessing.active_children() if child.pid == pid_of(workers)]
  workers.close()
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
      from algorithmic_efficiency.data.workers import Workers
      if __name__ == '__main__':
        order = Shuffled(num_examples=10, batch_size=4, seed=1)
        stream = Batches(order, data_examples.{load}, workers=Workers(2))
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


def test_workers_find_a_task_outside_the_tree(outside_task, one):
  stream = shuffled(outside_task.module('data').Loader(), one)
  expected = next(shuffled(data_examples.load_numbers))['inputs'] * 2
  np.testing.assert_array_equal(next(stream)['inputs'], expected)


def test_workers_read_prepared_records(tmp_path, two):
  about = records.About(origin='here', licence='none', num_bytes=0)
  out = records.Writer(tmp_path / 'set', dataset='set', about=about, inputs='', key='')
  texts = [np.arange(length, dtype=np.uint8) for length in (3, 0, 5, 1, 2, 4, 7, 6, 8, 9)]
  out.ragged('train/inputs', texts, dtype=np.uint8)
  out.finish()
  source = records.open_prepared(tmp_path / 'set').split('train')
  stream = Batches(
    InOrder(num_examples=10, batch_size=5),
    data_examples.mapped(source, length_of),
    workers=two,
  )
  found = np.concatenate([batch['length'] for batch in stream])
  np.testing.assert_array_equal(found, [len(text) for text in texts])


def length_of(example, random):
  return {'length': np.int32(len(example['inputs']))}


def test_a_user_error_stays_one_across_the_processes(tmp_path, two):
  source = records.Records.__new__(records.Records)
  source._prepared = type('Place', (), {'root': tmp_path / 'gone'})()
  source._split = 'train'
  stream = Batches(
    InOrder(num_examples=2, batch_size=1),
    data_examples.mapped(source, length_of),
    workers=two,
  )
  with pytest.raises(errors.UserError, match='algoeff data prepare gone'):
    next(stream)
  stream.close()
