"""What the record of a resumed trial says about the interruption."""

from __future__ import annotations

from typing import Any

from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import recorder


def record(*, submission_hash: str = 'a', num_threads: int | None = 1) -> TrialRecord:
  fields: dict[str, Any] = {
    name: name for name in ('workload', 'framework', 'submission', 'suite', 'ruleset')
  }
  return TrialRecord(
    **fields,
    study=1,
    trial=1,
    submission_hash=submission_hash,
    environment={'devices': {'num_threads': num_threads}},
  )


def test_nothing_is_said_where_nothing_changed():
  assert recorder.changes(record(), record()) == []


def test_a_submission_that_was_edited_is_noted():
  [note] = recorder.changes(record(), record(submission_hash='b'))
  assert 'files of the submission were changed' in note


def test_another_number_of_threads_is_noted():
  [note] = recorder.changes(record(num_threads=2), record(num_threads=1))
  assert 'began with 2 threads and was resumed with 1' in note
  assert recorder.changes(record(num_threads=None), record(num_threads=2)) == []
