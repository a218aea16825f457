"""Flags of the command line: groups and help of each, values, and former names."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from algorithmic_efficiency import cli
from algorithmic_efficiency.cli import _flags, main
from algorithmic_efficiency.cli._race import race_of
from algorithmic_efficiency.launch import request
from algorithmic_efficiency.optimizers import by_name
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.trial.run_options import RunOptions

RUN = ['run', '--workload', 'quick_vision', '--framework', 'jax', '--submission', 'nadamw']

RACE = ['bench', '--suite', 'quick', '--ruleset', 'self', '--framework', 'jax']


def parsers() -> dict[str, _flags.Parser]:
  """The parser of every verb, and of what stands below it."""
  found = {}
  for verb in cli.verbs():
    found[verb] = _flags.Parser(prog=verb)
    importlib.import_module(f'{cli.__name__}.{verb}').arguments(found[verb])
    for action in found[verb]._actions:
      if isinstance(action, argparse._SubParsersAction):
        found |= {f'{verb} {name}': parser for name, parser in action.choices.items()}
  return found


def flags(parser: _flags.Parser) -> Iterator[tuple[str, argparse.Action]]:
  """Each flag and positional but --help, with the heading that it stands under."""
  for group in parser._action_groups:
    for action in group._group_actions:
      if action.dest != 'help' and not isinstance(action, argparse._SubParsersAction):
        yield group.title or '', action


@pytest.mark.parametrize('verb', parsers())
def test_each_flag_has_help_and_a_group(verb: str):
  found = list(flags(parsers()[verb]))
  for title, action in found:
    assert title in (*_flags.GROUPS, 'positional arguments'), (verb, action.dest, title)
    assert action.help and action.help != argparse.SUPPRESS, (verb, action.dest)
  assert len({action.dest for _, action in found}) == len(found)
  if verb not in ('data', 'list'):  # which have their flags below
    assert found


def test_only_flags_are_written_down():
  command = [*RACE, '--submissions', 'nadamw']
  args = cli._parser(command).parse_args(command)
  assert set(_flags.given(args)) == {action.dest for _, action in flags(parsers()['bench'])}


@pytest.mark.parametrize('verb', parsers())
def test_help_states_the_default_of_each_flag_that_has_one(verb: str):
  for _, action in flags(parsers()[verb]):
    if action.default not in (None, False, [], ()) and action.option_strings:
      assert '; default: ' in action.help, (verb, action.dest)


@pytest.mark.parametrize('verb', parsers())
def test_each_flag_is_spelled_with_dashes_or_underscores(verb: str):
  parser = parsers()[verb]
  if parser._subparsers is not None:
    return
  for option in parser._option_string_actions:
    if option.startswith('--'):
      plain = option[2:].replace('-', '_')
      for given in (plain, plain.replace('_', '-')):
        assert list(parser._spelled([f'--{given}', f'--{given}=a-b_c'])) == [
          option,
          f'{option}=a-b_c',
        ]


@pytest.mark.parametrize(
  ('verb', 'given', 'meant'),
  [
    ('run', '--frameworks', '--framework'),
    ('run', '--workloads', '--workload'),
    ('run', '--max-steps', '--max_global_steps'),
    ('run', '--no_save_checkpoints', '--no-save_checkpoints'),
    ('bench', '--framework', '--frameworks'),
    ('bench', '--workload', '--workloads'),
    ('bench', '--submission', '--submissions'),
    ('check', '--framework', '--frameworks'),
    ('plan', '--max_steps', '--max_global_steps'),
    ('score', '--tuning_ruleset', '--ruleset'),
    ('run', '--rng-seed', '--seed'),
  ],
)
def test_other_names_of_flags(verb: str, given: str, meant: str):
  assert list(parsers()[verb]._spelled([given, 'x'])) == [meant, 'x']


def test_words_behind_a_double_dash_are_no_flags():
  assert list(parsers()['score']._spelled(['--', '--max-hours'])) == ['--', '--max-hours']


def test_defaults_are_shown_as_values():
  parser = _flags.Parser()
  for name, default in {'n': 1, 'zero': 0, 'on': True, 'off': False, 'x': ('a', 'b')}.items():
    parser.add(name, group=_flags.RUN, help='take', default=default)
  shown = {action.dest: action.help for _, action in flags(parser)}
  assert shown == {
    'n': 'take; default: 1',
    'zero': 'take; default: 0',
    'on': 'take; default: on',
    'off': 'take',
    'x': 'take; default: a,b',
  }


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--trials', 'many'], "argument --trials: must be a whole number; it is 'many'"),
    (['--trials', '1.0'], "argument --trials: must be a whole number; it is '1.0'"),
    (['--trials', '9' * 5000], 'argument --trials: must be a whole number; it is '),
    (
      ['--heartbeat_timeout_sec', 'nan'],
      "argument --heartbeat_timeout_sec: must be a finite number; it is 'nan'",
    ),
    (['--heartbeat_timeout_sec', '1e999'], "must be a finite number; it is '1e999'"),
    (['--stop_at', 'x' * 5000], 'argument --stop_at: invalid choice: '),
    (
      ['--experiment_dir', ''],
      "argument --experiment_dir: must be a directory; '' is not: No such",
    ),
    (['--experiment_dir', 'x' * 5000], 'is not: File name too long'),
    (['--xyz'], 'algoeff run: there is no flag --xyz. See algoeff run --help.'),
    (['--no\x1b[1m'], r'there is no flag --no\x1b[1m. See'),
    (['--max-stpes=3'], 'no flag --max-stpes; did you mean --max_global_steps? See algoeff run -'),
    (['--optimiser', 'a.b'], 'no flag --optimiser; did you mean --optimizer? See'),
    (['-z'], 'unexpected arguments: -z. See algoeff run --help.'),
    (['--frameworks', 'jax,pytorch'], "argument --framework: invalid choice: 'jax,pytorch'"),
  ],
)
def test_a_wrong_value_is_one_short_line(words: list[str], message: str, capsys):
  with pytest.raises(SystemExit) as end:
    main([*RUN, *words])
  shown = capsys.readouterr()
  assert end.value.code == 2 and shown.out == ''
  assert message in shown.err
  assert shown.err.count('\n') == 1 and len(shown.err) < 600


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--data_dir', __file__], '--data_dir must be a directory'),
    (['--path', 'nowhere'], "--path must be a directory; 'nowhere' is not: No such file"),
    (['--path', ''], "--path must be a directory; '' is not: No such file"),
    (['--workload_path', 'x' * 5000], 'is not: File name too long'),
    (['--trials', '99999999999'], 'A command runs at most 100,000 trials; --trials 99999999999'),
    (['--studies', '100001'], 'at most 100,000 trials; --trials 1 and --studies 100001'),
    (['--num_devices', '0'], '--num_devices must be positive; it is 0'),
    (['--num_threads', '-1'], '--num_threads must be positive; it is -1'),
    (['--num_threads', '1025'], '--num_threads must be at most 1,024; it is 1,025'),
    (['--num_processes', '2000'], '--num_processes must be at most 8 on this host'),
    (['--num_processes', '9'], 'which has 2 CPUs; it is 9'),
    (['--num_processes', '0'], '--num_processes must be positive; it is 0'),
    (['--data_dir', 'nowhere'], "--data_dir must be a directory; 'nowhere' is not: No such file"),
    (['--submission', '/etc/hostname'], 'is a Python file, a folder that holds submission.py or'),
    (['--submission', '/dev/null'], 'submission_jax.py, or a name of `algoeff list submissions`'),
    (['--submission', 'x' * 5000], "There is no self-tuning submission 'xxx"),
    (['--submission', 'x' * 5000 + '/submission.py'], 'does not exist'),
    (['--log', 'tensorbord'], "There is no tracker 'tensorbord'. Did you mean 'tensorboard'?"),
    (['--ruleset', 'external', '--tuning_search_space', ''], 'cannot be read: Is a directory'),
    (['--seed', '9' * 30], '--seed must be below 2^63'),
    (['--experiment', 'x' * 300], 'by a name of at most 200 letters'),
    (['--experiment', 'ü' * 101], 'by a name of at most 200 letters'),
  ],
)
def test_a_value_that_a_request_refuses_is_one_short_line(words, message, capsys, monkeypatch):
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.setattr(request, 'num_usable_cpus', lambda: 2.0)
  assert main([*RUN, '--smoke', '--ruleset', 'self', *words]) == 2
  shown = capsys.readouterr()
  assert shown.out == '' and message in shown.err
  assert shown.err.count('\n') == 1 and len(shown.err) < 600


def test_each_verb_that_finds_tasks_below_a_folder_takes_the_folder_of_a_task():
  """Regression: a race with `--workload_path` could not be scored again with it."""
  found = {verb: {action.dest for _, action in flags(parser)} for verb, parser in parsers().items()}
  assert 'path' in found['score'] and 'path' in found['evaluate']
  assert [verb for verb, names in found.items() if 'path' in names] == [
    verb for verb, names in found.items() if 'workload_path' in names
  ]


def test_no_verb_takes_a_negative_seed():
  """Regression: `compare --seed -1` was taken."""
  seeds = {
    verb: action
    for verb, parser in parsers().items()
    for _, action in flags(parser)
    if action.dest == 'seed'
  }
  assert {'run', 'bench', 'score', 'compare', 'plan', 'calibrate'} <= set(seeds)
  for action in seeds.values():
    assert action.type('0') == 0
    with pytest.raises(argparse.ArgumentTypeError, match='must not be negative; it is -1'):
      action.type('-1')


@pytest.mark.parametrize(
  'words',
  [
    ['score', 'x' * 5000],
    ['score', 'loop'],
    ['report', 'file'],
    ['compare', 'a', 'b', 'nowhere'],
    ['data', 'list', '--data_dir', 'file'],
    ['list', 'data', '--data_dir', 'file'],
    ['doctor', '--data_dir', 'file/below'],
    ['doctor', '--timeout', '0'],
    ['doctor', '--timeout', 'nan'],
    ['check', 'nadamw', '--hard_limit_sec', 'nan'],
    ['check', 'nadamw', '--workloads', ','],
    ['bench', '--suite', 'quick', '--submissions', 'nadamw', '--frameworks', ','],
    ['check', 'nadamw', '--heartbeat_timeout_sec', '-1'],
    ['new', 'submission', 'mine', '--out', ''],
    ['reproduce', 'mnist', '--submission', 'nadamw', '--against', 'file'],
    ['plan', '--suite', 'quick', '--submissions', 'nadamw', '--evidence', 'file'],
    ['bench', '--suite', 'quick', '--submissions', 'nadamw', '--output_dir', 'file'],
    ['bench', '--suite', 'quick', '--submissions', '=nadamw', '--frameworks', 'jax'],
    ['bench', '--suite', 'quick', '--submissions', 'mine=', '--frameworks', 'jax'],
  ],
  ids=lambda words: ' '.join(words)[:60],
)
def test_other_verbs_judge_places_and_numbers_before_they_use_them(
  words, capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  Path('file').touch()
  Path('loop').symlink_to('loop')
  try:
    code = main(words)
  except SystemExit as end:
    code = end.code
  shown = capsys.readouterr()
  assert code == 2 and shown.out == ''
  lines = [line for line in shown.err.splitlines() if ' is now ' not in line]
  assert len(lines) == 1 and len(lines[0]) < 600
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'loop']


@pytest.mark.parametrize('words', [['--hard_limit_sec', '0'], ['--hard_limit_sec=0']])
def test_a_former_name_is_taken_for_the_present_one_with_a_notice(words: list[str], capsys):
  assert main([*RUN, *words]) == 2
  notice, mistake = capsys.readouterr().err.splitlines()
  assert notice.startswith('algoeff: --hard_limit_sec is now --heartbeat_timeout_sec')
  assert mistake == 'algoeff: --heartbeat_timeout_sec must be positive; it is 0.0.'


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['run', '--workload', 'quick_visoin', '--optimizer', 'a.B'], "no workload 'quick_visoin'"),
    (['run', '--workload', 'mnist', '--suite', 'qick', '--optimizer', 'a.B'], "no suite 'qick'"),
    (['check', 'a.B(lr=1)', '--workload', 'quick_visoin'], "no workload 'quick_visoin'"),
    ([*RACE, '--submissions', 'a.B(lr=1)', '--workload', 'mnits'], "no workload 'mnits'"),
    ([*RACE, '--submissions', 'a.B(lr=1),nadmw'], "no self-tuning submission 'nadmw'"),
    (['plan', *RACE[1:], '--submissions', 'a.B(lr=1),nadmw'], "submission 'nadmw'"),
  ],
)
def test_a_misspelt_name_is_told_before_an_optimizer_is_tried(words, message, capsys, monkeypatch):
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.setattr(request, 'installed', lambda: ('jax',))
  monkeypatch.setattr(by_name, 'submission_for', None)
  assert main(words) == 2
  assert message in capsys.readouterr().err


def test_a_race_without_a_folder_goes_on_where_it_began_before(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(request, 'installed', lambda: ('jax',))
  parser = parsers()['bench']
  args = parser.parse_args([*RACE[1:], '--submissions', 'nadamw'])
  assert race_of(args).folder == Path('races/quick_self')
  assert dataclasses.replace(
    race_of(args), ruleset='external', options=RunOptions(smoke=True)
  ).folder == Path('races/quick_external_smoke')
  for suite in ('lite', 'quick'):
    race_files.write_selection(Path('runs'), race_files.Selection(suite=suite, workloads=None))
    if suite == 'lite':
      assert race_of(args).folder == Path('races/quick_self')
  with pytest.warns(FutureWarning, match='runs, is now races/SUITE_RULESET'):
    assert race_of(args).folder == Path('runs')
