"""Run options: each is stated once, and is checked where it enters."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.streams import MAX_CHOSEN_WORKERS
from algorithmic_efficiency.option_fields import check, check_folder, declared, option
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.run_options import RunOptions, are_same, with_options

PACKAGES = ('algorithmic_efficiency', 'workloads', 'submissions', 'scoring')
ROOT = Path(__file__).resolve().parents[2]
OPTION = """\
  eval_fraction: float = option(
    1.0, group=_END, metavar='F', help='evaluate on a part F of each split', is_recorded=True
  )
"""

# What a copy of the project with one more option does with it, told as assertions.
EVERYWHERE = """
import sys
from pathlib import Path
from unittest import mock

from absl import flags

from algorithmic_efficiency import api, cli, submission_runner
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import _flags, _race, bench, calibrate, plan, reproduce
from algorithmic_efficiency.cli import run as run_verb
from algorithmic_efficiency.experiments.calibration import run as calibration
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.launch import request, session
from algorithmic_efficiency.trial.config import TrialConfig

assert Path(cli.__file__).is_relative_to(Path.cwd())
request.check_installed = lambda framework: None
GIVEN = ['--eval_fraction', '0.5']
COMMON = ['--submission', 'nadamw', '--ruleset', 'self', '--smoke', *GIVEN]


def parsed(verb, words):
  parser = _flags.Parser()
  verb.arguments(parser)
  shown = ' '.join(parser.format_help().split())
  assert '--eval_fraction F evaluate on a part F of each split; default: 1.0' in shown
  return parser.parse_args(words)


def check(configs):
  for config in configs:
    assert config.options.eval_fraction == 0.5
    assert TrialConfig.from_json(config.to_json()) == config
    assert config.record().options['eval_fraction'] == 0.5


# run
args = parsed(run_verb, ['--workload', 'quick_vision', '--framework', 'jax', *COMMON])
check(request.configs(run_verb._request(args)))

# bench and plan
words = ['--suite', 'quick', '--submissions', 'nadamw', '--ruleset', 'self', '--smoke', *GIVEN]
for verb in (bench, plan):
  check(expand(_race.race_of(parsed(verb, [*words, '--frameworks', 'jax']))))

# calibrate and reproduce
words = ['quick_vision', '--framework', 'jax', '--submissions', 'nadamw', '--trials', '1']
words += ['--seeds', '2', '--step_budget', '30']
asked = mock.Mock(side_effect=KeyboardInterrupt)
with mock.patch.object(calibration, 'estimate', asked):
  try:
    calibrate.run(parsed(calibrate, [*words, *GIVEN]))
  except KeyboardInterrupt:
    pass
check(expand(calibration._search(asked.call_args.args[0])))
words = ['quick_vision', '--submission', 'nadamw', '--against', '.']
assert _flags.options_of(parsed(reproduce, [*words, *GIVEN])).eval_fraction == 0.5

# AlgoPerf's runner and the API
started = []
session.run_trials = lambda trials, **_: started.append(trials) or []
submission_runner.define_flags()
flags.FLAGS(['runner', '--workload=quick_vision', '--framework=jax', '--smoke', *GIVEN,
             f'--submission_path={registry.submission("nadamw", "self").file("jax")}',
             '--tuning_ruleset=self', '--experiment_dir=runs', '--experiment_name=one'])
assert submission_runner.main(['runner']) == 0
api.run('quick_vision', framework='jax', submission='nadamw', ruleset='self', eval_fraction=0.5)
for trials in started:
  check(trials)
assert len(started) == 2

