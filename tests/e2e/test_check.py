"""`algoeff check` on entries that are broken, and on those that are not."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import limits_worker
import pytest
import warm
from attacks import HONEST
from broken_entries import BROKEN, BROKEN_ON_TWO_DEVICES, Broken
from trials import algoeff

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import KINDS
from algorithmic_efficiency.experiments.check import run as check
from algorithmic_efficiency.experiments.check import source as check_source

pytestmark = pytest.mark.slow

WORKLOAD = 'quick_vision'
SILENT_SEC = 45.0  # what counts as never returning, where that is waited for


def checked(file: Path, limit: str = '', **options: Any) -> check.CheckReport:
  asked = check.Check(submission=str(file), **{'workloads': (WORKLOAD,), **options})
  return warm.call(limits_worker.check_within, limit, asked)


# Waited for, or found as another of the same kind is.
LONG = (
  *('never_returns', 'never_begins', 'process_that_stays', 'grows_outside_arrays'),
  *('another_process_writes_into_the_log', 'infinite_gradients', 'keeps_every_sum'),
  *('decays_by_a_global', 'second_process_fails', 'parameters_of_before'),
)


@pytest.mark.parametrize(
  'broken',
  [pytest.param(one, marks=[pytest.mark.long] * (one.name in LONG), id=one.name) for one in BROKEN],
)
def test_what_is_broken_is_named_with_file_and_line(broken: Broken, tmp_path: Path):
  file = broken.write(tmp_path)
  assert {finding.kind for finding in check_source.findings(file)} == broken.shows
  limit_sec = SILENT_SEC if broken.kind == 'ended' else check.HEARTBEAT_TIMEOUT_SEC
  report = checked(file, broken.limit, heartbeat_timeout_sec=limit_sec)
  found = {one.kind: one for one in report.findings if one.kind not in broken.shows}
  assert broken.kind in found
  assert (found[broken.kind].file, found[broken.kind].line) == (str(file), broken.line)
  others = {kind for kind in found if kind != broken.kind and KINDS[kind].severity == 'error'}
  assert not others
  assert report.num_errors == (KINDS[broken.kind].severity == 'error')


def test_every_kind_that_is_found_by_running_has_an_entry():
  by_running = {name for name, kind in KINDS.items() if kind.found_by != 'reading'}
  elsewhere = {'frozen_params'}  # of workloads with frozen parameters: in test_frozen.py
  assert by_running == {broken.kind for broken in BROKEN} | elsewhere


def test_an_honest_entry_has_no_fault(tmp_path: Path):
  file = tmp_path / 'submission.py'
  file.write_text(HONEST)
  result = algoeff('check', file, '--workloads', WORKLOAD, '--json', cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout)
  assert [(row['title'], row['framework']) for row in found['rows']] == [
    ('sources', 'pytorch'),
    (WORKLOAD, 'pytorch'),
  ]
  assert found['num_errors'] == 0
  assert {found['rows'][1][subject] for subject in check.SUBJECTS} == {'pass'}


def test_an_entry_may_say_that_it_is_complete_right_after_an_evaluation(tmp_path: Path):
  code = """
honest_update = update_params


def update_params(global_step, **arguments):
  if global_step == 40:
    raise spec.TrainingCompleteError
  return honest_update(global_step=global_step, **arguments)
"""
  file = tmp_path / 'submission_pytorch.py'
  file.write_text(HONEST + code)
  report = checked(file)
  assert not report.findings


def test_check_and_run_say_in_the_same_words_what_is_missing(tmp_path: Path):
  [broken] = [broken for broken in BROKEN if broken.name == 'needs_a_package']
  file = broken.write(tmp_path)
  told = warm.algoeff('check', file, '--workloads', WORKLOAD, cwd=tmp_path)
  ran = warm.algoeff(
    *('run', '--workload', WORKLOAD, '--submission', file, '--framework', 'pytorch', '--smoke'),
    *('--ruleset', 'self', '--experiment_dir', tmp_path / 'runs'),
    cwd=tmp_path,
  )
  assert ran.returncode == 2
  sentence = ran.stderr.splitlines()[-1].removeprefix('algoeff: ')
  assert 'learned_things_of_2023, which is not installed: pip install' in sentence
  assert sentence in ' '.join(told.stdout.split())


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('moves_every_75th_step', marks=pytest.mark.long),
    'moves_at_the_first_step_and_every_75th',
    'climbs_for_60_steps',
  ],
)
def test_what_comes_late_is_no_fault(name: str, tmp_path: Path):
  """Regression: gathering gradients was an error, and a warm-up was to be looked at."""
  file = tmp_path / 'submission_pytorch.py'
  file.write_text(HONEST + '\nhonest_update = update_params\n' + LATE[name])
  report = checked(file)
  assert not report.findings


LATE = {
  'moves_every_75th_step': """
