"""`algoeff new submission`: the folder runs as it is, and mistakes are told."""

from __future__ import annotations

import importlib.util
import shlex

import numpy as np
import pytest
from file_limit import file_size_limit

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry, search_space
from algorithmic_efficiency.trial import submission as submissions
from tests.unit import training_toys as toys

FILES = {
  'submission_jax.py',
  'submission_pytorch.py',
  'tuning_search_space.json',
  'submission_info.yml',
  'README.md',
}
RNG = np.array([1, 2], np.uint32)


def _new(tmp_path, *flags, name='my_optimizer'):
  assert cli.main(['new', 'submission', name, '--out', str(tmp_path), *flags]) == 0
  return tmp_path / name


def test_the_default_is_external_in_both_frameworks(tmp_path):
  assert {path.name for path in _new(tmp_path).iterdir()} == FILES


@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_one_framework_for_self_tuning(tmp_path, framework):
  folder = _new(tmp_path, '--framework', framework, '--ruleset', 'self')
  module = f'submission_{framework}.py'
  assert {path.name for path in folder.iterdir()} == {
    module,
    'submission_info.yml',
    'README.md',
  }
  info = (folder / 'submission_info.yml').read_text()
  assert 'submission_folder: "self_tuning/my_optimizer"' in info
  assert 'ruleset: "self"' in info
  assert module in (folder / 'README.md').read_text()


def test_no_placeholder_is_left(tmp_path):
  for path in _new(tmp_path).iterdir():
    text = path.read_text()
    assert '$' not in text
    if path.suffix != '.json':
      assert 'My optimizer' in text


def test_the_command_it_prints_names_a_workload_that_runs(tmp_path, capsys):
  folder = _new(tmp_path, '--framework', 'pytorch')
  words = shlex.split(capsys.readouterr().out.splitlines()[-1])
  flags = dict(zip(words[2::2], words[3::2], strict=False))
  definition = registry.workload(flags['--workload'])
  assert definition.bundled and registry.is_runnable(definition, 'pytorch')
  assert flags['--submission'] == str(folder)
  assert ('--allow_provisional' in words) == definition.target.provisional


def test_it_is_found_below_a_root(tmp_path):
  _new(tmp_path / 'submissions' / 'external_tuning', name='found_one')
  registry.add_root(tmp_path)
  try:
    assert registry.submission('found_one', 'external').frameworks == ('jax', 'pytorch')
  finally:
    registry._roots.remove(tmp_path.resolve())
    registry._forget()


@pytest.mark.parametrize('ruleset', ['external', 'self'])
@pytest.mark.parametrize('framework', ['jax', 'pytorch'])
def test_the_folder_runs_as_it_is(tmp_path, framework, ruleset):
  if importlib.util.find_spec('jax' if framework == 'jax' else 'torch') is None:
    pytest.skip(f'{framework} is not installed')
  folder = _new(tmp_path, '--ruleset', ruleset)
  entry = submissions.load(folder / f'submission_{framework}.py', framework)
  point = None
  if ruleset == 'external':
    space = search_space.load(folder / 'tuning_search_space.json')
    point = search_space.as_object(search_space.points(space, 1, seed=0)[0])
  losses = _losses(entry, framework, point)
  assert losses[-1] < 0.9 * losses[0]


def _losses(entry, framework, point):
  """Trains the toy on one batch and returns the losses that were logged, at step 0 and 100."""
  if framework == 'jax':
    import jax

    workload, params = toys.JaxWorkload(step_hint=200), jax.device_put(toys.params())
  else:
    workload, params = toys.TorchWorkload(step_hint=200), toys.torch_model(toys.params())
  workload.metrics_logger = toys.Logger()
  queue = iter(toys.batches(1) * 101)
  state = entry.init_optimizer_state(workload, params, None, point, RNG)
  for step in range(101):
    batch = entry.data_selection(workload, queue, state, params, None, point, step, RNG)
    state, params, _ = entry.update_params(
      current_param_container=params,
      model_state=None,
      batch=batch if framework == 'jax' else toys.torch_batch(batch),
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
  return [float(metrics['loss']) for _, metrics in workload.metrics_logger.rows]


@pytest.mark.parametrize('name', ['_hidden', 'My', 'my-optimizer', '1st', '.x', 'a b', 'ä'])
def test_a_bad_name_is_a_clear_mistake(tmp_path, capsys, name):
  assert cli.main(['new', 'submission', name, '--out', str(tmp_path)]) == cli.USER_ERROR
  assert 'must begin with a lower case letter' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['mine_jax', 'a' * 201])
def test_a_name_that_is_not_scored_is_refused_for_a_submission(tmp_path, capsys, name):
  """Regression: it was made, and run, and no race took it."""
  assert cli.main(['new', 'submission', name, '--out', str(tmp_path)]) == cli.USER_ERROR
  assert 'A submission is scored by a name' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path, capsys):
  folder = _new(tmp_path)
  (folder / 'README.md').write_text('mine')
  capsys.readouterr()
  assert cli.main(['new', 'submission', 'my_optimizer', '--out', str(tmp_path)]) == cli.USER_ERROR
  assert 'exists; choose another name' in capsys.readouterr().err
  assert (folder / 'README.md').read_text() == 'mine'


def test_a_place_that_cannot_be_written_is_a_clear_mistake(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  out = str(tmp_path / 'file')
  with pytest.raises(SystemExit) as ended:
    cli.main(['new', 'submission', 'my_optimizer', '--out', out])
  assert ended.value.code == cli.USER_ERROR
  assert 'argument --out: must be a directory' in capsys.readouterr().err


def test_another_kind_is_a_clear_mistake(capsys):
  with pytest.raises(SystemExit) as ended:
    cli.main(['new', 'workload', 'x'])
  assert ended.value.code == cli.USER_ERROR
  assert "invalid choice: 'workload'" in capsys.readouterr().err


@pytest.mark.parametrize('kind', ['submission', 'suite'])
def test_nothing_is_left_of_what_a_full_disk_cut_off(kind, tmp_path, capsys):
  """Regression: half of it stayed, and the next attempt was told that it exists."""
  with file_size_limit(100):
    assert cli.main(['new', kind, 'my_own', '--out', str(tmp_path)]) == cli.USER_ERROR
  assert 'cannot be made: File too large' in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
