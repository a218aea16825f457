"""`algoeff calibrate` on trials that train nothing: what it runs, in what order, what it says."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path

import pytest

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Target
from algorithmic_efficiency.experiments.calibration import robust
from algorithmic_efficiency.experiments.calibration import run as calibration
from algorithmic_efficiency.experiments.calibration.split_size import SplitSize
from algorithmic_efficiency.experiments.calibration.target_setting import Record
from algorithmic_efficiency.experiments.race import estimate
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.results import files, measurements, trial_record
from algorithmic_efficiency.results.race_files import PlannedTrials

WORKLOAD = 'quick_vision'
STEPS = 30
FLAGS = [
  '--trials',
  '3',
  '--seeds',
  '5',
  '--step_budget',
  str(STEPS),
  '--framework',
  'jax',
  '--seed',
  '5',
]


def _value(config):
  """What a trial reaches: the less, the larger its learning rate; a little more with each seed."""
  return 1 - config.hyperparameters['learning_rate'] / 2 + (config.seed % 97) / 1e3


class FakeBench:
  """Races in which a trial writes its rows at once; those in `failing` (name, number) fail.

  The best row is at two thirds of the budget; its validation loss is `_value`, and less where a
  trial races with a longer schedule.
  """

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
    number = config.study if config.submission in ('rerun', 'timed') else config.trial
    fails = (config.submission, number) in self.failing
    status = {'status': 'failed', 'stop_reason': 'failed'}
    if not fails:
      files.remove(config.path / measurements.LOG_FILE)
      log = measurements.RunLog.open(config.path, header={})
      steps = registry.workload(config.workload, config.suite).suites[config.suite].max_steps
      best = _value(config) * (1.0 if steps == STEPS else 0.9)
      for step, part in ((1, 9.0), (2 * steps // 3, 1.0), (steps, 1.1)):
        log.append_eval({'validation/loss': best * part, 'test/loss': best * part / 2}, step)
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
  target = Target(metric='loss', direction='min', validation=0.5, test=0.5)
  definitions = registry.workloads()
  changed = {
    name: dataclasses.replace(definitions[name], target=target)
    for name in (WORKLOAD, 'quick_vision_no_norm')
  }
  monkeypatch.setattr(registry, 'workloads', functools.cache(lambda: {**definitions, **changed}))
  found = FakeBench()
  monkeypatch.setattr(race_run, 'run', found.run)
  monkeypatch.setattr(estimate, 'from_probes', found.price)
  return found


def _calibrate(*more, submissions='adamw,momentum', workload=WORKLOAD):
  return cli.main(['calibrate', workload, '--submissions', submissions, *FLAGS, '--quiet', *more])


def _start_from(file, *more, workload=WORKLOAD, framework='jax'):
  words = ['calibrate', workload, '--from_record', str(file), '--framework', framework]
  registry._read_suites.clear()
  return cli.main([*words, '--quiet', *more])


def _record():
  return Record.read(Path('calibration', f'{WORKLOAD}_jax.json'))


def test_each_space_is_searched_and_the_best_point_runs_again_with_other_seeds(fake):
  assert _calibrate('--seed', '5') == 0
  search, rerun, timed = fake.races
  assert [entry.submission for entry in search.entries] == ['adamw', 'momentum']
  assert (search.studies, search.trials) == (1, 3)
  searched, reran, raced = fake.started[:6], fake.started[6:11], fake.started[11:]
  assert {config.submission for config in searched} == {'adamw', 'momentum'}
  best = min(searched, key=_value)
  assert len(reran) == 5 and rerun.studies == 5
  assert len(raced) == 10 and timed.studies == 10
  assert not any(race.is_weighed for race in fake.races)
  assert all(config.hyperparameters == best.hyperparameters for config in reran + raced)
  assert all(config.submission_path == best.submission_path for config in reran + raced)
  seeds = [config.seed for config in (*searched[::2], *reran, *raced)]
  assert len(set(seeds)) == 3 + 5 + 10


def _budget(config):
  return registry.workload(WORKLOAD, config.suite).suites[config.suite]


def test_no_trial_that_sets_a_target_stops_at_one_and_all_have_the_step_budget(fake):
  assert _calibrate() == 0
  for trial in fake.started[:11]:
    assert trial.options.stop_at == 'never'
    budget = _budget(trial)
    assert (budget.max_steps, budget.step_hint, budget.eval_period_steps) == (STEPS, STEPS, 1)
    assert Path(trial.suite_file).is_file()


@pytest.mark.parametrize(
  ('workload', 'expected'), [('wmt', True), ('quick_nmt', False), (WORKLOAD, False)]
)
def test_outputs_are_generated_only_for_a_target_that_needs_them(workload, expected):
  """Regression: each run generated translations twice, which took most of its time."""
  options = calibration._common(_asked(workload=workload), Path('suite.toml'))['options']
  assert options.generate == expected


def test_timed_trials_race_for_the_new_target_with_the_step_hint(fake):
  assert _calibrate('--eval_period_steps', '2') == 1
  record = _record()
  for trial in fake.started[11:]:
    assert trial.options.stop_at == 'validation'
    budget = _budget(trial)
    assert (budget.max_steps, budget.step_hint, budget.eval_period_steps) == (40, 40, 2)
    assert registry.workload(WORKLOAD, trial.suite).target.validation == record.target.validation
  # The row at step 26 is the first that is below the target.
  assert record.timing.steps == (26,) * 10
  assert record.timing.num_evals == 13


def test_a_target_that_is_not_accepted_is_told_and_recorded(fake, capsys):
  assert _calibrate('--eval_period_steps', '2') == 1
  out = capsys.readouterr().out
  assert 'The target is not accepted.' in out and 'there are 13' in out
  assert _record().faults


def test_the_figures_are_those_of_the_protocol(fake):
  assert _calibrate() == 0
  values = sorted(_value(config) for config in fake.started[6:11])
  record = _record()
  assert record.target.validation == pytest.approx(values[2], rel=1e-5)
  assert record.target.test == pytest.approx(values[2] / 2, rel=1e-5)
  assert record.target.validation >= values[2] and record.target.test >= values[2] / 2
  budget = record.protocol.budget
  assert (budget.step_hint, budget.max_steps, budget.eval_period_steps) == (40, 120, 1)
  assert [run.best_step for run in record.reruns] == [20] * 5
  assert record.present == registry.workload(WORKLOAD).target
  assert len(record.search) == 6 and len(record.reruns) == 5
  assert record.timing.spread == pytest.approx(robust.spread(values))
  assert record.timing.validation_size == SplitSize(num_examples=359, num_parts=359)
  assert record.timing.resolution == pytest.approx(record.target.validation / 359)
  assert '/' not in json.dumps(record.environment)


def test_another_framework_runs_the_best_point_again_with_the_same_seeds(fake):
  assert _calibrate() == 0
  first, reran = _record(), fake.started[6:11]
  del fake.started[:]
  assert _start_from('calibration/quick_vision_jax.json', framework='pytorch') == 0
  again = Record.read(Path('calibration', f'{WORKLOAD}_pytorch.json'))
  assert [one.hyperparameters for one in fake.started] == [reran[0].hyperparameters] * 5
  assert [one.seed for one in fake.started] == [one.seed for one in reran]
  assert {one.framework for one in fake.started} == {'pytorch'}
  assert again.target == first.target and again.protocol.budget == first.protocol.budget
  assert again.agreement.agree and again.timing is None and not again.search


def test_a_framework_that_does_not_agree_is_not_accepted(fake, capsys, monkeypatch):
  assert _calibrate() == 0
  monkeypatch.setattr(sys.modules[__name__], '_value', lambda config: 2 + config.seed % 97 / 1e3)
  assert _start_from('calibration/quick_vision_jax.json', framework='pytorch') == 1
  assert 'pytorch and jax differ by more than their noise' in capsys.readouterr().out


def test_a_variant_searches_the_best_point_of_its_base_and_two_learning_rates_beside_it(fake):
  assert _calibrate() == 0
  first = _record()
  del fake.started[:]
  variant = 'quick_vision_no_norm'
  assert _start_from('calibration/quick_vision_jax.json', workload=variant) == 0
  searched = fake.started[:3]
  rate = first.chosen.point['learning_rate']
  rates = sorted(one.hyperparameters['learning_rate'] for one in searched)
  assert rates == pytest.approx([rate / 2, rate, 2 * rate])
  others = [{**one.hyperparameters, 'learning_rate': rate} for one in searched]
  assert others == [first.chosen.point] * 3
  record = Record.read(Path('calibration', f'{variant}_jax.json'))
  assert len(record.search) == 3 and len(record.reruns) == 5 and len(record.timing.steps) == 10
  assert record.chosen.point['learning_rate'] == pytest.approx(2 * rate)
  assert record.protocol.budget == first.protocol.budget


def test_a_record_of_the_same_workload_and_framework_is_no_start(fake, capsys):
  assert _calibrate() == 0
  assert _start_from('calibration/quick_vision_jax.json') == cli.USER_ERROR
  assert 'must be of another framework or another workload' in capsys.readouterr().err


def test_a_record_whose_target_is_not_accepted_is_no_start(fake, capsys):
  assert _calibrate('--eval_period_steps', '2') == 1
  file = 'calibration/quick_vision_jax.json'
  capsys.readouterr()
  assert _start_from(file, framework='pytorch') == cli.USER_ERROR
  assert 'whose target is accepted' in capsys.readouterr().err


def test_numbers_beside_a_record_are_refused_and_missing_ones_are_named(fake, capsys):
  assert _calibrate() == 0
  file = 'calibration/quick_vision_jax.json'
  assert _start_from(file, '--seeds', '3', framework='pytorch') == cli.USER_ERROR
  assert 'are those of --from_record; leave out --seeds' in capsys.readouterr().err
  assert cli.main(['calibrate', WORKLOAD, '--framework', 'jax', '--seeds', '3']) == cli.USER_ERROR
  assert 'needs --submissions, --trials, --step_budget; or use' in capsys.readouterr().err


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
  assert _record().protocol.num_seeds == 5


def test_it_prints_what_to_paste_and_that_the_target_is_accepted(fake, capsys):
  assert _calibrate() == 0
  out = capsys.readouterr().out
  assert "target=Target(metric='loss', direction='min', validation=" in out
  assert 'Budget(step_hint=40, max_steps=120, eval_period_steps=1)' in out
  assert 'The target is accepted.' in out


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


def test_the_plan_is_that_of_the_search_and_of_the_later_runs_at_their_dearest(fake):
  """Regression: the timed runs were estimated at the steps of the search, not at the step hint."""
  expected = calibration.estimate(_asked())
  assert expected.num_runs == 21
  search, dearest = 3 * 36 + 3 * 18, 36
  # Five reruns in three rounds of two, and ten timed runs in five rounds.
  assert expected.device_hours.expected == pytest.approx((search + 15 * dearest) / 3600)
  at_most = 2 * (search + 5 * dearest + 10 * 4 / 3 * dearest) / 3600
  assert expected.device_hours.at_most == pytest.approx(at_most)
  assert expected.wall_sec.expected == pytest.approx(search / 2 + (3 + 5) * dearest)
  assert [one.submission for one in expected.trials[2:]] == ['rerun', 'timed']
  assert not fake.started


def test_what_is_done_is_not_planned_again(fake):
  calibration.run(_asked(), quiet=True)
  assert calibration.estimate(_asked()) is None


def test_the_plan_is_shown_first_and_a_dearer_one_is_refused(fake, capsys):
  assert _calibrate('--max_hours', '0.01') == cli.USER_ERROR
  assert 'may take 0.457 device-hours' in capsys.readouterr().err
  assert not fake.started and not Path('calibration').exists()
  words = ['calibrate', WORKLOAD, '--submissions', 'adamw,momentum', *FLAGS, '--max_hours', '1']
  assert cli.main(words) == 0
  assert 'rerun' in capsys.readouterr().out
  assert len(fake.started) == 21


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
    (['--budget_factor', '1'], '--budget_factor must be at least 4/3, the factor of the step'),
    (['--eval_period_steps', '31'], 'must be from 1 to --step_budget, 30; it is 31'),
    (['--step_budget', '1'], '--step_budget must be at least 2; it is 1'),
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


def test_a_record_that_is_not_there_starts_nothing(fake, capsys):
  assert _start_from('nowhere.json') == cli.USER_ERROR
  assert 'nowhere.json does not exist' in capsys.readouterr().err
  assert not fake.started


def test_a_submission_may_be_a_folder_outside_the_tree(fake, tmp_path):
  folder = tmp_path / 'elsewhere' / 'mine'
  shutil.copytree(registry.submission('momentum', 'external').folder, folder)
  assert _calibrate(submissions='./elsewhere/mine') == 0
  assert {trial.submission for trial in fake.started} == {'mine', 'rerun', 'timed'}
  assert {Path(trial.submission_path).parent for trial in fake.started} == {folder}


def test_another_step_budget_in_the_same_folder_is_refused(fake, capsys):
  assert _calibrate() == 0
  assert _calibrate('--step_budget', '31') == cli.USER_ERROR
  assert 'A calibration must continue with the options' in capsys.readouterr().err