def update_params(optimizer_state, global_step, **arguments):
  optimizer_state['optimizer'].param_groups[0]['lr'] = 0.05 * (global_step % 75 == 74)
  return honest_update(optimizer_state=optimizer_state, global_step=global_step, **arguments)
""",
  'moves_at_the_first_step_and_every_75th': """
def update_params(optimizer_state, global_step, **arguments):
  optimizer_state['optimizer'].param_groups[0]['lr'] = 0.05 * (global_step % 75 == 0)
  return honest_update(optimizer_state=optimizer_state, global_step=global_step, **arguments)
""",
  'climbs_for_60_steps': """
def update_params(optimizer_state, global_step, **arguments):
  optimizer_state['optimizer'].param_groups[0]['maximize'] = global_step < 60
  return honest_update(optimizer_state=optimizer_state, global_step=global_step, **arguments)
""",
}


def test_the_table_names_the_place_and_the_remedy(tmp_path: Path):
  [broken] = [broken for broken in BROKEN if broken.kind == 'exception']
  file = broken.write(tmp_path)
  result = warm.algoeff('check', file, '--workloads', WORKLOAD, cwd=tmp_path)
  assert result.returncode == 1, result.stderr
  assert f'submission_pytorch.py:{broken.line}: error exception' in result.stdout
  assert KINDS['exception'].remedy in result.stdout
  row = next(line for line in result.stdout.splitlines() if line.startswith(WORKLOAD))
  assert re.split(r'\s\s+', row.strip()) == [
    *(WORKLOAD, 'pytorch', 'pass', 'error', '-', '-', '-', '-', '-')
  ]


SLOW = (
  *(('jax', 'quick_lm'), ('pytorch', 'quick_moe')),
  *(('pytorch', 'quick_nmt'), ('jax', 'quick_vision')),
)


def _own() -> Iterator[object]:
  """Every submission in each framework, on a bundled workload of each task.

  Those for self tuning are slow once, in PyTorch on models that XLA compiles for long. On the
  other workloads, and in the other frameworks, they take long, as those for external tuning do,
  which train a toy by default.
  """
  tasks = {
    one.task: one.name
    for one in reversed(registry.workloads().values())
    if one.bundled and not one.is_variant and registry.is_runnable(one)
  }
  for entry, slow in zip(registry.submissions().values(), itertools.cycle(SLOW), strict=False):
    for framework, workload in itertools.product(entry.frameworks, sorted(tasks.values())):
      is_slow = entry.ruleset == 'self' and (framework, workload) == slow
      yield pytest.param(
        *(entry, framework, workload),
        marks=[pytest.mark.long] * (not is_slow),
        id=f'{entry.ruleset}-{entry.name}-{framework}-{workload}',
      )


@pytest.mark.parametrize(('entry', 'framework', 'workload'), [*_own()])
def test_our_own_submissions_have_no_error(
  entry: registry.SubmissionFolder, framework: str, workload: str
):
  asked = check.Check(
    submission=entry.name, frameworks=(framework,), ruleset=entry.ruleset, workloads=(workload,)
  )
  report = warm.call(check.run, asked)
  assert not [finding for finding in report.findings if KINDS[finding.kind].severity == 'error']
  assert [row.title for row in report.rows] == ['sources', workload]
  assert report.rows[1].checked == set(check.SUBJECTS)  # it trained, and went on after a break


@pytest.mark.parametrize(
  'broken',
  [
    pytest.param(one, marks=[pytest.mark.long] * (one.name in LONG), id=one.name)
    for one in BROKEN_ON_TWO_DEVICES
  ],
)
def test_what_two_devices_alone_show_is_told_once(broken: Broken, tmp_path: Path):
  file = broken.write(tmp_path)
  report = checked(file, thorough=True)
  [(found, where)] = report.findings.items()
  assert (found.kind, found.file, found.line) == (broken.kind, str(file), broken.line)
  assert where == [f'{WORKLOAD}, 2 devices ({broken.framework})']
  assert len(report.rows[-1].findings) == 1


@pytest.mark.long
@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_thorough_runs_every_point_and_two_devices(framework: str):
  asked = check.Check(
    submission='adamw', frameworks=(framework,), workloads=(WORKLOAD,), thorough=True
  )
  report = warm.call(check.run, asked)
  points = [f'{WORKLOAD}, point {number}' for number in range(2, 6)]
  titles = [row.title for row in report.rows]
  assert titles == ['sources', WORKLOAD, *points, f'{WORKLOAD}, 2 devices']
  assert report.num_errors == 0
