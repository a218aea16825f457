"""Trials in forks of a warm process give what real processes give."""

from __future__ import annotations

from pathlib import Path

import pytest
import trials
import warm

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(('framework', 'package'), [('jax', 'jax'), ('pytorch', 'torch')])
def test_a_forked_trial_has_the_rows_and_the_environment_of_a_real_one(
  framework: str, package: str, tmp_path: Path
):
  pytest.importorskip(package)
  found = []
  for name, algoeff in (('real', trials.algoeff), ('forked', warm.algoeff)):
    done = algoeff(
      *('run', '--workload', 'quick_vision', '--framework', framework, '--submission', 'nadamw'),
      *('--ruleset', 'self', '--smoke', '--seed', 3, '--num_threads', 1),
      *('--experiment_dir', tmp_path / name, '--quiet'),
      cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    folder = trials.trial_folder(tmp_path / name)
    record = trials.record(folder)
    assert 0 < sum(record.buckets.values()) < record.parent_wall_sec + 0.5
    found.append((trials.without_times(trials.rows(folder).evals), record.environment))
  assert found[0] == found[1]


def test_an_error_in_a_fork_is_told_with_its_traceback():
  with pytest.raises(AssertionError, match=r"(?s)Traceback.*invalid literal.*'many'"):
    warm.call(int, 'many')
