"""What a request means: seeds, points and folders of its trials, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.launch.request import Request
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import with_options


@pytest.fixture(autouse=True)
def _any_framework(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)


def configs(folder: Path, **changes: Any) -> list[TrialConfig]:
  fields: dict[str, Any] = {
    'workload': 'quick_vision',
    'framework': 'jax',
    'submission': 'adamw',
    'experiment_dir': str(folder),
    'smoke': True,
    **changes,
  }
  return request.configs(with_options(Request, fields))


def begin(config: TrialConfig) -> None:
  """Leaves the record of a trial that was interrupted."""
  config.path.mkdir(parents=True)
  TrialRecord(
    workload=config.workload,
    framework=config.framework,
    submission=config.submission,
    suite=config.suite,
    ruleset=config.ruleset,
    study=config.study,
    trial=config.trial,
    smoke=config.options.smoke,
    hyperparameters=config.hyperparameters,
    seeds=config.seeds,
  ).write(config.path)


class TestSeeds:
  def test_a_resumed_run_takes_the_seed_of_its_own_workload(self, tmp_path):
    """Regression: it took that of whatever workload came first in the experiment's folder."""
    begin(configs(tmp_path, workload='mnist', seed=1)[0])
    begin(configs(tmp_path, workload='quick_vision', seed=2)[0])
    assert configs(tmp_path, workload='quick_vision', resume=True)[0].root_seed == 2
    assert configs(tmp_path, workload='mnist', resume=True)[0].root_seed == 1

  def test_every_study_resumes_with_its_own_seed(self, tmp_path):
    for study in (1, 2):
      begin(configs(tmp_path, study=study, seed=10 + study)[0])
    resumed = configs(tmp_path, studies=3, resume=True)
    assert [config.root_seed for config in resumed] == [11, 12, 11]

  def test_another_seed_than_that_of_the_beginning_is_refused(self, tmp_path):
    begin(configs(tmp_path, seed=1)[0])
    with pytest.raises(errors.UserError, match='is 1, not 2'):
      configs(tmp_path, seed=2, resume=True)

  def test_processes_that_resume_before_anything_began_agree_on_a_seed(self, tmp_path):
    """Regression: under torchrun each drew one of its own, and so other batches."""
    assert configs(tmp_path, resume=True, drawn_seed=7)[0].root_seed == 7
    begin(configs(tmp_path, seed=1)[0])
    assert configs(tmp_path, resume=True, drawn_seed=7)[0].root_seed == 1

  def test_seed_zero_is_a_seed(self, tmp_path):
    """Regression: in the reference 0 means none."""
    assert configs(tmp_path, seed=0)[0].root_seed == 0

  def test_trials_and_studies_have_seeds_of_their_own(self, tmp_path):
    """Regression: in the reference every trial after the first repeats the seed of the first."""
    found = {config.seed for config in configs(tmp_path, trials=5, studies=3, seed=4)}
    assert len(found) == 15


class TestPoints:
  @pytest.mark.parametrize('index', ['hparam_start_index', 'hparam_end_index'])
  def test_a_negative_index_is_refused(self, index, tmp_path):
    with pytest.raises(errors.UserError, match=f'--{index} must not be negative; it is -1'):
      configs(tmp_path, trials=3, **{index: -1})

  def test_slices_of_one_seed_give_the_points_of_the_whole(self, tmp_path):
    """Regression: in the reference trials of one study repeat or miss points."""
    whole = [config.hyperparameters for config in configs(tmp_path, trials=5, seed=4)]
    sliced = [
      configs(tmp_path, trials=5, seed=4, hparam_start_index=i, hparam_end_index=i + 1)
      for i in range(5)
    ]
    assert [found[0].hyperparameters for found in sliced] == whole
    assert [found[0].trial for found in sliced] == [1, 2, 3, 4, 5]


class TestResume:
  @pytest.mark.parametrize(
    ('changes', 'name'),
    [({'ruleset': 'self', 'submission': 'nadamw'}, 'ruleset'), ({'trials': 4}, 'hyperparameters')],
  )
  def test_a_trial_goes_on_as_it_began_or_not_at_all(self, changes, name, tmp_path):
    """Regression: restored state was trained on at another point than it began with."""
    begin(configs(tmp_path, trials=5, seed=4, experiment='mine')[0])
    with pytest.raises(errors.UserError, match=f'began with {name}'):
      configs(tmp_path, **{'trials': 5, **changes}, experiment='mine', resume=True)

  def test_the_command_that_it_began_with_is_taken(self, tmp_path):
    first = configs(tmp_path, trials=5, seed=4)
    begin(first[0])
    resumed = configs(tmp_path, trials=5, resume=True)
    assert [config.seed for config in resumed] == [config.seed for config in first]

  def test_a_trial_of_another_seed_is_not_taken_for_its_own(self, tmp_path):
    """An interrupted --overwrite leaves new trials beside old ones."""
    begin(configs(tmp_path, trials=2, seed=4, ruleset='self', submission='nadamw')[0])
    begin(
      configs(tmp_path, trials=2, seed=5, ruleset='self', submission='nadamw', experiment='b')[1]
    )
    old = tmp_path / 'b/study_1/quick_vision_jax/trial_2'
    old.rename(tmp_path / 'nadamw/study_1/quick_vision_jax/trial_2')
    with pytest.raises(errors.UserError, match='trial_2 began with seeds'):
      configs(tmp_path, trials=2, ruleset='self', submission='nadamw', resume=True)


