"""What a race means: its trials, their order and seeds, and what is refused before it starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import work

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.experiments.race.race import (
  Race,
  RaceSubmission,
  expand,
  with_baselines,
)
from algorithmic_efficiency.launch import request, slots
from algorithmic_efficiency.launch.request import Request
from algorithmic_efficiency.results import trial_record
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions, with_options


@pytest.fixture(autouse=True)
def _any_framework(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)


def race(folder: Path, *submissions: str, **changes: Any) -> Race:
  fields: dict[str, Any] = {
    'suite': 'quick',
    'entries': tuple(map(RaceSubmission.parse, submissions or ('nadamw', 'momentum'))),
    'frameworks': ('jax',),
    'workloads': ('quick_vision',),
    'allow_provisional': True,
    'experiment_dir': str(folder),
    **changes,
  }
  return with_options(Race, fields)


def make_provisional(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
  found = dict(registry.workloads())
  for name in names:
    target = dataclasses.replace(found[name].target, provisional=True)
    found[name] = dataclasses.replace(found[name], target=target)
  monkeypatch.setattr(registry, 'workloads', lambda: found)


def begin(config: TrialConfig, **changes: Any) -> None:
  config.path.mkdir(parents=True)
  dataclasses.replace(config.record(), **changes).write(config.path)


class TestOrder:
  def test_submissions_are_innermost_and_studies_outermost(self, tmp_path):
    asked = race(tmp_path, frameworks=('jax', 'pytorch'), studies=2, trials=2)
    found = [
      (config.study, config.trial, config.framework, config.submission) for config in expand(asked)
    ]
    assert found == [
      (study, trial, framework, submission)
      for study in (1, 2)
      for trial in (1, 2)
      for framework in ('jax', 'pytorch')
      for submission in ('nadamw', 'momentum')
    ]

  def test_a_submission_races_in_the_frameworks_that_it_imports(self, tmp_path):
    """Regression: each `submission.py` raced in both, eight trials for five."""
    for name, package in (
      ('one_of_flax', 'jax'),
      ('in_torch', 'torch'),
      ('also_in_torch', 'torch'),
    ):
      folder = tmp_path / name
      folder.mkdir()
      (folder / 'submission.py').write_text(f'import {package}')
    paths = [str(tmp_path / name) for name in ('one_of_flax', 'in_torch', 'also_in_torch')]
    once = {'ruleset': 'self', 'studies': 1}
    asked = race(tmp_path, 'nadamw', *paths, frameworks=('jax', 'pytorch'), **once)
    pairs = [(config.submission, config.framework) for config in expand(asked)]
    assert sorted(pairs) == [
      ('also_in_torch', 'pytorch'),
      ('in_torch', 'pytorch'),
      ('nadamw', 'jax'),
      ('nadamw', 'pytorch'),
      ('one_of_flax', 'jax'),
    ]
    with pytest.raises(errors.UserError, match="'in_torch' is written for pytorch"):
      expand(race(tmp_path, 'nadamw', str(tmp_path / 'in_torch'), **once))

  def test_the_suite_says_how_often(self, tmp_path):
    numbers = registry.suite('quick').rules_of('external')
    configs = expand(race(tmp_path, 'nadamw'))
    assert len(configs) == numbers.num_studies * numbers.num_trials

  @pytest.mark.parametrize(
    ('text', 'submission', 'name'),
    [
      ('nadamw', 'nadamw', None),
      ('mine=./a/folder', './a/folder', 'mine'),
      ('torch.optim.SGD(lr=0.1)', 'torch.optim.SGD(lr=0.1)', None),
      ('sgd=torch.optim.SGD(lr=0.1; schedule=wsd)', 'torch.optim.SGD(lr=0.1; schedule=wsd)', 'sgd'),
    ],
  )
  def test_a_name_stands_before_the_submission(self, text, submission, name):
    assert RaceSubmission.parse(text) == RaceSubmission(submission=submission, name=name)

  def test_what_is_named_twice_runs_once(self, tmp_path):
    twice = {'frameworks': ('jax', 'jax'), 'workloads': ('quick_vision', 'quick_vision')}
    assert len(expand(race(tmp_path, 'nadamw', trials=1, studies=1, **twice))) == 1

  def test_members_that_cannot_run_are_left_out(self, tmp_path):
    configs = expand(race(tmp_path, suite='lite', workloads=None, trials=1, studies=1))
    runnable = [
      name for name, one in registry.members('lite').items() if registry.is_runnable(one, 'jax')
    ]
    assert sorted({config.workload for config in configs}) == sorted(runnable)

  def test_members_whose_goals_are_provisional_are_left_out(self, tmp_path, monkeypatch):
    members = set(registry.members('quick'))
    make_provisional(monkeypatch, *members)
    found = dict(registry.workloads())
    target = dataclasses.replace(found['quick_vision'].target, provisional=False)
    found['another'] = dataclasses.replace(found['quick_vision'], name='another', target=target)
    monkeypatch.setattr(registry, 'workloads', lambda: found)
    asked = race(tmp_path, workloads=None, allow_provisional=False)
    assert {config.workload for config in expand(asked)} == {'another'}
    allowed = dataclasses.replace(asked, options=RunOptions(allow_provisional=True))
    assert {config.workload for config in expand(allowed)} == {'another', *members}


class TestPairing:
  def test_submissions_have_the_same_seeds_and_points(self, tmp_path):
    configs = expand(race(tmp_path, 'adamw', 'twin=adamw', studies=2, trials=2))
    a, b = ([p for p in configs if p.submission == name] for name in ('adamw', 'twin'))
    assert [p.seeds for p in a] == [p.seeds for p in b]
    assert [p.hyperparameters for p in a] == [p.hyperparameters for p in b]
    assert len({p.seed for p in a}) == 4

  def test_a_trial_is_the_one_that_run_would_start(self, tmp_path):
    [*_, last] = expand(race(tmp_path, 'nadamw', studies=3, trials=2, seed=9))
    [*_, alone] = request.configs(
      Request(
        workload='quick_vision',
        framework='jax',
        submission='nadamw',
        suite='quick',
        trials=2,
        studies=3,
        seed=9,
        resume=True,
        options=RunOptions(allow_provisional=True),
        experiment_dir=str(tmp_path),
      )
    )
    [slot] = slots.slots(alone.devices)  # a race states the threads, too
    assert last == dataclasses.replace(alone, devices=slot.devices(alone.devices, 'jax'))

  def test_a_race_goes_on_with_its_seed(self, tmp_path):
    first = expand(race(tmp_path))
    begin(first[0])
    assert expand(race(tmp_path))[0].root_seed == first[0].root_seed

  def test_a_race_that_replaces_its_runs_keeps_the_seed_too(self, tmp_path):
    """Or those of other submissions in the folder would no longer be paired with it."""
    begin(expand(race(tmp_path, 'adamw', seed=6))[0])
    assert expand(race(tmp_path, 'nadamw', overwrite=True))[0].root_seed == 6


class TestMistakes:
  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'suite': 'quik'}, "no suite 'quik'. Did you mean 'quick'"),
      ({'workloads': ('quick_visoin',)}, "Did you mean 'quick_vision'"),
      ({'workloads': ('mnist',)}, 'has no budget in the suite'),
      ({'entries': (RaceSubmission(submission='nadam'),)}, "Did you mean 'nadamw'"),
      ({'entries': ()}, 'needs a submission'),
      ({'workloads': ()}, 'needs a submission'),
      ({'studies': 0}, '--studies must be positive; it is 0'),
      ({'trials': -1}, '--trials must be positive; it is -1'),
      ({'seed': -1}, '--seed must not be negative'),
      ({'workers': 0}, '--workers must be positive; it is 0'),
      ({'workers': 1000}, r'1000 trials at a time with 1 thread\(s\) each need 1000 CPUs'),
      ({'devices': Devices(platform='gpu')}, 'shows no GPU'),
      ({'splits': ('test',)}, 'name it among --splits'),
      ({'splits': ('validation',)}, 'add --stop_at validation'),
      ({'suite': 'algoperf_v06', 'workloads': ('ogbg',)}, 'cannot run with jax yet'),
    ],
  )
  def test_one_message_and_nothing_written(self, changes, message, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    with pytest.raises(errors.UserError, match=message):
      expand(race(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []

  @pytest.mark.parametrize('workloads', [None, ('quick_vision',)])
  def test_a_goal_that_is_provisional(self, workloads, tmp_path, monkeypatch):
    make_provisional(monkeypatch, *registry.workloads())
    with pytest.raises(errors.UserError, match=r'provisional.*\. Add --allow_provisional'):
      expand(race(tmp_path, workloads=workloads, allow_provisional=False))
    assert list(tmp_path.iterdir()) == []

  @pytest.mark.parametrize('is_known', [False, True])
  def test_a_baseline_of_a_suite_file_that_nobody_knows(self, is_known, tmp_path):
    """Regression: it was told when the race was over, by a note of its score."""
    file = tmp_path / 'own.toml'
    file.write_text(
      f"""
      name = 'own_suite'
      title = 'Own'
      axis = 'cost_adjusted_steps'
      hardware = 'any'
      baselines = ['baseline', '{'momentum' if is_known else 'momentun'}']
      rulesets.external.studies = 1
      workloads.quick_vision = {{}}
      """
    )
    if is_known:
      assert expand(race(tmp_path / 'runs', 'nadamw', suite=str(file)))
      return
    with pytest.raises(errors.UserError, match=r"no baseline 'momentun'\. Did you mean 'momentum'"):
      expand(race(tmp_path / 'runs', 'nadamw', suite=str(file)))

  def test_an_unknown_framework(self, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(errors.UserError, match=r"no framework 'jaks'\. Did you mean 'jax'"):
      expand(race(tmp_path, frameworks=('jaks',)))

  def test_fewer_gpus_than_a_trial_needs(self, tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    with pytest.raises(errors.UserError, match='need 4; this machine shows 2'):
      expand(race(tmp_path, devices=Devices(num_devices=4)))

  @pytest.mark.parametrize('name', ['a/b', '.hidden', 'mine_jax', 'mine_pytorch', 'a b'])
  def test_a_name_that_scoring_would_misread(self, name, tmp_path):
    with pytest.raises(errors.UserError, match='is scored by a name'):
      expand(race(tmp_path, f'{name}=nadamw'))

  @pytest.mark.parametrize('name', ['scores', 'Scores', 'race.json', 'costs.jsonl'])
  def test_a_name_that_the_race_uses_itself(self, name, tmp_path):
    with pytest.raises(errors.UserError, match=f'under the name {name}, .* with NAME=SUBMISSION'):
      expand(race(tmp_path, f'{name}=nadamw'))

  def test_two_submissions_of_one_name(self, tmp_path):
    with pytest.raises(errors.UserError, match='tell them apart with NAME=SUBMISSION'):
      expand(race(tmp_path, 'nadamw', 'nadamw'))


class TestFolder:
  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'suite': 'lite'}, 'with suite lite, and this race has quick'),
      ({'ruleset': 'self'}, 'with ruleset self, and this race has external'),
      ({'smoke': True}, 'with smoke True, and this race has False'),
      ({'seeds': {'seed': 5}}, 'with seed 5, and this race has 4'),
      ({'definition_hash': 'other'}, 'the workload quick_vision has been changed'),
      ({'suite_hash': 'other'}, 'the suite quick has been changed'),
      ({'submission_hash': 'other'}, 'the files of nadamw have been changed'),
      ({'hyperparameters': {'learning_rate': 1.0}}, 'began with hyperparameters'),
      ({'options': {'stop_at': 'validation'}}, 'began with options'),
    ],
  )
  def test_runs_of_another_race_are_refused(self, changes, message, tmp_path):
    asked = race(tmp_path, seed=4)
    begin(expand(asked)[0], **changes)
    with pytest.raises(errors.UserError, match=message):
      expand(asked)
    assert expand(dataclasses.replace(asked, overwrite=True))

  def test_so_are_those_of_a_submission_that_does_not_race(self, tmp_path):
    begin(expand(race(tmp_path, 'adamw', seed=4))[0], ruleset='self')
    with pytest.raises(errors.UserError, match='with ruleset self'):
      expand(race(tmp_path, seed=4, overwrite=True))

  def test_records_without_options_are_older_and_go_on(self, tmp_path):
    asked = race(tmp_path)
    begin(expand(asked)[0], options={})
    assert expand(asked)

  def test_a_damaged_record_is_named(self, tmp_path):
    asked = race(tmp_path)
    path = expand(asked)[0].path
    path.mkdir(parents=True)
    (path / trial_record.TRIAL_FILE).write_text('{')
    with pytest.raises(errors.UserError, match='is damaged'):
      expand(asked)


class TestScan:
  @pytest.mark.parametrize(
    ('status', 'stop_reason', 'kind'),
    [
      ('running', None, 'unfinished'),
      ('failed', 'interrupted', 'unfinished'),
      ('failed', 'out_of_memory', 'unfinished'),
      ('failed', 'failed', 'failed'),
      ('invalid', 'failed', 'invalid'),
      ('finished', 'targets_reached', 'finished'),
      ('finished', 'diverged', 'finished'),
    ],
  )
  def test_what_has_become_of_a_trial(self, status, stop_reason, kind, tmp_path):
    first, second, *_ = expand(race(tmp_path))
    begin(first, status=status, stop_reason=stop_reason)
    assert [found.kind for found in state.scan([first, second])] == [kind, 'absent']

  @pytest.mark.parametrize(('times', 'kind'), [(0, 'unfinished'), (1, 'unfinished'), (2, 'failed')])
  def test_memory_that_is_exhausted_again_is_its_own_fault(self, times, kind, tmp_path):
    [config, *_] = expand(race(tmp_path))
    begin(config, status='failed', stop_reason='out_of_memory', num_out_of_memory=times)
    assert state.scan([config])[0].kind == kind

  def test_the_work_of_a_scan_grows_with_the_race_and_no_faster(self, tmp_path):
    names = [f'entry_{index}=nadamw' for index in range(4)]
    configs = expand(race(tmp_path, *names))
    environment = {f'fact_{index}': 'x' * 40 for index in range(60)}
    for config in configs:
      begin(config, status='finished', stop_reason='targets_reached', environment=environment)
    assert len(configs) == 100

    def scan(*names: str) -> int:
      states: list[state.TrialState] = []
      calls = work.num_calls(lambda: states.extend(state.scan(expand(race(tmp_path, *names)))))
      assert [found.kind for found in states] == ['finished'] * 25 * len(names)
      return calls

    whole, half = scan(*names), scan(*names[:2])
    assert whole < 2.2 * half
    assert whole < 4_000 * len(configs)

  def test_a_record_says_what_the_trial_was_spared(self, tmp_path):
    [config, *_] = expand(race(tmp_path, splits=('validation',), stop_at='validation'))
    begin(config)
    record = json.loads((config.path / trial_record.TRIAL_FILE).read_text())
    assert record['options'] == {
      'stop_at': 'validation',
      'stop_on_divergence': True,
      'splits': ['validation'],
      'full_eval_every': 1,
    }


class TestBaselines:
  """Costs are relative to the suite's baseline, whether it races or not."""

  def groups(self, given: Race) -> dict[tuple[int, str, str], list[str]]:
    groups: dict[tuple[int, str, str], list[TrialConfig]] = {}
    for config in expand(given):
      groups.setdefault((config.study, config.workload, config.framework), []).append(config)
    found = with_baselines(given, groups)
    assert all(one.study == key[0] for key, configs in found.items() for one in configs)
    return {key: [one.submission for one in configs] for key, configs in found.items()}

  def test_it_is_timed_where_it_does_not_race(self, tmp_path):
    given = race(tmp_path, 'momentum', frameworks=('jax', 'pytorch'), studies=2, trials=1)
    keys = [(study, 'quick_vision', name) for study in (1, 2) for name in ('jax', 'pytorch')]
    assert self.groups(given) == {key: ['momentum', 'adamw'] for key in keys}
    assert list(tmp_path.iterdir()) == []

  def test_one_that_races_is_not_there_twice(self, tmp_path):
    given = race(tmp_path, 'momentum', 'nadamw', studies=1, trials=1)
    assert self.groups(given) == {(1, 'quick_vision', 'jax'): ['momentum', 'nadamw']}

  def test_there_is_none_where_none_is_written(self, tmp_path, monkeypatch):
    given = race(tmp_path, 'momentum', studies=1, trials=1)
    groups = {(1, 'quick_vision', 'jax'): expand(given)}
    monkeypatch.setattr(registry, 'submissions', dict)
    assert with_baselines(given, groups) == groups