# Its values are checked.
assert cli.main(['run', '--workload', 'quick_vision', '--framework', 'jax', *COMMON[:-1], '0']) == 2
"""


def test_a_new_option_needs_one_declaration(tmp_path: Path):
  """The other file that it touches is the one in which it acts."""
  for package in PACKAGES:
    (tmp_path / package).symlink_to(ROOT / package)
  core = tmp_path / PACKAGES[0]
  core.unlink()
  shutil.copytree(ROOT / core.name, core, ignore=shutil.ignore_patterns('__pycache__'))
  record = core / 'trial' / 'run_options.py'
  text = record.read_text()
  assert text.count('  evaluate: bool = True\n') == 1
  record.write_text(text.replace('  evaluate: bool = True\n', f'{OPTION}  evaluate: bool = True\n'))
  script = tmp_path / 'everywhere.py'
  script.write_text(EVERYWHERE)
  result = subprocess.run(
    [sys.executable, '-c', 'import runpy; runpy.run_path("everywhere.py")'],
    cwd=tmp_path,
    env={'PYTHONPATH': str(tmp_path), 'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == 'algoeff: --eval_fraction must be positive; it is 0.0.\n'


@dataclass(frozen=True, kw_only=True)
class Record:
  """One option of each kind."""

  flag: bool = option(False, group='what to run', help='do it')
  maybe: bool | None = option(None, group='what to run', help='do it, perhaps')
  number: int = option(1, group='what to run', help='count')
  from_zero: int = option(0, group='what to run', help='count', rule='not negative')
  seconds: float | None = option(None, group='what to run', help='wait')
  kind: Literal['one', 'other'] = option('one', group='what to run', help='take')
  kinds: tuple[Literal['one', 'other'], ...] = option(('one',), group='what to run', help='take')
  text: str | None = option(None, group='what to run', help='say')
  inner: int = 7  # no option

  def __post_init__(self) -> None:
    check(self)


def test_what_the_types_of_fields_say():
  found = {one.field: (one.kind, one.is_many, one.choices) for one in declared(Record)}
  assert found == {
    'flag': (bool, False, ()),
    'maybe': (bool, False, ()),
    'number': (int, False, ()),
    'from_zero': (int, False, ()),
    'seconds': (float, False, ()),
    'kind': (str, False, ('one', 'other')),
    'kinds': (str, True, ('one', 'other')),
    'text': (str, False, ()),
  }


@pytest.mark.parametrize(
  'values',
  [
    {'flag': True, 'maybe': False, 'number': 2**63 - 1, 'from_zero': 0, 'seconds': 3},
    {'maybe': None, 'seconds': None, 'text': None, 'inner': -1},
    {'seconds': 0.5, 'kind': 'other', 'kinds': (), 'text': ''},
  ],
)
def test_values_that_are_right(values: dict[str, Any]):
  assert Record(**values)


@pytest.mark.parametrize(
  ('name', 'value', 'message'),
  [
    ('flag', 1, '--flag must be true or false; it is 1'),
    ('flag', None, '--flag must be true or false; it is None'),
    ('number', 0, '--number must be positive; it is 0'),
    ('number', -1, '--number must be positive; it is -1'),
    ('number', 2**63, '--number must be below 2^63; it is 9223372036854775808'),
    ('number', True, '--number must be a whole number; it is True'),
    ('number', 1.0, '--number must be a whole number; it is 1.0'),
    ('number', math.nan, '--number must be a whole number; it is nan'),
    ('number', '3', "--number must be a whole number; it is '3'"),
    ('number', None, '--number must be a whole number; it is None'),
    ('from_zero', -1, '--from_zero must not be negative; it is -1'),
    ('seconds', math.nan, '--seconds must be a finite number; it is nan'),
    ('seconds', math.inf, '--seconds must be a finite number; it is inf'),
    ('seconds', 0.0, '--seconds must be positive; it is 0.0'),
    ('kind', 'on', "There is no choice of --kind 'on'. Did you mean 'one'? Known: one, other."),
    ('kind', 3, '--kind must be a name; it is 3'),
    ('kinds', ('one', 'othr'), "Did you mean 'other'?"),
    ('kinds', 'one', "--kinds must be a tuple of names; it is 'one'"),
    ('text', 3, '--text must be a name; it is 3'),
  ],
)
def test_values_that_are_wrong(name: str, value: Any, message: str):
  with pytest.raises(errors.UserError) as found:
    Record(**{name: value})
  assert message in str(found.value)


def test_a_number_of_thousands_of_digits_is_not_printed():
  with pytest.raises(errors.UserError, match=r'must be below 2\^63; it is a very long number'):
    Record(number=10**9999)


@pytest.fixture
def odd_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.chdir(tmp_path)
  Path('file').touch()
  Path('loop').symlink_to('loop')
  Path('nowhere').symlink_to('missing')
  Path('folder').mkdir()
  Path('link').symlink_to('folder')
  os.mkfifo('pipe')
  return tmp_path


ODD_PLACES = {
  '': 'is not: No such file',
  'file': 'is not',
  'file/below': 'is not: Not a directory',
  'loop': 'is not: Too many levels of symbolic links',
  'loop/below': 'is not: Too many levels of symbolic links',
  'nowhere': 'is not: No such file',
  'pipe': 'is not',
  'x' * 5000: 'is not: File name too long',
  'a\0b': 'has a null character',
}


@pytest.mark.parametrize('place', ODD_PLACES, ids=lambda place: place[:10] or 'empty')
def test_places_that_are_no_directories(odd_places, place: str):
  with pytest.raises(errors.UserError) as found:
    RunOptions(data_dir=place)
  assert f'--data_dir must be a directory; {errors.shown(place)} ' in str(found.value)
  assert ODD_PLACES[place] in str(found.value)
  with pytest.raises(errors.UserError):
    check_folder('it', place, must_exist=True)


def test_places_that_are_or_may_become_directories(odd_places):
  for place in ('folder', 'link', 'link/new', 'new', 'new/below', '.', '/'):
    check_folder('it', place)
  for place in ('new', 'folder/new'):
    with pytest.raises(errors.UserError, match=r'it must be a directory; .* is not: No such file'):
      check_folder('it', place, must_exist=True)


@pytest.mark.parametrize('number', [-1, 257, 2**70, 1.0, True, '2'])
def test_numbers_of_data_workers_that_cannot_be(number: Any):
  with pytest.raises(errors.UserError, match='--num_data_workers must'):
    RunOptions(num_data_workers=number)
  for number in (None, 0, 256):
    RunOptions(num_data_workers=number)


def test_the_help_says_how_many_data_workers_are_chosen_at_most():
  [workers] = (one for one in declared(RunOptions) if one.field == 'num_data_workers')
  assert workers.unset.endswith(f'at most {MAX_CHOSEN_WORKERS}')


def test_a_record_of_a_trial_states_what_its_results_depend_on():
  assert RunOptions(stop_on_divergence=True, data_dir='somewhere').recorded() == {
    'stop_at': 'both',
    'stop_on_divergence': True,
    'splits': ['eval_train', 'validation', 'test'],
    'full_eval_every': 1,
  }
  assert RunOptions(eval_steps=(1, 5)).recorded()['eval_steps'] == [1, 5]


def test_a_record_of_an_older_version_lacks_options_that_had_their_defaults():
  older = {'stop_at': 'both', 'stop_on_divergence': None}
  assert are_same(older, RunOptions().recorded())
  assert not are_same(older, RunOptions(full_eval_every=2).recorded())
  assert not are_same({**older, 'stop_at': 'never'}, RunOptions().recorded())


def test_options_may_stand_beside_the_fields_of_their_record():
  fields = dict.fromkeys(('workload', 'framework', 'submission', 'submission_path', 'suite'), 'a')
  fields |= {'ruleset': 'self', 'hyperparameters': None, 'folder': 'f'}
  fields |= dict.fromkeys(('study', 'trial', 'seed', 'study_seed', 'root_seed'), 1)
  flat = with_options(TrialConfig, {**fields, 'smoke': True, 'stop_at': 'never'})
  assert flat == TrialConfig(**fields, options=RunOptions(smoke=True, stop_at='never'))
