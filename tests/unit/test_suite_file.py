"""Suites from TOML files: what they become, what they take from definitions, what is refused."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

import scoring
from algorithmic_efficiency import cli, errors
from algorithmic_efficiency.benchmark import registry, suite_file
from algorithmic_efficiency.benchmark.definition import Budget
from algorithmic_efficiency.benchmark.suites import SUITES, Suite, Tuning
from algorithmic_efficiency.cli import new
from scoring.notes import counted
from tests.unit import scoring_runs

TOP = """
name = 'mine'
title = 'Mine'
axis = 'cost_adjusted_steps'
hardware = 'any machine'
"""
RULESETS = '[rulesets.self]\nstudies = 2\n'
WORKLOADS = '[workloads.mnist_standardized]\nmax_steps = 80\n'
IN_SECONDS = TOP.replace('cost_adjusted_steps', 'seconds')


@pytest.fixture
def written(tmp_path):
  def write(*parts, name='mine.toml'):
    path = tmp_path / name
    path.write_text('\n'.join(parts or (TOP, RULESETS, WORKLOADS)))
    return str(path)

  return write


def test_a_file_becomes_a_suite_and_is_known_by_its_name(written):
  file = written()
  suite = registry.suite(file)
  assert suite == Suite(
    name='mine',
    title='Mine',
    axis='cost_adjusted_steps',
    hardware='any machine',
    tuning={'self': Tuning(num_studies=2, num_trials=1)},
    file=file,
    workloads=suite.workloads,
  )
  assert registry.suite('mine') == suite
  assert set(registry.suites()) == {*SUITES, 'mine'}


def test_every_field_is_read(written):
  suite = registry.suite(
    written(
      TOP,
      'num_accelerators = 2\nstop_on_divergence = true\nfree_init_sec = 5',
      'running_average_bn = true\nmax_ratio = 3.5',
      'integral = "grid"\nbaselines = ["a", "b"]',
      '[rulesets.external]\nstudies = 4\ntrials = 3\nbudget_factor = 2',
      '[workloads.mnist_standardized]\nmax_steps = 100\nstep_hint = 90',
      'eval_period_steps = 7\nbatch_size = 64',
      'eval_batch_size = 500\ngoal = {validation = 0.9, test = 0.8, provisional = true}',
      '[workloads.mnist_relu]\nrole = "held_out"',
    )
  )
  assert (suite.num_accelerators, suite.stop_on_divergence) == (2, True)
  assert suite.running_average_bn
  assert (suite.free_init_sec, suite.max_ratio, suite.integral) == (5, 3.5, 'grid')
  assert suite.baselines == ('a', 'b')
  assert suite.tuning == {'external': Tuning(num_studies=4, num_trials=3, budget_factor=2)}
  mnist, variant = suite.workloads.values()
  assert mnist.suites == {'mine': Budget(step_hint=90, max_steps=100, eval_period_steps=7)}
  assert (mnist.batch_sizes.train, mnist.batch_sizes.eval) == (64, 500)
  target = mnist.target
  assert (target.validation, target.test, target.provisional) == (0.9, 0.8, True)
  assert target.metric == registry.workload('mnist_standardized').target.metric
  assert variant.suites['mine'].role == 'held_out'


def test_what_the_file_does_not_say_is_taken_from_the_definition(written):
  suite = registry.suite(written(TOP, RULESETS, '[workloads.mnist_standardized]'))
  own, mnist = registry.workload('mnist_standardized'), suite.workloads['mnist_standardized']
  budget = dataclasses.replace(own.suites['lite'], role='base')
  assert mnist == dataclasses.replace(own, suites={'mine': budget})


def test_a_budget_of_its_own_brings_its_step_hint_and_period(written):
  registry.suite(written())
  assert registry.workload('mnist_standardized', 'mine').suites == {
    'mine': Budget(step_hint=80, max_steps=80, eval_period_steps=2)
  }


def test_on_seconds_the_budget_is_that_of_the_suite_it_is_like(written):
  suite = registry.suite(
    written(IN_SECONDS, RULESETS, '[workloads.wmt]\nlike = "algoperf_v06"\nmax_sec = 50_000')
  )
  assert suite.workloads['wmt'].suites == {
    'mine': Budget(step_hint=120_000, max_sec=50_000, eval_period_sec=840)
  }


def test_targets_of_its_own_are_not_provisional(written):
  suite = registry.suite(
    written(TOP, RULESETS, '[workloads.quick_vision.target]\nvalidation = 0.5\ntest = 0.4')
  )
  assert not suite.workloads['quick_vision'].target.provisional


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    ((TOP + 'tilte = "x"', RULESETS, WORKLOADS), "no field 'tilte'. Did you mean 'title'"),
    (
      (TOP, RULESETS, '[workloads.mnist_standardised]'),
      "no workload 'mnist_standardised'. Did you mean 'mnist_standardized'",
    ),
    ((TOP, RULESETS, '[workloads.mnist_standardized]\nmax_step = 1'), "Did you mean 'max_steps'"),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized.target]\nvalid = 1'),
      "Did you mean 'validation'",
    ),
    ((TOP, '[rulesets.slef]\nstudies = 1', WORKLOADS), "Did you mean 'self'"),
    ((TOP, '[rulesets.self]\ntrials = 1', WORKLOADS), 'missing fields: studies'),
    ((TOP, '[rulesets.self]\nstudies = 1\ntrials = 2', WORKLOADS), 'trials must be 1'),
    ((TOP, WORKLOADS), 'missing fields: rulesets'),
    ((TOP, RULESETS), 'missing fields: workloads'),
    ((TOP.replace('cost_adjusted_steps', 'second'), RULESETS, WORKLOADS), "mean 'seconds'"),
    ((TOP.replace("'mine'", "'Mine!'"), RULESETS, WORKLOADS), 'beginning with a letter'),
    ((TOP.replace("'mine'", "'quick'"), RULESETS, WORKLOADS), "'quick' is a built-in suite"),
    ((TOP.replace("'mine'", '7'), RULESETS, WORKLOADS), 'name must be text; it is 7'),
    ((TOP.replace("'Mine'", "' '"), RULESETS, WORKLOADS), 'title must be nonempty text'),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nmax_steps = 1.5'),
      'must be a whole number; it is 1.5',
    ),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nmax_steps = true'),
      'must be a whole number; it is True',
    ),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nmax_steps = 0'),
      'max_steps must be positive; it is 0',
    ),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nmax_sec = 9'),
      'max_sec must be left out of a suite',
    ),
    ((TOP + 'max_ratio = 1', RULESETS, WORKLOADS), 'max_ratio must be above 1; it is 1'),
    ((TOP, RULESETS, '[workloads.mnist_standardized]\nrole = "bass"'), "Did you mean 'base'"),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nrole = "extra"'),
      "needs a workload whose role is 'base'",
    ),
    ((TOP, RULESETS, '[workloads.mnist_relu]\nrole = "held_out"'), 'a variant whose base is in'),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nbatch_size = 60_000'),
      'at most the 50000 examples',
    ),
    ((TOP, RULESETS, '[workloads.mnist_standardized]\nlike = "full"'), "no choice for like 'full'"),
    (
      (TOP, RULESETS, '[workloads]\nmnist_standardized = 3'),
      'workloads.mnist_standardized must be a table; it is 3',
    ),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized.target]\nvalidation = nan'),
      'validation must be finite',
    ),
    (
      (TOP, RULESETS, '[workloads.mnist_standardized]\nmax_steps = 5\neval_period_steps = 6'),
      'eval_period_steps is 6 and max_steps is 5',
    ),
    (
      (IN_SECONDS, RULESETS, '[workloads.mnist]\nmax_sec = 5'),
      'eval_period_sec is 10 and max_sec is 5',
    ),
    ((IN_SECONDS, RULESETS, WORKLOADS), 'max_steps must be left out of a suite that races in sec'),
    (
      (IN_SECONDS, RULESETS, '[workloads.quick_vision]'),
      'the file must give step_hint, max_sec, eval_period_sec',
    ),
    ((IN_SECONDS, RULESETS, '[workloads.finewebedu_lm.target]\ntest = 1'), 'no test target'),
    ((TOP + "baselines = ['a', 1]", RULESETS, WORKLOADS), 'a list of names of submissions'),
    ((TOP + 'x =', RULESETS, WORKLOADS), 'must be TOML'),
    ((TOP + 'x = ' + '[' * 10_000, RULESETS, WORKLOADS), 'must be TOML'),
    ((TOP, RULESETS, f'[workloads.mnist]\nmax_steps = {"9" * 5000}'), 'must be TOML'),
    ((TOP, RULESETS, f'[workloads.mnist]\nmax_steps = {"9" * 400}'), 'must be finite and at most'),
  ],
)
def test_a_mistake_is_told_with_its_file_and_field(written, capsys, parts, message):
  file = written(*parts)
  assert cli.main(['list', 'suites', '--suite', file]) == cli.USER_ERROR
  [line] = capsys.readouterr().err.splitlines()
  assert message in line and file in line


def test_a_file_that_is_not_there(capsys):
  assert cli.main(['list', 'suites', '--suite', 'nowhere.toml']) == cli.USER_ERROR
  assert 'nowhere.toml cannot be read: No such file' in capsys.readouterr().err


def test_a_byte_order_mark_is_no_part_of_the_suite(written):
  assert registry.suite(written('\ufeff' + TOP, RULESETS, WORKLOADS)).name == 'mine'


def test_an_unknown_name_says_that_files_go():
  with pytest.raises(errors.UserError, match=r'Name a suite of your own by its \.toml file'):
    registry.suite('mine')


def test_two_files_may_not_share_a_name_and_one_may_be_read_again(written):
  first = written()
  registry.suite(first)
  written(TOP, RULESETS, '[workloads.mnist_standardized]\nmax_steps = 81')
  assert registry.suite(first).workloads['mnist_standardized'].suites['mine'].max_steps == 81
  with pytest.raises(errors.UserError, match=r"mine.toml has the name 'mine'"):
    registry.suite(written(name='other.toml'))


def test_a_ruleset_that_the_suite_does_not_have(written):
  with pytest.raises(errors.UserError, match='has no external tuning; it has: self'):
    registry.suite(written()).rules_of('external')


# What a result means.


def test_other_suites_do_not_enter_the_hash_of_a_result(written):
  before = registry.workload('mnist_standardized', 'lite').content_hash()
  own = registry.workload('mnist_standardized')
  more = dataclasses.replace(own, suites={**own.suites, 'full': Budget(step_hint=1, max_sec=1)})
  registry.suite(written())
  assert registry._raced(more, SUITES['lite']).content_hash() == before


@pytest.mark.parametrize(
  'change', ['max_steps = 81', 'batch_size = 64', 'target = {validation = 0.5}', 'step_hint = 81']
)
def test_what_is_raced_does(written, change):
  before = registry.suite(written()).workloads['mnist_standardized'].content_hash()
  workloads = (
    f'[workloads.mnist_standardized]\n{"" if "max" in change else "max_steps = 80"}\n{change}'
  )
  assert (
    registry.suite(written(TOP, RULESETS, workloads)).workloads['mnist_standardized'].content_hash()
    != before
  )


def test_the_rules_of_a_suite_enter_its_hash_and_how_often_they_are_run_does_not(written):
  before = registry.suite(written()).rules_hash('self')
  more = registry.suite(
    written(TOP, RULESETS.replace('2', '3'), WORKLOADS, '[workloads.wmt]\nmax_steps = 9')
  )
  assert more.rules_hash('self') == before
  other = registry.suite(written(TOP, RULESETS + 'budget_factor = 2', WORKLOADS))
  assert other.rules_hash('self') != before


def test_runs_are_scored_by_the_goals_of_the_file_and_only_if_nothing_was_altered(
  written, tmp_path
):
  def suite(validation):
    target = f'[workloads.mnist_standardized]\nmax_steps = 80\ngoal = {{validation = {validation}}}'
    return written(TOP, RULESETS, target)

  file = suite(0.5)
  found = registry.suite(file)
  record = {
    'suite': 'mine',
    'ruleset': 'self',
    'status': 'finished',
    'definition_hash': found.workloads['mnist_standardized'].content_hash(),
    'suite_hash': found.rules_hash('self'),
  }
  runs = tmp_path / 'runs'
  for name, changes in (('a', {}), ('b', {'suite_hash': '0' * 16})):
    rows = [(1, 1.0, 0.1), (40, 2.0, 0.6)]
    scoring_runs.write_trial(runs, name, 'mnist_standardized', rows, record={**record, **changes})
  result = scoring.score(scoring.load(runs), file, ruleset='self', statistics=False)
  assert result.times[:, 0].tolist() == [40, float('inf')]
  assert counted(result.notes)['altered_suite'] == 1
  result = scoring.score(scoring.load(runs), suite(0.55), ruleset='self', statistics=False)
  assert counted(result.notes)['altered_workload'] == 1


def test_runs_of_a_suite_that_is_not_known_ask_for_its_file(tmp_path, capsys):
  record = {'suite': 'theirs', 'ruleset': 'self', 'status': 'finished'}
  scoring_runs.write_trial(tmp_path, 'a', 'mnist_standardized', [(1, 1.0, 0.1)], record=record)
  out = str(tmp_path / 'out')
  assert cli.main(['score', str(tmp_path), '--output_dir', out]) == cli.USER_ERROR
  assert "the suite 'theirs', which is not known here" in capsys.readouterr().err


# The template.


def test_the_template_is_a_suite_as_it_is_and_names_every_field(tmp_path, capsys):
  assert cli.main(['new', 'suite', 'my_suite', '--out', str(tmp_path), '--ruleset', 'self']) == 0
  file = tmp_path / 'my_suite.toml'
  suite = registry.suite(str(file))
  assert suite.name == 'my_suite' and set(suite.tuning) == {'external', 'self'}
  assert any(registry.is_runnable(registry.workload(name)) for name in suite.workloads)
  text = file.read_text()
  fields = {*suite_file._SUITE_FIELDS, *suite_file._WORKLOAD_FIELDS, *suite_file._RULESET_FIELDS}
  assert not [name for name in fields | set(suite_file._TARGET_FIELDS) if name not in text]
  command = capsys.readouterr().out.splitlines()[-1]
  assert command.split()[:4] == ['algoeff', 'bench', '--suite', str(file)]


@pytest.mark.parametrize('verb', ['score', 'report'])
def test_scoring_finds_the_file_where_the_runs_say_that_it_lies(
  verb, tmp_path, capsys, monkeypatch
):
  """Regression: the runs did not say where the file of their suite lies."""
  file = tmp_path / 'mine.toml'
  new.make_suite(file, framework='jax', ruleset='self')
  suite = suite_file.load(file, registry.workloads())
  name, definition = next(iter(suite.workloads.items()))
  scoring_runs.write_recorded_trial(
    tmp_path / 'runs',
    'adamw',
    name,
    scoring_runs.hit_at(name, 10.0),
    suite=suite.name,
    ruleset='self',
    suite_hash=suite.rules_hash('self'),
    definition_hash=definition.content_hash(),
    suite_file=str(file),
  )
  words = ['--allow_provisional', '--output_dir', str(tmp_path / 'out'), '--resamples', '5']
  monkeypatch.setattr(registry, '_read_suites', {})
  assert cli.main([verb, str(tmp_path / 'runs'), *words]) == 0
  monkeypatch.setattr(registry, '_read_suites', {})
  file.unlink()
  assert cli.main([verb, str(tmp_path / 'runs'), *words]) == 2
  assert (
    f'It was {file}, where it is no more. Give its file with --suite' in capsys.readouterr().err
  )


def test_the_defaults_in_the_template_are_the_defaults(tmp_path):
  new.make_suite(tmp_path / 'short.toml', framework='jax', ruleset='self')
  lines = (tmp_path / 'short.toml').read_text().splitlines()
  spoken = [
    line.removeprefix('# ') if line.startswith('# ') and ' = ' in line else line for line in lines
  ]
  spoken = [line for line in spoken if not line.startswith(('max_sec', 'eval_period_sec'))]
  spoken = [
    line
    for line in spoken
    if 'target' not in line and not line.startswith(('validation', 'test', 'prov'))
  ]
  (tmp_path / 'long.toml').write_text('\n'.join(spoken))
  assert len(tomllib.loads('\n'.join(spoken))) == len(suite_file._SUITE_FIELDS)
  short = registry.suite(str(tmp_path / 'short.toml'))
  long = suite_file.load(tmp_path / 'long.toml', registry.workloads())
  assert dataclasses.replace(long, file=short.file) == short


@pytest.mark.parametrize('name', ['quick', 'My', 'a b'])
def test_a_name_that_no_suite_can_have(tmp_path, capsys, name):
  assert cli.main(['new', 'suite', name, '--out', str(tmp_path)]) == cli.USER_ERROR
  assert capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_an_existing_file_is_left_alone(tmp_path, capsys):
  (tmp_path / 'mine.toml').write_text('x')
  assert cli.main(['new', 'suite', 'mine', '--out', str(tmp_path)]) == cli.USER_ERROR
  assert 'exists; choose another name' in capsys.readouterr().err
  assert (tmp_path / 'mine.toml').read_text() == 'x'
