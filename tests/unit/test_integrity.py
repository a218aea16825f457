"""The guard: which files a submission may open."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithmic_efficiency import integrity


@pytest.fixture
def guard(tmp_path: Path):
  cache = tmp_path / 'trial' / '.compilation_cache'
  cache.mkdir(parents=True)
  found = integrity.Guard(unwritable=(tmp_path / 'trial',), writable=(cache,))
  found.arm()
  yield found
  found.disarm()


def test_a_framework_may_fill_the_compilation_cache_in_the_trial_folder(
  guard: integrity.Guard, tmp_path: Path
):
  """Regression: where seconds are raced, every trial in JAX was invalid."""
  (tmp_path / 'trial' / '.compilation_cache' / 'entry').write_text('compiled')
  assert guard.violations == []


def test_the_records_beside_it_are_refused(guard: integrity.Guard, tmp_path: Path):
  with pytest.raises(integrity.IntegrityError, match=r'trial\.json'):
    (tmp_path / 'trial' / 'trial.json').write_text('{}')
  assert len(guard.violations) == 1


def test_the_harness_may_write_them(guard: integrity.Guard, tmp_path: Path):
  with integrity.harness():
    (tmp_path / 'trial' / 'trial.json').write_text('{}')
  assert guard.violations == []
