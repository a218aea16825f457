"""Which trial is evaluated, on what, and what becomes of parameters that do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency import backends, cli, seeds
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Probe
from algorithmic_efficiency.cli import evaluate as evaluate_verb
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import kept_evaluation, kept_params

QUICK = registry.workload('quick_vision')
PLAIN = {'params': 'p', 'model_state': 's'}
OWN_TASK = Path(__file__).parents[1] / 'contracts' / 'own_task'
VALUES = {'validation/accuracy': 0.5, 'validation/num_examples': 359}


def write_trial(folder: Path, *, framework: str = 'jax', kept: Any = PLAIN, **fields: Any) -> Path:
  """A trial that has kept its parameters after step 40."""
  folder.mkdir(parents=True, exist_ok=True)
  keeper = kept_params.ParamsKeeper(folder, 'last', target=QUICK.target, eval_batch_size=72)
  described = keeper.save(40, kept)
  TrialRecord(
    **{
      'workload': 'quick_vision',
      'submission': 'mine',
      'suite': 'quick',
      'ruleset': 'self',
      'study': 1,
      'trial': 1,
      'seeds': {'trial': 7},
      'kept_params': described,
      'framework': framework,
      'definition_hash': registry.workload('quick_vision', 'quick').content_hash(),
      **fields,
    }
  ).write(folder)
  return folder


class TestFind:
  def test_a_trial_folder_is_itself(self, tmp_path):
    folder = write_trial(tmp_path / 'trial_1')
    assert kept_evaluation.find(folder).folder == folder

  def test_a_folder_with_one_trial_is_that_one(self, tmp_path):
    folder = write_trial(tmp_path / 'mine' / 'study_1' / 'quick_vision_jax' / 'trial_1')
    write_trial(folder.with_name('.trial_1.replaced'))
    assert kept_evaluation.find(tmp_path).folder == folder

  def test_the_framework_chooses(self, tmp_path):
    write_trial(tmp_path / 'one')
    other = write_trial(tmp_path / 'two', framework='pytorch')
    assert kept_evaluation.find(tmp_path, 'pytorch').folder == other
    with pytest.raises(UserError, match=r'holds 2: .*/one, .*/two\. Name one of them'):
      kept_evaluation.find(tmp_path)

  def test_none_is_one_message(self, tmp_path):
    with pytest.raises(UserError, match=f'must be a trial folder, or hold one; {tmp_path} does'):
      kept_evaluation.find(tmp_path)
    write_trial(tmp_path)
    with pytest.raises(UserError, match='or hold one of pytorch'):
      kept_evaluation.find(tmp_path, 'pytorch')


class FakeBackend:
  """A backend whose workload and evaluation are played."""

  def workload(self, definition, task, budget, *, eval_batch_size):
    self.definition = definition
    return SimpleNamespace(
      eval_batch_size=eval_batch_size or definition.batch_sizes.eval,
      init_model_fn=lambda key: ('fresh p', 'fresh s'),
    )

  def key(self, key_data):
    return key_data

  def overlay(self, fresh, packed, *, fixed):
    assert fresh == {'params': 'fresh p', 'model_state': 'fresh s'}
    assert set(fixed) == {'params', 'model_state'}
    if 'misfit' in packed.values():
      raise ValueError('a has the shape (1,) in the saved state and (2,) in the fresh one.')
    return packed


class TestEvaluate:
  @pytest.fixture
  def calls(self, monkeypatch):
    """The arguments of the evaluation."""
    calls = {}

    def evaluate(backend, workload, task, **arguments):
      calls.update(arguments, definition=backend.definition)
      return VALUES

    monkeypatch.setattr(kept_evaluation.backends, 'start', lambda *_: FakeBackend())
    monkeypatch.setattr(kept_evaluation, 'TaskCode', SimpleNamespace(of=lambda *_: 'code'))
    monkeypatch.setattr(kept_evaluation.evaluation, 'evaluate', evaluate)
    monkeypatch.setattr(request, 'check_installed', lambda framework: None)
    return calls

  @staticmethod
  def evaluate(folder, splits=('validation',), **options):
    return kept_evaluation.evaluate(
      kept_evaluation.find(folder), splits, data_dir=Path('/data'), devices=Devices(), **options
    )

  def test_it_is_the_evaluation_of_the_trial(self, tmp_path, calls):
    found = self.evaluate(write_trial(tmp_path))
    assert (calls['params'], calls['model_state']) == ('p', 's')
    assert calls['root'] == Path('/data/digits') and calls['splits'] == ('validation',)
    np.testing.assert_array_equal(calls['key_data'], seeds.key_data(7, 'eval', 40))
    assert (found.batch_size, found.global_step, found.values) == (72, 40, VALUES)
    assert found.definition_hash == registry.workload('quick_vision', 'quick').content_hash()

  def test_another_workload_has_its_own_batch_size_and_data(self, tmp_path, calls):
    found = self.evaluate(write_trial(tmp_path), workload='mnist')
    assert (found.workload, found.trained_on) == ('mnist', 'quick_vision')
    assert found.batch_size == registry.workload('mnist').batch_sizes.eval
    assert calls['root'] == Path('/data/mnist')
    assert self.evaluate(tmp_path, workload='mnist', batch_size=5).batch_size == 5

  def test_a_smoke_run_is_evaluated_as_such(self, tmp_path, calls):
    self.evaluate(write_trial(tmp_path, smoke=True))
    assert calls['root'] is None
    assert calls['definition'].model == QUICK.smoke.model

  def test_a_suite_of_the_user_that_is_not_there_does_no_harm(self, tmp_path, calls):
    self.evaluate(write_trial(tmp_path, suite='my_own'))
    assert calls['definition'] == QUICK

  def test_parameters_that_do_not_fit_are_one_message(self, tmp_path, calls):
    folder = write_trial(tmp_path, kept={'params': 'misfit', 'model_state': 's'})
    with pytest.raises(
      UserError, match=r'those of quick_vision do not fit mnist\. a has the shape'
    ):
      self.evaluate(folder, workload='mnist')

  def test_probes_are_passed_on(self, tmp_path, calls, monkeypatch):
    probe = Probe(num_examples=5, metrics=('accuracy',))
    definition = dataclasses.replace(QUICK, probes={'rotated': probe})
    monkeypatch.setattr(kept_evaluation, 'definition_of', lambda *_: definition)
    self.evaluate(write_trial(tmp_path), ('rotated', 'test'))
    assert calls['splits'] == ('rotated', 'test')
    with pytest.raises(UserError, match=r"no split or probe of quick_vision 'rotate'. .*'rotated'"):
      self.evaluate(tmp_path, ('rotate',))

  def test_a_split_that_the_definition_lacks_is_refused(self, tmp_path, calls, monkeypatch):
    splits = dataclasses.replace(QUICK.splits, test=None)
    definition = dataclasses.replace(QUICK, splits=splits)
    monkeypatch.setattr(kept_evaluation, 'definition_of', lambda *_: definition)
    with pytest.raises(UserError, match="no split or probe of quick_vision 'test'"):
      self.evaluate(write_trial(tmp_path), ('test',))

  def test_the_command_prints_a_table_and_writes_json(self, tmp_path, calls, capsys):
    folder, output = write_trial(tmp_path / 'trial_1'), tmp_path / 'values.json'
    words = ['evaluate', str(tmp_path), '--split', 'validation', '--output', str(output)]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
      f'quick_vision (jax): parameters after step 40 of {folder}',
      'validation/accuracy      0.5',
      'validation/num_examples  359',
    ]
    record = kept_evaluation.find(folder).record
    dataclasses.replace(record, definition_hash='other').write(folder)
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == evaluate_verb.CHANGED
    written = json.loads(output.read_text())
    assert written['values'] == VALUES and written['global_step'] == 40

  def test_mistakes_of_the_command_line_are_one_message(self, tmp_path, capsys):
    write_trial(tmp_path, kept_params=None)
    for words, message in (
      (['--split', 'test'], 'has kept no parameters; run it with --keep_params'),
      (['--split', 'test', '--batch_size', '0'], '--batch_size must be positive'),
    ):
      assert cli.main(['evaluate', str(tmp_path), *words]) == 2
      assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(('framework', 'package'), [('jax', 'jax'), ('pytorch', 'torch')])
def test_a_probe_is_evaluated_on_real_parameters(tmp_path, monkeypatch, framework, package):
  pytest.importorskip(package)
  monkeypatch.setattr(registry, '_single_tasks', [])
  registry.add_task(OWN_TASK)
  try:
    definition, devices = registry.workload('corners'), Devices(platform='cpu', num_devices=1)
    backend = backends.start(framework, devices)
    workload = backend.workload(
      definition, TaskCode.of(definition, framework), definition.suites['quick']
    )
    model = workload.init_model_fn(backend.key(seeds.key_data(3, 'init')))
    folder = write_trial(
      tmp_path,
      framework=framework,
      workload='corners',
      kept=backend.pack(dict(zip(('params', 'model_state'), model, strict=True))),
    )

    def evaluate(*splits, **options):
      return kept_evaluation.evaluate(
        kept_evaluation.find(folder),
        splits,
        data_dir=tmp_path,
        devices=devices,
        **options,
      )

    values = evaluate('far', 'validation').values
    assert (values['far/num_examples'], values['validation/num_examples']) == (40, 64)
    assert {name for name in values if name.startswith('far/')} == {
      'far/accuracy',
      'far/num_examples',
    }
    in_other_batches = evaluate('far', batch_size=7).values
    assert in_other_batches['far/accuracy'] == values['far/accuracy']
    with pytest.raises(UserError, match='those of corners do not fit quick_vision'):
      evaluate('test', workload='quick_vision')
  finally:
    monkeypatch.undo()
    registry._forget()
