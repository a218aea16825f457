"""`algoeff calibrate` on trials that train nothing: what it runs, in what order, what it says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.calibration import run as calibration
from algorithmic_efficiency.experiments.calibration.target_setting import Record
from algorithmic_efficiency.experiments.race import estimate
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.results.race_files import PlannedTrials

WORKLOAD = 'quick_vision'
FLAGS = ['--trials', '3', '--seeds', '5', '--step_budget', '30', '--framework', 'jax']


def _value(config):
  """What a trial reaches: the more, the larger its learning rate; a little more with each seed."""
  return config.hyperparameters['learning_rate'] / 100 + (config.seed % 97) / 1e6


class FakeBench:
  """Races in which a trial writes three rows at once; those in `failing` (name, number) fail."""

  def __init__(self):
    self.races = []
    self.started = []
    self.failing = set()

  def run(self, race, *, retry_failed, quiet):
    self.races.append(race)
    configs = expand(race)
    for trial in configs:
      record = trial_record.read_trial(trial.path)
      if record is None or (record.status == 'failed' and retry_failed):
        self._run(trial)
    outcomes = [
      Outcome(folder=p.path, status='finished', stop_reason='', reason='') for p in configs
    ]
    return race_run.RaceResult(
      configs=tuple(configs), outcomes=tuple(outcomes), num_left_failed=0, problems=()
    )

  def price(self, race, limits, *, retry_failed):
    """Every trial takes 36 s with adamw and 18 s with the others, at most twice that."""
    configs = expand(race)
    sec = {name: 36.0 if name == 'adamw' else 18.0 for name in {p.submission for p in configs}}
    hours = sum(sec[p.submission] for p in configs) / 3600
    planned = [
      PlannedTrials(
        submission=name,
        workload=WORKLOAD,
        framework='jax',
        num_trials=race.trials,
        expected_sec=each,
        at_most_sec=2 * each,
        off_clock_sec=0.0,
        basis='said',
      )
      for name, each in sec.items()
    ]
    return estimate.Estimate(
      trials=tuple(planned),
      num_runs=len(configs),
      num_parallel=2,
      num_devices=1,
      wall_sec=estimate.Bounds(expected=1800 * hours, at_most=3600 * hours),
      device_hours=estimate.Bounds(expected=hours, at_most=2 * hours),
      price=None,
      basis='what was said',
      left_out=('nothing',),
    )

  def _run(self, config):
    self.started.append(config)
    number = config.study if config.submission == 'rerun' else config.trial
    fails = (config.submission, number) in self.failing
    status = {'status': 'failed', 'stop_reason': 'failed'}
    if not fails:
      files.remove(config.path / measurements.LOG_FILE)
      log = measurements.RunLog.open(config.path, header={})
      for step, part in ((1, 0.1), (20, 1.0), (30, 0.9)):
        row = {
          'validation/accuracy': _value(config) * part,
          'test/accuracy': _value(config) * part / 2,
        }
        log.append_eval(row, step)
      log.close()
      status = {'status': 'finished', 'stop_reason': 'budget_spent'}
    files.make_folder(config.path)
    environment = {
      'host_hash': 'f',
      'devices': {'compilation_cache': '/a/path', 'num_devices': 1},
    }
    dataclasses.replace(config.record(), environment=environment, **status).write(config.path)


@pytest.fixture
def fake(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  found = FakeBench()
  monkeypatch.setattr(race_run, 'run', found.run)
  monkeypatch.setattr(estimate, 'from_probes', found.price)
  return found


def _calibrate(*more, submissions='adamw,momentum', workload=WORKLOAD):
  return cli.main(['calibrate', workload, '--submissions', submissions, *FLAGS, '--quiet', *more])


def _record():
  return Record.read(Path('calibration', f'{WORKLOAD}_jax.json'))


def test_each_space_is_searched_and_the_best_point_runs_again_with_other_seeds(fake):
  assert _calibrate('--seed', '5') == 0
  search, rerun = fake.races
  assert [entry.submission for entry in search.entries] == ['adamw', 'momentum']
  assert (search.studies, search.trials) == (1, 3)
  searched, reran = fake.started[:6], fake.started[6:]
  assert {config.submission for config in searched} == {'adamw', 'momentum'}
  best = max(searched, key=_value)
  assert len(reran) == 5 and rerun.studies == 5
  assert all(config.hyperparameters == best.hyperparameters for config in reran)
  assert all(config.submission_path == best.submission_path for config in reran)
  seeds = [config.seed for config in (*searched[::2], *reran)]
  assert len(set(seeds)) == 3 + 5


def test_no_trial_stops_at_a_goal_and_all_have_the_step_budget(fake):
  assert _calibrate() == 0
  for trial in fake.started:
    assert trial.options.stop_at == 'never'
    budget = registry.workload(WORKLOAD, trial.suite).suites[trial.suite]
    assert (budget.max_steps, budget.step_hint) == (30, 30)
    assert Path(trial.suite_file).is_file()


def test_the_figures_are_those_of_the_protocol(fake):
  assert _calibrate() == 0
  values = sorted(_value(config) for config in fake.started[6:])
  record = _record()
  assert record.target.validation == pytest.approx(values[2], rel=1e-5)
  assert record.target.test == pytest.approx(values[2] / 2, rel=1e-5)
  assert record.target.validation <= values[2] and record.target.test <= values[2] / 2
  assert record.budget.max_steps == record.budget.step_hint == 40
  assert [run.best_step for run in record.reruns] == [20] * 5
  assert record.present == registry.workload(WORKLOAD).target
  assert len(record.search) == 6 and len(record.reruns) == 5
  assert '/' not in json.dumps(record.environment)


def test_the_command_of_the_record_gives_it_again(fake, capsys):
  assert _calibrate() == 0
  first = _record()
  again = [*first.command.split()[1:], '--quiet', '--experiment_dir', 'other']
  registry._read_suites.clear()
  assert cli.main(again) == 0
  assert _record() == first


def test_the_same_command_goes_on_where_it_was(fake):
  assert _calibrate() == 0
  first, started = _record(), len(fake.started)
  assert _calibrate() == 0
  assert _record() == first
  assert len(fake.started) == started


def test_a_failed_trial_of_the_search_counts_as_nothing(fake):
  fake.failing = {('momentum', number) for number in (1, 2, 3)}
  assert _calibrate() == 0
  assert {run.submission for run in _record().search if run.best_validation is None} == {'momentum'}
  assert fake.started[-1].submission_path.endswith('adamw/submission_jax.py')


def test_a_failed_rerun_sets_nothing_until_it_has_run(fake, capsys):
  fake.failing = {('rerun', 2)}
  assert _calibrate() == cli.USER_ERROR
  assert 'Every seed of the rerun counts' in capsys.readouterr().err
  assert not Path('calibration').exists()
  fake.failing = set()
  assert _calibrate('--retry_failed') == 0
  assert _record().num_seeds == 5


def test_it_prints_what_to_paste_and_whether_an_earlier_record_agrees(fake, capsys):
  assert _calibrate() == 0
  out = capsys.readouterr().out
  assert "target=Target(metric='accuracy', direction='max', validation=" in out
  assert 'Budget(step_hint=40, max_steps=40)' in out
  assert _calibrate('--compare', f'calibration/{WORKLOAD}_jax.json') == 0
  assert 'jax and jax agree within their noise' in capsys.readouterr().out


def _asked(**changes):
  fields = {
    'workload': WORKLOAD,
    'submissions': ('adamw', 'momentum'),
    'framework': 'jax',
    'trials': 3,
    'seeds': 5,
    'step_budget': 30,
    **changes,
  }
  return calibration.Calibration(**fields)


def test_the_plan_is_that_of_the_search_and_of_the_rerun_at_its_dearest(fake):
  # 3 x 36 s + 3 x 18 s, then 5 x 36 s; at most twice that; two at a time, five in three rounds.
  expected = calibration.estimate(_asked())
  assert expected.num_runs == 11
  assert expected.device_hours.expected == pytest.approx((3 * 36 + 3 * 18 + 5 * 36) / 3600)
  assert expected.device_hours.at_most == pytest.approx(2 * (3 * 36 + 3 * 18 + 5 * 36) / 3600)
  assert expected.wall_sec.expected == pytest.approx((3 * 36 + 3 * 18) / 2 + 3 * 36)
  assert not fake.started


def test_what_is_done_is_not_planned_again(fake):
  calibration.run(_asked(), quiet=True)
  assert calibration.estimate(_asked()) is None


def test_the_plan_is_shown_first_and_a_dearer_one_is_refused(fake, capsys):
  assert _calibrate('--max_hours', '0.01') == cli.USER_ERROR
  assert 'may take 0.19 device-hours' in capsys.readouterr().err
  assert not fake.started and not Path('calibration').exists()
  words = ['calibrate', WORKLOAD, '--submissions', 'adamw,momentum', *FLAGS, '--max_hours', '1']
  assert cli.main(words) == 0
  assert 'rerun' in capsys.readouterr().out
  assert len(fake.started) == 11


@pytest.mark.parametrize('provisional', [True, False])
def test_a_goal_that_is_not_provisional_is_not_changed_silently(
  fake, capsys, monkeypatch, provisional
):
  found = registry.workload(WORKLOAD)
  target = dataclasses.replace(found.target, provisional=provisional)
  changed = {**registry.workloads(), WORKLOAD: dataclasses.replace(found, target=target)}
  monkeypatch.setattr(registry, 'workloads', lambda: changed)
  assert _calibrate() == 0
  assert ('is not provisional' in capsys.readouterr().out) is not provisional


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    (['--trials', '0'], '--trials must be at least 1; it is 0'),
    (['--trials', '99999999999'], 'runs at most 100,000 trials'),
    (['--seeds', '1'], '--seeds must be at least 2; it is 1'),
    (['--budget_factor', '1/2'], '--budget_factor must be at least 1; it is 1/2'),
    (['--step_budget', '1'], '--step_budget must be at least 2; it is 1'),
    (['--compare', 'nowhere.json'], 'nowhere.json does not exist'),
    (['--max_hours', '0'], '--max_hours must be positive'),
    (['--workers', '0'], '--workers must be positive'),
  ],
)
def test_bad_numbers_start_nothing(fake, capsys, more, message):
  assert _calibrate(*more) == cli.USER_ERROR
  assert message in capsys.readouterr().err
  assert not fake.started


def test_a_factor_that_is_no_number_starts_nothing(fake, capsys):
  with pytest.raises(SystemExit) as end:
    _calibrate('--budget_factor', '1/0')
  assert end.value.code == cli.USER_ERROR
  assert "argument --budget_factor: must be a number; it is '1/0'" in capsys.readouterr().err
  assert not fake.started


def test_unknown_names_start_and_leave_nothing(fake, capsys):
  assert _calibrate(workload='quick_vison') == cli.USER_ERROR
  assert "Did you mean 'quick_vision'" in capsys.readouterr().err
  assert _calibrate(submissions='adamw,momentun') == cli.USER_ERROR
  assert "Did you mean 'momentum'" in capsys.readouterr().err
  assert not list(Path().iterdir())


def test_a_record_that_does_not_compare_is_refused_before_anything_starts(fake, capsys):
  assert _calibrate() == 0
  started = len(fake.started)
  again = ('--step_budget', '31', '--experiment_dir', 'other')
  assert _calibrate(*again, '--compare', f'calibration/{WORKLOAD}_jax.json') == cli.USER_ERROR
  assert 'compare where step_budget is the same; these have 31 and 30' in capsys.readouterr().err
  assert len(fake.started) == started


def test_a_submission_may_be_a_folder_outside_the_tree(fake, tmp_path):
  folder = tmp_path / 'elsewhere' / 'mine'
  shutil.copytree(registry.submission('momentum', 'external').folder, folder)
  assert _calibrate(submissions='./elsewhere/mine') == 0
  assert {trial.submission for trial in fake.started} == {'mine', 'rerun'}
  assert {Path(trial.submission_path).parent for trial in fake.started} == {folder}


def test_another_step_budget_in_the_same_folder_is_refused(fake, capsys):
  assert _calibrate() == 0
  assert _calibrate('--step_budget', '31') == cli.USER_ERROR
  assert 'A calibration must continue with the options' in capsys.readouterr().err
