"""`algoeff reproduce` on trials that train nothing: what it runs, what it says, what it refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest
from published_logs import POINT, STEPS, loss, write_log, write_logs

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch import request, session
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.trial.config import TrialConfig, budget_of
from algorithmic_efficiency.trial.run_options import RunOptions
from algorithmic_efficiency.trial.stopping import StoppingRules

COMMAND = ('reproduce', 'quick_vision', '--submission', 'nadamw')


class FakeSession:
  """Trials whose loss falls at a pace that depends on their learning rate."""

  def __init__(self):
    self.configs: list[TrialConfig] = []
    self.status = 'finished'
    self.steps_made = STEPS[-1]

  def run_trials(self, configs, *, quiet):
    [config] = configs
    self.configs.append(config)
    steps = [step for step in config.options.eval_steps if step <= self.steps_made]
    pace = 3.0 * config.hyperparameters['learning_rate']
    if steps and not config.path.exists():
      write_log(config.path, {'validation/loss': loss(steps, 7, pace=pace)}, steps=steps)
    stop = 'step_limit' if self.status == 'finished' else 'failed'
    return [Outcome(folder=config.path, status=self.status, stop_reason=stop, reason='')]


@pytest.fixture
def fake(monkeypatch, tmp_path):
  found = FakeSession()
  monkeypatch.setattr(session, 'run_trials', found.run_trials)
  monkeypatch.chdir(tmp_path)
  return found


@pytest.fixture(autouse=True)
def _frameworks(monkeypatch):
  monkeypatch.setattr(
    'algorithmic_efficiency.launch.request.check_installed', lambda framework: None
  )


def reproduce(*flags) -> int:
  return cli.main([*COMMAND, '--against', 'logs', *map(str, flags)])


def test_the_point_of_the_logs_runs_at_their_steps(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs')
  assert reproduce('--suite', 'quick') == 0
  [config] = fake.configs
  assert (config.workload, config.framework, config.hyperparameters) == (
    'quick_vision',
    'jax',
    POINT,
  )
  assert (
    config.options.eval_steps == STEPS
    and config.options.stop_at == 'never'
    and config.ruleset == 'external'
  )
  out = capsys.readouterr().out
  assert 'Reproduced: nadamw on quick_vision (jax, quick) is inside the band of 4 logs' in out
  assert 'validation/loss' in out and '11 of 11' in out


def test_another_learning_rate_is_outside(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs', point={**POINT, 'learning_rate': 0.03})
  assert reproduce() == 1
  out = capsys.readouterr().out
  assert 'OUTSIDE' in out and 'with 1 of 1 metrics' in out


def test_neither_budget_nor_goal_ends_the_run(fake, tmp_path):
  write_logs(tmp_path / 'logs')
  reproduce()
  [config] = fake.configs
  suite = registry.suite('quick')
  budget = budget_of(registry.workload('quick_vision', 'quick'), suite, 'external')
  rules = StoppingRules.of(config, suite, budget)
  assert (rules.max_sec, rules.max_steps, rules.max_global_steps) == (None, None, STEPS[-1])
  assert rules.eval_steps == STEPS
  usual = StoppingRules.of(dataclasses.replace(config, options=RunOptions()), suite, budget)
  assert usual.max_steps == budget.max_steps
  assert TrialConfig.from_json(config.to_json()) == config
  assert config.record().options['eval_steps'] == list(STEPS)


def test_fewer_steps(fake, tmp_path):
  write_logs(tmp_path / 'logs')
  assert reproduce('--steps', 45) == 0
  assert fake.configs[0].options.eval_steps == (1, 10, 20, 30, 40)


def test_steps_are_those_of_the_log_with_the_most_rows_that_three_logs_span(fake, tmp_path):
  root = tmp_path / 'logs'
  for study, steps in enumerate([(1, 50), (1, 22, 41, 64), (1, 20, 40, 58), (5, 300)]):
    folder = root / f'study_{study}' / 'quick_vision_jax' / 'trial_1'
    write_log(folder, {'validation/loss': loss(steps, study)}, steps=steps)
  reproduce()
  assert fake.configs[0].options.eval_steps == (1, 20, 40, 58)


def test_json(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs', 5)
  assert reproduce('--json') == 0
  found = json.loads(capsys.readouterr().out)
  assert found['is_reproduced'] and len(found['logs']) == 5 and found['point'] == POINT
  [metric] = found['metrics']
  assert metric['metric'] == 'validation/loss' and metric['num_inside'] == 11
  assert metric['low'] < metric['value'] < metric['high']


def test_one_of_several_points_is_chosen(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs')
  other = {**POINT, 'learning_rate': 0.03}
  write_logs(tmp_path / 'logs' / 'other', 3, point=other)
  (tmp_path / 'logs' / 'other').rename(tmp_path / 'logs' / 'study_9')
  assert reproduce() == 2
  message = capsys.readouterr().err
  assert 'logs of 2. Choose with --point' in message and '(4 logs)' in message
  file = next((tmp_path / 'logs' / 'study_9').rglob('hparams.json'))
  assert reproduce('--point', file) == 1
  assert fake.configs[-1].hyperparameters == other


def test_the_run_itself_is_no_log(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs')
  assert reproduce('--experiment_dir', 'logs', '--json') == 0
  assert fake.configs[0].path.is_relative_to(tmp_path / 'logs')
  capsys.readouterr()
  assert reproduce('--experiment_dir', 'logs', '--json') == 0
  assert len(json.loads(capsys.readouterr().out)['logs']) == 4


def test_logs_without_a_point_are_of_self_tuning(fake, tmp_path, monkeypatch):
  write_logs(tmp_path / 'logs', point=None)
  monkeypatch.setattr(
    session,
    'run_trials',
    lambda configs, quiet: [
      fake.configs.append(configs[0])
      or Outcome(folder=configs[0].path, status='failed', stop_reason='failed', reason='')
    ],
  )
  assert reproduce() == 1
  assert fake.configs[0].ruleset == 'self' and fake.configs[0].hyperparameters is None


@pytest.mark.parametrize('status', ['failed', 'invalid'])
def test_a_run_that_fails_reproduces_nothing(fake, tmp_path, capsys, status):
  write_logs(tmp_path / 'logs')
  fake.status = status
  assert reproduce() == 1
  assert 'Not reproduced' in capsys.readouterr().out


def test_nor_does_one_that_ends_early(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs')
  fake.steps_made = 50
  assert reproduce() == 1
  assert 'ended after step 50 of 100' in capsys.readouterr().out


def test_damaged_logs_are_left_out_and_named(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs', 7)
  files = sorted((tmp_path / 'logs').rglob('eval_measurements.csv'))
  files[0].write_text(files[0].read_text()[:-9] + '\n')
  files[1].write_text('')
  files[2].write_text(files[2].read_text().replace('0.5,10,', '0.5,nine,'))
  lines = files[3].read_text().splitlines()
  files[3].write_text('\n'.join([*lines, lines[1]]) + '\n')
  assert reproduce() == 0
  out = capsys.readouterr().out
  assert 'band of 3 logs' in out and out.count('Left out: ') == 4
  for why in ('fields; it was left out', 'an empty file', "'nine'", 'its steps do not increase'):
    assert why in out
  files[4].write_text('')
  assert reproduce() == 2
  message = capsys.readouterr().err
  assert 'A band needs 3 logs of one point' in message and 'Left out: ' in message


def test_smoke_runs_and_invalid_trials_are_no_logs(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs', 5)
  facts = {
    'workload': 'quick_vision',
    'framework': 'jax',
    'submission': 'a',
    'suite': 'quick',
    'ruleset': 'external',
    'study': 1,
    'trial': 1,
  }
  folders = sorted((tmp_path / 'logs').glob('study_*/*/trial_1'))
  (folders[0] / 'trial.json').write_text(json.dumps({**facts, 'smoke': True}))
  (folders[1] / 'trial.json').write_text(json.dumps({**facts, 'status': 'invalid'}))
  assert reproduce() == 0
  out = capsys.readouterr().out
  assert 'band of 3 logs' in out and 'a smoke run' in out and 'an invalid trial' in out


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (('--submission', 'nadam'), "Did you mean 'nadamw'?"),
    (('--steps', '0'), '--steps must be positive'),
    (('--framework', 'pytorch'), 'no log of quick_vision_pytorch; it has: quick_vision_jax'),
    (('--point', 'nowhere.json'), 'could not be read'),
    (('--suite', 'quik'), "Did you mean 'quick'?"),
  ],
)
def test_mistakes(fake, tmp_path, capsys, flags, said):
  write_logs(tmp_path / 'logs')
  assert reproduce(*flags) == 2
  captured = capsys.readouterr()
  assert said in captured.err and captured.err.count('\n') == 1 and not captured.out
  assert not fake.configs and [path.name for path in tmp_path.iterdir()] == ['logs']


def test_logs_that_are_not_there(fake, tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    reproduce('--against', 'nowhere')
  assert 'argument --against: must be a directory' in capsys.readouterr().err


def test_mistakes_about_the_logs(fake, tmp_path, capsys):
  def says(*flags) -> str:
    assert reproduce(*flags) == 2
    return capsys.readouterr().err

  (tmp_path / 'logs').mkdir()
  assert 'it has: no log at all' in says()
  write_logs(tmp_path / 'logs', 2, steps=(20, 40))
  assert 'A band needs 3 logs of one point' in says()
  write_logs(tmp_path / 'logs' / 'more', 2, steps=(20, 40), workload='mnist_jax')
  for folder in (tmp_path / 'logs' / 'more').iterdir():
    folder.rename(tmp_path / 'logs' / f'mnist_{folder.name}')
  assert 'it has: mnist_jax, quick_vision_jax' in says('--framework', 'pytorch')
  write_log(
    tmp_path / 'logs' / 'study_3' / 'quick_vision_jax' / 'trial_1',
    {'validation/loss': [2.0, 1.0]},
    steps=(20, 40),
  )
  assert 'rows from step 20 to step 40; with --steps 19 there is none' in says('--steps', '19')
  (tmp_path / 'point.json').write_text('[1]')
  assert 'must be a JSON file with a point' in says('--point', 'point.json')
  (tmp_path / 'point.json').write_text('{"learning_rate": 1}')
  assert 'must be a point of the logs' in says('--point', 'point.json')


def test_logs_of_two_frameworks_need_a_choice(fake, tmp_path, capsys):
  write_logs(tmp_path / 'logs', 3)
  for folder in (tmp_path / 'logs').iterdir():
    write_log(
      folder / 'quick_vision_pytorch' / 'trial_1',
      {'validation/loss': loss(STEPS, 5)},
    )
  assert reproduce() == 2
  assert 'Choose with --framework' in capsys.readouterr().err
  assert reproduce('--framework', 'jax') == 0


def test_a_workload_of_several_suites_needs_a_choice(fake, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(request, 'check_data', lambda trials: None)
  write_logs(tmp_path / 'logs', workload='mnist_jax')
  command = ['reproduce', 'mnist', '--submission', 'nadamw', '--against', 'logs']
  assert cli.main(command) == 2
  assert 'do not say in which suite they ran' in capsys.readouterr().err
  assert cli.main([*command, '--suite', 'algoperf_v05']) == 0
  assert fake.configs[0].suite == 'algoperf_v05'
