"""`algoeff bench` as a user types it: what its words mean, what it says, how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import fake_race
import pytest
from fake_worker import SESSIONS_FILE

from algorithmic_efficiency.cli import _flags, _interim_report, _race, main, plan, score
from algorithmic_efficiency.experiments.race.estimate import Bounds, Estimate
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch import local, request
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import Selection
from scoring import console, report

GOOD = {
  'suite': 'quick',
  'submissions': 'nadamw,twin=nadamw',
  'ruleset': 'self',
  'frameworks': 'jax',
  'workloads': 'quick_vision',
  'studies': '1',
}

SECONDS = """
name = "mine"
title = "A race in seconds"
axis = "seconds"
hardware = "this machine"

[rulesets.self]
studies = 1

[workloads.quick_vision]
max_sec = 10.0
eval_period_sec = 5.0
step_hint = 600
"""


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
  monkeypatch.setattr(local, 'WORKER', fake_race.WORKER)
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.chdir(tmp_path)


def words(*flags: str, **changes: str | None) -> list[str]:
  named = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
  return [
    'bench',
    *(part for name, value in named.items() for part in (f'--{name}', value)),
    *flags,
  ]


def race(*given: str) -> Race:
  return _race.race_of(parsed(*given))


def parsed(*flags: str, **changes: str | None) -> argparse.Namespace:
  parser = _flags.Parser()
  _race.race_arguments(parser)
  return parser.parse_args(words(*flags, **changes)[1:])


class TestWords:
  def test_names_by_which_submissions_are_scored(self):
    assert race().entries == (
      RaceSubmission(submission='nadamw'),
      RaceSubmission(submission='nadamw', name='twin'),
    )

  def test_calls_of_optimizers_have_commas_of_their_own(self):
    given = 'nadamw, sgd=torch.optim.SGD(lr=0.1, momentum=0.9),optax.lion(1e-3; schedule=wsd)'
    asked = _race.race_of(parsed(submissions=given))
    assert asked.entries == (
      RaceSubmission(submission='nadamw'),
      RaceSubmission(submission='torch.optim.SGD(lr=0.1, momentum=0.9)', name='sgd'),
      RaceSubmission(submission='optax.lion(1e-3; schedule=wsd)'),
    )

  def test_a_path_may_stand_behind_a_name(self):
    assert RaceSubmission.parse('mine=./some/submission.py') == RaceSubmission(
      submission='./some/submission.py', name='mine'
    )

  def test_nothing_is_spared_unless_asked_for(self):
    found = race().options
    assert (found.stop_at, found.full_eval_every, found.stop_on_divergence) == ('both', 1, None)
    assert found.splits == ('eval_train', 'validation', 'test')
    flags = ('--splits', 'validation', '--stop_at', 'validation', '--full_eval_every', '4')
    spared = race(*flags).options
    assert (spared.splits, spared.stop_at) == (('validation',), 'validation')
    assert spared.full_eval_every == 4

  def test_the_hard_limit_is_that_of_every_trial(self, tmp_path):
    flags = ('--heartbeat_timeout_sec', '30', '--experiment_dir', str(tmp_path))
    assert {config.heartbeat_timeout_sec for config in expand(race(*flags))} == {30.0}

  def test_frameworks_are_those_that_are_installed(self, monkeypatch):
    monkeypatch.setattr(request, 'installed', lambda: ('pytorch',))
    assert _race.race_of(parsed(frameworks=None)).frameworks == ('pytorch',)

  def test_no_framework_at_all(self, monkeypatch):
    monkeypatch.setattr(request, '_missing', lambda framework: ['jax'])
    with pytest.raises(request.errors.UserError, match='No framework is installed'):
      request.installed()


class TestMistakes:
  @pytest.mark.parametrize(
    ('flags', 'changes', 'part'),
    [
      ((), {'suite': 'quik'}, "Did you mean 'quick'"),
      ((), {'suite': 'mine.toml'}, 'mine.toml'),
      ((), {'submissions': 'nadmw'}, "Did you mean 'nadamw'"),
      ((), {'submissions': ''}, 'A race needs a submission'),
      ((), {'submissions': 'nadamw,nadamw'}, 'NAME=SUBMISSION'),
      ((), {'workloads': 'quick_visoin'}, "Did you mean 'quick_vision'"),
      ((), {'studies': '0'}, '--studies must be positive'),
      ((), {'trials': '3'}, 'Under self tuning a study has one trial; --trials is 3'),
      ((), {'full_eval_every': '0'}, '--full_eval_every must be positive'),
      ((), {'workers': '0'}, '--workers must be positive'),
      (('--heartbeat_timeout_sec', '0'), {}, '--heartbeat_timeout_sec must be positive'),
      ((), {'splits': 'validatoin'}, "Did you mean 'validation'"),
      ((), {'ruleset': 'both'}, 'invalid choice'),
      ((), {'suite': None}, '--suite'),
      (('--resume', '--overwrite'), {}, 'exclude each other'),
    ],
  )
  def test_one_line_and_nothing_started(self, flags, changes, part, tmp_path, capsys):
    try:
      code = main(words(*flags, '--allow_provisional', **changes))
    except SystemExit as end:
      code = end.code
    assert code == 2
    err = capsys.readouterr().err
    assert part in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


class TestCap:
  @pytest.mark.parametrize(('cap', 'is_dearer'), [('1.9', True), ('2', False)])
  def test_a_race_that_may_be_dearer_is_not_started(
    self, cap, is_dearer, tmp_path, capsys, monkeypatch
  ):
    hours = Bounds(expected=1.0, at_most=2.0)
    estimate = Estimate(
      trials=(),
      num_runs=1,
      num_parallel=1,
      num_devices=1,
      price=None,
      wall_sec=hours,
      device_hours=hours,
      basis='',
      left_out=(),
    )
    monkeypatch.setattr(plan, 'probed', lambda race, limits, retry_failed: estimate)
    (tmp_path / 'a.py').write_text('{}')
    code = main(words('--smoke', '--quiet', submissions='a.py', max_hours=cap))
    assert code == (2 if is_dearer else 0)
    assert ('may take 2 device-hours' in capsys.readouterr().err) == is_dearer
    assert (tmp_path / 'races').exists() != is_dearer


class TestEnd:
  def entries(self, folder: Path, **scripts: str) -> str:
    made = fake_race.race(folder, {name: {'then': then} for name, then in scripts.items()})
    return ','.join(entry.submission for entry in made.entries)

  def scores(self, monkeypatch: pytest.MonkeyPatch, take: Callable[[argparse.Namespace], None]):
    """Has the arguments of scores taken, instead of scoring."""
    monkeypatch.setattr(score, 'written', lambda args: (take(args), Path('scores')))
    monkeypatch.setattr(console, 'show_outcome', lambda result: None)
    monkeypatch.setattr(_interim_report.InterimReports, 'take', lambda self, tally: None)

  def test_plain_steps_are_scored_as_such_and_not_timed(self, tmp_path, monkeypatch):
    """By `score` later, too: the race remembers it until one that times steps takes its place."""
    self.scores(monkeypatch, lambda args: None)
    given = self.entries(tmp_path, a='finish', b='finish')
    command = words('--quiet', '--allow_provisional', '--plain_steps', submissions=given)
    assert main(command) == 0
    race = tmp_path / 'races' / 'quick_self'
    assert not (race / race_files.COSTS_FILE).exists()
    found = race_files.read_selection(race)
    assert found.plain_steps and not Selection(suite='quick', workloads=None).plain_steps
    assert not Selection(suite='quick', workloads=('quick_lm',)).extended(found).plain_steps

  def test_plain_steps_where_seconds_are_raced_are_refused(self, tmp_path, capsys):
    file = tmp_path / 'mine.toml'
    file.write_text(SECONDS)
    given = self.entries(tmp_path, a='finish')
    assert main(words('--plain_steps', suite=str(file), submissions=given)) == 2
    assert '--plain_steps is for suites raced in steps' in capsys.readouterr().err

  def test_all_finished(self, tmp_path, capsys):
    given = self.entries(tmp_path, a='finish', b='finish')
    assert main(words('--smoke', submissions=given)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'Trials to run: 2'
    assert out[-1] == 'Trials finished: 2 of 2'
    assert not list((tmp_path / 'races').glob('*/scores'))  # a smoke run is never scored

  def test_what_is_not_scored_needs_nothing_that_scores(self, tmp_path, capsys, monkeypatch):
    def missing():
      raise request.errors.UserError('The report needs jinja2.')

    monkeypatch.setattr(report, 'require_installed', missing)
    command = words('--quiet', submissions=self.entries(tmp_path, a='finish'))
    assert main([*command, '--smoke']) == 0
    assert main([*command, '--allow_provisional']) == 2
    assert 'The report needs jinja2.' in capsys.readouterr().err

  def test_hosts_are_mixed_in_its_score_when_asked_for(self, tmp_path, monkeypatch):
    asked = []
    self.scores(monkeypatch, lambda args: asked.append(args.mix_hosts))
    given = self.entries(tmp_path, a='finish')
    file = tmp_path / 'mine.toml'
    file.write_text(SECONDS)
    command = words('--quiet', suite=str(file), submissions=given)
    assert main(command) == 0
    assert main([*command, '--mix_hosts']) == 0
    assert asked == [False, True]

  def test_all_runs_in_the_folder_are_scored_with_the_workloads_of_the_race(
    self, tmp_path, monkeypatch
  ):
    """Regression: a late entry was scored alone, and the board of all others was overwritten."""
    asked = []
    self.scores(monkeypatch, asked.append)
    file = tmp_path / 'mine.toml'
    file.write_text(SECONDS)
    for name in ('a', 'b'):
      given = self.entries(tmp_path, **{name: 'finish'})
      assert main(words('--quiet', suite=str(file), submissions=given)) == 0
    assert {(args.runs, args.include, args.workloads) for args in asked} == {
      ('races/mine_self', (), ())
    }
    found = race_files.read_selection(tmp_path / 'races' / 'mine_self')
    assert found == Selection(suite='mine', workloads=('quick_vision',))

  def test_a_misspelt_suite_promises_no_report(self, capsys):
    assert main(words(suite='quik', submissions='a')) == 2
    assert capsys.readouterr().out == ''

  def test_a_folder_may_begin_with_a_dash(self, tmp_path, monkeypatch):
    """Regression: the race was not scored, for its folder was taken for a flag."""
    asked = []
    self.scores(monkeypatch, lambda args: asked.append((args.runs, args.output_dir)))
    given = self.entries(tmp_path, a='finish')
    folder = '--experiment_dir=-runs'
    assert (
      main(words('--quiet', '--allow_provisional', '--plain_steps', folder, submissions=given)) == 0
    )
    assert asked == [('-runs', '-runs/scores')]

  def test_failures_are_told_with_their_cause(self, tmp_path, capsys):
    given = self.entries(tmp_path, a='crash', b='finish', c='kill')
    command = words('--smoke', '--quiet', submissions=given, studies='2')
    assert main(command) == 1
    out = capsys.readouterr().out
    where = 'on quick_vision (jax), 2 trial(s)'
    assert out.splitlines()[0] == f'a {where}: FAILED: ValueError: as the script says'
    assert f'c {where}: FAILED: the process of the trial was killed (SIGKILL)' in out
    assert main(command) == 1
    assert '--retry_failed runs them' in capsys.readouterr().out
    assert len((tmp_path / SESSIONS_FILE).read_text().splitlines()) == 6 + 2

  def test_quiet_says_nothing_when_all_is_well(self, tmp_path, capsys):
    command = words('--smoke', '--quiet', submissions=self.entries(tmp_path, a='finish'))
    assert main(command) == 0
    assert capsys.readouterr() == ('', '')

  def test_the_flags_are_written_down(self):
    assert race().flags['submissions'] == ['nadamw', 'twin=nadamw']
