"""The command line from Python: what its values mean, and what is refused."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

import pytest
from scoring_runs import hit_at, write_trial

from algorithmic_efficiency import api, errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.experiments.check import run as check
from algorithmic_efficiency.experiments.race import race as races
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.launch import request, session
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial.config import TrialConfig


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrialConfig]:
  """The trials that would be run."""
  found: list[TrialConfig] = []
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.setattr(session, 'run_trials', lambda trials, quiet: found.extend(trials) or [])
  return found


def run(folder: Path, **options: Any) -> None:
  fields = {'framework': 'jax', 'submission': 'nadamw', 'ruleset': 'self', 'smoke': True}
  api.run('quick_vision', **{**fields, 'experiment_dir': folder, **options})


def test_flags_of_the_command_are_taken_as_they_are(started, tmp_path):
  run(tmp_path, num_threads=1, platform='cpu', stop_at='never', splits=['validation'], trials=2)
  assert len(started) == 2
  assert started[0].devices.num_threads == 1 and started[0].devices.platform == 'cpu'
  assert started[0].options.splits == ('validation',) and started[0].options.stop_at == 'never'
  assert started[0].path.is_relative_to(tmp_path)


def test_options_have_the_names_of_their_flags(started, tmp_path):
  run(tmp_path, log='tensorboard', max_steps=5)
  assert started[0].options.trackers == ('tensorboard',)
  assert started[0].options.max_global_steps == 5


def test_an_optimizer_is_named_as_under_the_command(started, tmp_path, monkeypatch):
  calls: list[str] = []
  monkeypatch.setattr(by_name, 'submission_for', lambda call: calls.append(call) or 1 / 0)
  with pytest.raises(ZeroDivisionError):
    api.run('quick_vision', optimizer='a.B', hparam={'lr': 1e-3}, schedule='wsd')
  assert calls == ['a.B(lr=0.001; schedule=wsd)']


def test_pytorch_has_a_process_for_each_device_as_under_the_command(started, tmp_path):
  run(tmp_path, framework='pytorch', platform='cpu', num_devices=2)
  assert started[0].devices.world_size == 2
  run(tmp_path, framework='pytorch', devices=Devices(num_devices=2), seed=1, experiment='other')
  assert started[1].devices.world_size == 1  # as it was given


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'trials': '3'}, "trials is '3': Expected int, got str"),
    ({'trials': 1.5}, 'trials is 1.5: Expected int, got float'),
    ({'trials': None}, 'trials is None: Expected int'),
    ({'studies': True}, 'studies is True: Expected int, got bool'),
    ({'seed': 'x'}, "seed is 'x': Expected int | null, got str"),
    ({'ruleset': 'slef'}, "ruleset is 'slef': Invalid enum value"),
    ({'experiment': 3}, 'experiment is 3: Expected str | null, got int'),
    ({'devices': 'cpu'}, "devices is 'cpu': Expected object, got str"),
    ({'submission': None}, 'with one of --submission, --submission_path and --optimizer'),
    ({'submission': None, 'optimizer': 'a.b', 'warmup': 2}, 'warmup must be a number of at least'),
    ({'optimizer': 'a.b'}, 'with one of --submission'),
    ({'framework': None}, 'add --framework'),
    ({'log': 'tensorbord'}, "There is no tracker 'tensorbord'"),
    ({'trails': 3}, "There is no option 'trails'. Did you mean 'trials'?"),
    ({'max_global_steps': math.nan}, '--max_global_steps must be a whole number; it is nan'),
    ({'heartbeat_timeout_sec': math.inf}, '--heartbeat_timeout_sec must be a finite number'),
    ({'heartbeat_timeout_sec': 'x'}, '--heartbeat_timeout_sec must be a finite number'),
    ({'num_threads': 1.0}, '--num_threads must be a whole number; it is 1.0'),
    ({'num_threads': 0}, '--num_threads must be positive; it is 0'),
    ({'platform': 'cpuu'}, "Did you mean 'cpu'?"),
    ({'splits': 'validation'}, '--splits must be a tuple of names'),
    ({'smoke': 'no'}, "--smoke must be true or false; it is 'no'"),
    ({'trials': 10**30}, '--trials must be below 2^63'),
  ],
)
def test_what_is_wrong_is_the_users_mistake(options, message, started, tmp_path):
  with pytest.raises(errors.UserError) as found:
    run(tmp_path, **options)
  assert message in str(found.value)
  assert not started and not list(tmp_path.iterdir())


def race(folder: Path, **options: Any) -> None:
  fields = {'submissions': ['nadamw'], 'frameworks': ['jax'], 'ruleset': 'self'}
  api.bench('quick', **{**fields, 'smoke': True, 'experiment_dir': folder, **options})


def test_a_race_takes_flags_too(monkeypatch, tmp_path):
  asked: list[races.Race] = []
  result = race_run.RaceResult
  monkeypatch.setattr(
    race_run, 'run', lambda race, **_: asked.append(race) or result.__new__(result)
  )
  monkeypatch.setattr(api, 'Trial', None)
  with pytest.raises(AttributeError):  # there is no result
    race(tmp_path, num_threads=1, workloads=['quick_vision'])
  assert asked[0].devices == Devices(num_threads=1)
  assert asked[0].workloads == ('quick_vision',) and asked[0].options.smoke


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'submissions': [3]}, 'submissions must be a list of names; it is [3]'),
    ({'submissions': 3}, 'submissions must be a list of names; it is 3'),
    ({'frameworks': 'jax'}, "frameworks must be a list of names; it is the text 'jax'"),
    ({'submissions': ['=nadamw']}, "NAME=SUBMISSION; '=nadamw' lacks one"),
    ({'workers': '2'}, "workers is '2': Expected int | null, got str"),
    ({'workloads': 'quick_vision'}, "workloads is 'quick_vision': Expected array | null"),
    ({'full_eval_every': 0}, '--full_eval_every must be positive; it is 0'),
    ({'worker': 2}, "Did you mean 'workers'?"),
  ],
)
def test_what_is_wrong_with_a_race_is_the_users_mistake(options, message, tmp_path):
  with pytest.raises(errors.UserError) as found:
    race(tmp_path, **options)
  assert message in str(found.value)
  assert not list(tmp_path.iterdir())


# The other commands.


@pytest.fixture
def runs(tmp_path: Path) -> Path:
  """Runs of two submissions, the first of which is faster."""
  for name, time in (('a', 10.0), ('b', 20.0)):
    for workload in ('ogbg', 'fastmri'):
      write_trial(tmp_path / 'runs', name, workload, hit_at(workload, time))
  return tmp_path / 'runs'


def test_a_score_is_a_frame_and_has_a_view(runs):
  board = api.score(runs, suite='algoperf_v05', workloads=['ogbg', 'fastmri'], resamples=5)
  assert list(board.score_table().index) == ['a', 'b'] and '<table' in board._repr_html_()
  assert {path.name for path in runs.iterdir()} == {'a', 'b'}


def test_a_score_writes_where_it_is_told_to(runs, tmp_path):
  options = {'workloads': ['ogbg'], 'resamples': 5, 'no_report': True}
  api.score(runs, suite='algoperf_v05', output_dir=tmp_path / 'out', **options)
  assert (tmp_path / 'out' / 'leaderboard.json').is_file()


def test_a_comparison_is_a_sentence_and_a_frame(runs):
  found = api.compare('a', 'b', runs, suite='algoperf_v05')
  assert str(found).startswith('Undecided between a and b')
  assert list(found.frame().verdict) == [found.verdict.verdict] == ['undecided']
  assert html.escape(str(found)) in found._repr_html_()


def test_a_plan_has_a_row_for_each_workload(tmp_path):
  plan = api.plan(
    'algoperf_a100',
    submissions=['nadamw'],
    framework='jax',
    ruleset='self',
    from_budget=True,
    workloads=['imagenet_vit'],
    experiment_dir=tmp_path,
  )
  assert list(plan.frame().workload) == ['imagenet_vit'] and 'trials' in str(plan)
  assert 'imagenet_vit' in plan._repr_html_()


def test_a_check_has_a_row_for_each_place(monkeypatch):
  monkeypatch.setattr(check, 'run', lambda asked, on_row: report(asked))
  found = api.check('nadamw', framework='jax', workloads=['quick_vision'])
  assert list(found.frame().checked) == ['sources'] and found.frame().rules[0] == 'pass'
  assert 'no error' in found._repr_html_()


def report(asked: check.Check) -> check.CheckReport:
  assert asked.frameworks == ('jax',) and asked.workloads == ('quick_vision',)
  row = check.CheckRow(title='sources', framework='jax', checked=frozenset({'rules'}))
  return check.CheckReport(submission=asked.submission, ruleset='self', rows=(row,))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda runs: api.score(runs, suit='quick'), "no option 'suit'. Did you mean 'suite'?"),
    (lambda runs: api.score(runs, resamples=0), 'resamples must be positive; it is 0.'),
    (lambda runs: api.score(runs, strict='yes'), "strict must be true or false; it is 'yes'"),
    (lambda runs: api.score(runs / 'none'), 'runs must be a directory'),
    (lambda runs: api.score(runs, axis='second'), "no choice of axis 'second'. Did you mean 'sec"),
    (lambda runs: api.compare('a', 'c', runs, suite='algoperf_v05'), "the runs 'c'"),
    (lambda runs: api.plan('quick', submissions=[]), 'A race needs a submission'),
    (lambda runs: api.plan('qick', submissions=['nadamw']), "Did you mean 'quick'"),
    (lambda runs: api.check('nadamw', workloads=['quick_visoin']), "mean 'quick_vision'"),
  ],
)
def test_what_is_wrong_with_their_options_is_the_users_mistake(call, message, runs):
  with pytest.raises(errors.UserError) as found:
    call(runs)
  assert message in str(found.value)


def test_trials_have_a_frame_and_a_view(runs, tmp_path):
  for number in (10, 2):
    folder = tmp_path / 'own' / f'trial_{number}'
    folder.mkdir(parents=True)
    TrialRecord(
      workload='mnist',
      framework='jax',
      submission='a',
      suite='quick',
      ruleset='self',
      study=1,
      trial=number,
    ).write(folder)
  found = api.trials(tmp_path / 'own')
  assert list(found.frame().trial) == [2, 10] and '<pre>2 trials</pre>' in found._repr_html_()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: api.plan('quick', submissions=None), 'submissions must be given'),  # type: ignore[arg-type]
    (lambda: api.score(None), 'runs must be given'),  # type: ignore[arg-type]
    (lambda: api.score('.', path=3), 'path must be text or a list; it is 3'),
    (lambda: api.score('.', path=[3]), 'path must be text or a list'),
    (lambda: api.score('.', workload='a', workloads='b'), 'another name of workloads; give one'),
    (lambda: api.trials(None), 'read from a folder; None is none'),  # type: ignore[arg-type]
  ],
)
def test_values_that_no_flag_can_have_are_refused(call, message):
  with pytest.raises(errors.UserError, match=message):
    call()


def test_a_trial_is_made_of_text_too(tmp_path):
  trial = api.Trial(str(tmp_path))  # type: ignore[arg-type]
  for read in (lambda: trial.record, trial.rows):
    with pytest.raises(errors.UserError, match=str(tmp_path)):
      read()
  with pytest.raises(errors.UserError, match='no kind of rows'):
    trial.rows(3)  # type: ignore[arg-type]