class TestOverwrite:
  def test_nothing_is_touched_before_a_trial_begins(self, tmp_path):
    """Regression: all old trials were gone before anything was known to work."""
    first = configs(tmp_path, trials=2)
    for config in first:
      begin(config)
    again = configs(tmp_path, trials=2, overwrite=True)
    assert all(config.overwrite for config in again)
    assert all((config.path / 'trial.json').exists() for config in first)

  def test_a_trial_left_aside_still_counts_as_one(self, tmp_path):
    [config] = configs(tmp_path, seed=6)
    begin(config)
    config.path.rename(config.path.with_name('.trial_1.replaced'))
    assert configs(tmp_path, resume=True)[0].root_seed == 6
    assert config.path.is_dir()


class TestHardLimit:
  @pytest.mark.parametrize(
    ('changes', 'seconds'),
    [
      ({}, 600.0),
      ({'smoke': False, 'workload': 'mnist_standardized', 'suite': 'lite'}, 3_600.0),
      ({'smoke': False, 'workload': 'imagenet_resnet', 'suite': 'full'}, 49_918.0),
      ({'heartbeat_timeout_sec': 5.0}, 5.0),
    ],
  )
  def test_it_is_that_of_the_suite_or_the_budget_if_that_is_longer(
    self, tmp_path, monkeypatch, changes, seconds
  ):
    monkeypatch.setattr(request.registry, 'obstacle', lambda *arguments: '')
    monkeypatch.setattr(request, 'check_data', lambda trials: None)
    assert configs(tmp_path, **changes)[0].heartbeat_timeout_sec == seconds

  def test_it_must_be_positive(self, tmp_path):
    with pytest.raises(errors.UserError, match='--heartbeat_timeout_sec must be positive'):
      configs(tmp_path, heartbeat_timeout_sec=0)


class TestExperiment:
  @pytest.mark.parametrize(
    'name', ['..', 'a/b', '/tmp/a', '.hidden', 'a\nb', 'a\udcff', '', 'mine_jax']
  )
  def test_one_that_scoring_would_not_find_is_refused(self, name, tmp_path):
    with pytest.raises(errors.UserError, match=r'is scored by a name .* Give another --experiment'):
      configs(tmp_path / 'runs', experiment=name)

  def test_one_that_a_race_uses_itself_is_refused(self, tmp_path):
    with pytest.raises(errors.UserError, match=r'the name scores, .* Give another --experiment'):
      configs(tmp_path / 'runs', experiment='scores')

  def test_its_folder_lies_among_the_runs(self, tmp_path):
    [config] = configs(tmp_path, experiment='mit-Ümläut', study=1)
    assert config.path == tmp_path / 'mit-Ümläut' / 'study_1' / 'quick_vision_jax' / 'trial_1'

  def test_the_study_may_be_part_of_it_where_no_folder_stands_for_it(self, tmp_path):
    [config] = configs(tmp_path, experiment='mine/study_2', nested=False)
    assert config.path == tmp_path / 'mine' / 'study_2' / 'quick_vision_jax' / 'trial_1'


@pytest.mark.parametrize(
  ('framework', 'gpus', 'most', 'flag'),
  [
    ('pytorch', '0,1,2', 3, 'num_processes'),
    ('pytorch', '0,1,2', 3, 'num_devices'),
    ('jax', '0,1,2', 8, 'num_processes'),
    ('pytorch', '', 8, 'num_processes'),
  ],
)
def test_a_host_has_as_many_processes_as_can_work(
  framework, gpus, most, flag, tmp_path, monkeypatch
):
  """Regression: 77 processes on 2 CPUs were started, and failed after a minute."""
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', gpus)
  monkeypatch.setattr(request, 'num_usable_cpus', lambda: 2.0)

  def asked(number: int) -> Devices:
    own = {'num_devices': number} if flag == 'num_devices' else {}
    return Devices(world_size=number, **own)

  configs(tmp_path, framework=framework, devices=asked(most))
  with pytest.raises(
    errors.UserError, match=rf'--{flag} must be at most {most} .* it is {most + 1}'
  ):
    configs(tmp_path, framework=framework, devices=asked(most + 1))
  elsewhere = dataclasses.replace(asked(most + 1), address='host:1')
  configs(tmp_path, framework=framework, devices=elsewhere)


def test_data_that_are_not_prepared_are_told_before_a_trial_begins(tmp_path):
  """Regression: the heading of the trial came first."""
  with pytest.raises(errors.UserError, match='The data set mnist is not prepared'):
    configs(tmp_path, workload='mnist', smoke=False, data_dir=str(tmp_path))
  assert configs(tmp_path, workload='mnist', data_dir=str(tmp_path))
  assert configs(tmp_path, smoke=False, allow_provisional=True, data_dir=str(tmp_path))


def test_one_study_and_several_exclude_each_other(tmp_path):
  with pytest.raises(errors.UserError, match='--study runs one study and --studies several'):
    configs(tmp_path, study=2, studies=3)
