"""Which threads are the harness's: marks that blocks set and take back."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from algorithmic_efficiency import trust
from algorithmic_efficiency.trust import IntegrityError


def in_a_thread(work) -> list[bool]:
  found: list[bool] = []
  thread = threading.Thread(target=lambda: found.extend(work()))
  thread.start()
  thread.join()
  return found


def test_no_thread_is_trusted_unless_it_says_so():
  def work():
    yield trust.is_trusted()
    trust.trust_this_thread()
    yield trust.is_trusted()
    yield threading.get_native_id() in trust.threads

  assert in_a_thread(work) == [False, True, True]
  code = 'from algorithmic_efficiency import trust; print(trust.is_trusted())'
  command = [sys.executable, '-c', code]
  assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == 'False\n'


def test_blocks_nest_and_take_their_mark_back_even_after_an_error():
  def work():
    with trust.harness():
      yield trust.is_trusted()
      with trust.submission():
        yield trust.is_trusted()
        with pytest.raises(ZeroDivisionError), trust.harness():
          yield trust.is_trusted()
          raise ZeroDivisionError
        yield trust.is_trusted()
      yield trust.is_trusted()
    yield trust.is_trusted()

  assert in_a_thread(work) == [True, False, True, False, True, False]


def test_a_mark_is_for_its_own_thread_alone():
  with trust.harness():
    assert in_a_thread(lambda: [trust.is_trusted()]) == [False]


def test_a_broken_rule_knows_where_it_was_broken():
  error = IntegrityError('It did.', 'data')
  assert (str(error), error.kind) == ('It did.', 'data')
  assert error.stack[-1].name == '__init__' and error.stack[-2].filename == __file__
