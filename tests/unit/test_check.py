"""What a check makes of what it has found, and what it says to mistakes of the user's."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import KINDS, Finding
from algorithmic_efficiency.experiments.check import run as check
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.trial import messages

STATE = {
  'params': {'a': np.arange(3.0), 'b': [1, (2.0, None)]},
  'count': np.float32(1.5),
  'nan': np.array([np.nan]),
}


@pytest.mark.parametrize(
  ('changed', 'path'),
  [
    ({}, None),
    ({'count': np.float32(1.25)}, '/count'),
    ({'count': np.float64(1.5)}, '/count'),
    ({'nan': np.array([0.0])}, '/nan'),
    ({'params': {'a': np.array([0.0, 1.0, -2.0]), 'b': [1, (2.0, None)]}}, '/params/a'),
    ({'params': {'a': np.arange(3.0), 'b': [1, (2.5, None)]}}, '/params/b/1/0'),
    ({'params': {'a': np.arange(3.0), 'b': [1]}}, '/params/b'),
    ({'params': {'a': np.arange(3.0)}}, '/params'),
    ({'nan': np.array([[np.nan]])}, '/nan'),
  ],
)
def test_the_first_difference_of_two_states_is_named(changed: dict, path: str | None):
  assert check.difference(STATE, STATE | changed) == path


def test_zeros_of_either_sign_differ_by_a_bit():
  assert check.difference([0.0], [-0.0]) == '/0'


def finding(kind: str, line: int = 1) -> Finding:
  return Finding(kind=kind, text='It does.', file='submission.py', line=line)


def row(title: str, *findings: Finding) -> check.CheckRow:
  return check.CheckRow(
    title=title, framework='jax', checked=frozenset(check.SUBJECTS), findings=findings
  )


def test_what_is_found_in_several_places_is_told_once_and_faults_first():
  rows = (
    row('sources', finding('files', 3)),
    row('one', finding('exception'), finding('loss_rises')),
    row('two', finding('exception'), finding('exception', 2)),
  )
  report = check.CheckReport(submission='entry', ruleset='self', rows=rows)
  found = {(one.kind, one.line): where for one, where in report.findings.items()}
  assert found['exception', 1] == ['one (jax)', 'two (jax)']
  assert [kind for kind, _ in found] == ['exception', 'exception', 'files', 'loss_rises']
  assert report.num_errors == 2


def message(kind: str, line: int, *, ends: bool = False) -> messages.Finding:
  return messages.Finding(rule=kind, text='It does.', file='submission.py', line=line, ends=ends)


def test_what_several_processes_find_is_told_once_and_what_has_ended_the_trial_first(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  file = tmp_path / 'submission.py'
  file.write_text(SUBMISSION.format(framework='torch'))
  asked = check.Check(submission=str(file), frameworks=('pytorch',), workloads=('quick_vision',))
  [version] = check._versions(asked, 'self')
  [(title, config)] = check._trials(asked, 'self', version, ['pytorch'])

  def run_trial(config, on_message, **options):
    on_message(message('environment', 1))
    on_message(message('environment', 1))
    on_message(message('exception', 2, ends=True))
    on_message(message('network', 3))
    on_message(message('exception', 4, ends=True))
    return Outcome(folder=tmp_path, status='failed', stop_reason='failed', reason='x')

  monkeypatch.setattr(check.local, 'run_trial', run_trial)
  tried = check._tried(title, config, version)
  assert [(one.kind, one.line) for one in tried.findings] == [
    ('environment', 1),
    ('exception', 2),
    ('network', 3),
  ]


def test_what_could_not_be_saved_was_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
  """Regression: the column said that it was resumed, and passed."""
  file = tmp_path / 'submission.py'
  file.write_text(SUBMISSION.format(framework='torch'))
  asked = check.Check(submission=str(file), frameworks=('pytorch',), workloads=('quick_vision',))
  [version] = check._versions(asked, 'self')
  [(title, config)] = check._trials(asked, 'self', version, ['pytorch'])
  outcome = Outcome(folder=tmp_path, status='finished', stop_reason='step_limit', reason='')
  monkeypatch.setattr(check.local, 'run_trial', lambda *args, **options: outcome)
  monkeypatch.setattr(check, '_rising_losses', lambda config, one: [])
  for found, resumed in (([('not_saved', 'x')], False), ([('loss_rises', 'x')], True), ([], True)):
    monkeypatch.setattr(check, '_when_resumed', lambda config, found=found: iter(found))
    assert ('resumed' in check._tried(title, config, version).checked) == resumed


@pytest.mark.parametrize(
  ('last', 'rises'), [(1.0, False), (0.5, False), (1.5, True), (math.inf, True), (math.nan, True)]
)
def test_a_training_loss_that_is_no_number_at_the_end_has_risen(
  last: float, rises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
  file = tmp_path / 'submission.py'
  file.write_text(SUBMISSION.format(framework='torch'))
  asked = check.Check(submission=str(file), frameworks=('pytorch',), workloads=('quick_vision',))
  [version] = check._versions(asked, 'self')
  [(_, config)] = check._trials(asked, 'self', version, ['pytorch'])
  evals = [{'train/loss': 1.0, 'train/accuracy': 0.5}, {'train/loss': last, 'train/accuracy': 0.6}]
  monkeypatch.setattr(check.measurements, 'read', lambda path: SimpleNamespace(evals=evals))
  assert len(check._rising_losses(config, version)) == rises


def test_initialising_for_too_long_is_found_before_the_trial_is_ended():
  assert all(
    suite.free_init_sec < check.HEARTBEAT_TIMEOUT_SEC for suite in registry.suites().values()
  )


def test_a_cell_has_the_worst_that_was_found_on_its_subject():
  shown = row('one', finding('loss_rises'), finding('no_change'), finding('files'))
  assert [shown.worst(subject) for subject in ('learns', 'rules', 'runs')] == [
    'error',
    'warning',
    None,
  ]


def test_every_subject_has_kinds_and_every_remedy_is_a_sentence():
  assert {kind.subject for kind in KINDS.values()} == set(check.SUBJECTS)
  assert all(kind.remedy.endswith('.') and not kind.what.endswith('.') for kind in KINDS.values())


SUBMISSION = """
import {framework}
def get_batch_size(workload_name): return 8
def init_optimizer_state(*arguments): return None
def update_params(**arguments): return None
def data_selection(*arguments): return None
"""


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_the_framework_is_that_which_the_module_imports(framework: str, tmp_path: Path):
  pytest.importorskip('jax')
  pytest.importorskip('torch')
  file = tmp_path / 'submission.py'
  file.write_text(SUBMISSION.format(framework=framework.replace('pytorch', 'torch')))
  [version] = check._versions(check.Check(submission=str(file)), 'self')
  assert version.framework == framework


def test_the_ruleset_is_that_which_the_submission_is_made_for(tmp_path: Path):
  file = tmp_path / 'submission.py'
  assert check._ruleset(str(file)) == 'self'
  (tmp_path / 'tuning_search_space.json').write_text('[]')
  assert check._ruleset(str(file)) == check._ruleset(str(tmp_path)) == 'external'
  assert check._ruleset('torch.optim.SGD(lr=0.1)') == 'external'
  assert check._ruleset(next(name for kind, name in registry.submissions())) == 'external'


def test_thorough_adds_the_variants():
  pytest.importorskip('jax')
  asked = check.Check(submission='adamw', frameworks=('jax',))
  configs = {}
  for thorough in (False, True):
    this = dataclasses.replace(asked, thorough=thorough)
    [version] = check._versions(this, 'external')
    configs[thorough] = {
      config.workload for _, config in check._trials(this, 'external', version, ['jax'])
    }
  can_run = {
    name: definition
    for name, definition in registry.workloads().items()
    if registry.is_runnable(definition, 'jax') and definition.suites
  }
  assert configs[True] == set(can_run)
  assert configs[False] == {name for name, one in can_run.items() if not one.is_variant}


def test_a_workload_of_one_framework_is_checked_with_it_alone(monkeypatch):
  pytest.importorskip('jax')
  pytest.importorskip('torch')
  monkeypatch.setattr(registry, 'is_runnable', lambda one, framework: framework == 'jax')
  asked = check.Check(submission='adamw', workloads=('quick_vision',))
  in_jax, in_torch = check._versions(asked, 'self')

  def titles(one, *frameworks):
    return [title for title, _ in check._trials(asked, 'self', one, frameworks)]

  assert titles(in_jax, 'jax', 'pytorch') == ['quick_vision']
  assert titles(in_torch, 'jax', 'pytorch') == []
  assert titles(in_torch, 'pytorch') == ['quick_vision']  # whose message says why it cannot run


@pytest.mark.parametrize(
  ('words', 'parts'),
  [
    (['adamv'], ["'adamv'", "Did you mean 'adamw'?"]),
    (['a' * 5_000], ["'aaaaaaaaaa", '...aaaaaaaaa']),
    (['no/such/folder'], ['no/such/folder', 'does not exist']),
    (['adamw', '--workloads', 'quick_visio'], ["Did you mean 'quick_vision'?"]),
    (['adamw', '--workloads', 'ogbg'], ['ogbg cannot run with']),
    (
      ['adamw', '--workloads', 'mnist', '--heartbeat_timeout_sec', '0'],
      ['--heartbeat_timeout_sec must be'],
    ),
  ],
)
def test_a_mistake_of_the_user_is_one_message(
  words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
):
  assert cli.main(['check', *words]) == 2
  said = capsys.readouterr()
  assert said.out == ''
  assert said.err.count('\n') == 1
  assert all(part in said.err for part in parts)


@pytest.mark.parametrize('content', ['import jax\nx = (\n', 'import jax\n\0'])
def test_a_module_that_is_no_python_is_an_error_of_the_entry(
  content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  """Regression: the exit code was 2, and of a null character neither file nor line was said."""
  monkeypatch.chdir(tmp_path)
  Path('submission.py').write_text(content)
  assert cli.main(['check', 'submission.py', '--workloads', 'quick_vision']) == 1
  assert 'submission.py:2: error syntax\n' in capsys.readouterr().out
