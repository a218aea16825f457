"""Bad input: one clear message, exit code 2, no traceback, nothing lost, nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import HONEST
from trials import record, rows, trial_folder
from warm import algoeff

from algorithmic_efficiency.cli import main

FRAMEWORK = 'jax' if importlib.util.find_spec('jax') else 'pytorch'  # whichever is there
needs_torch = pytest.mark.skipif(
  importlib.util.find_spec('torch') is None, reason='PyTorch is not installed'
)
GOOD = (
  *('run', '--workload', 'quick_vision', '--framework', FRAMEWORK, '--submission', 'nadamw'),
  *('--ruleset', 'self', '--smoke', '--num_threads', '1'),
)


def changed(**changes: str | None) -> list[str]:
  """The good command with flags replaced, added, or (None) taken away."""
  words = list(GOOD)
  for flag, value in changes.items():
    name = f'--{flag}'
    if name in words:
      index = words.index(name)
      del words[index : index + 2]
    if value is not None:
      words += [name, value]
  return words


def check(stderr: str, code: int, *parts: str) -> None:
  assert code == 2, stderr
  assert 'Traceback' not in stderr
  assert len(stderr.strip().splitlines()) == 1, stderr
  for part in parts:
    assert part in stderr


@pytest.mark.parametrize(
  ('changes', 'parts'),
  [
    ({'workload': 'quick_visoin'}, ["no workload 'quick_visoin'", "Did you mean 'quick_vision'"]),
    ({'submission': 'nadmw'}, ["Did you mean 'nadamw'"]),
    ({'submission': 'nowhere/submission.py'}, ['nowhere/submission.py does not exist']),
    ({'suite': 'quik'}, ["no suite 'quik'", "Did you mean 'quick'"]),
    ({'suite': 'algoperf_v05'}, ['has no budget in the suite']),
    ({'framework': 'torch'}, ['invalid choice']),
    ({'max_global_steps': '0'}, ['--max_global_steps must be positive; it is 0']),
    ({'studies': '-1'}, ['--studies must be positive']),
    ({'trials': 'many'}, ['must be a whole number']),
    ({'tuning_search_space': 'space.json'}, ['self-tuning ruleset takes no search space']),
    (
      {'ruleset': 'external', 'submission': 'external.py'},
      ['External tuning needs a search space'],
    ),
    ({'path': 'nowhere'}, ['must be a directory']),
    ({'workload_path': '.'}, ['a definition.py']),
    ({'experiment_dir': '/proc/nowhere'}, ['/proc/nowhere']),
    ({'no_such_flag': '1'}, ['there is no flag --no_such_flag']),
  ],
)
def test_mistakes_that_are_found_before_anything_starts(
  changes: dict[str, str],
  parts: list[str],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'external.py').write_text('import jax\n')
  try:
    code = main(changed(**{'experiment_dir': 'runs', **changes}))
  except SystemExit as error:
    code = error.code
  check(capsys.readouterr().err, code, *parts)
  assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('', ['must be JSON']),
    ('{', ['must be JSON', 'line 1']),
    ('[]', ['empty']),
    ('{"lr": {"min": 1, "max": 2, "scaling": "cubic"}}', ['cubic']),
    ('{"lr": {"min": 3, "max": 2, "scaling": "linear"}}', ['min']),
    ('{"lr": {"min": 0, "max": 2, "scaling": "log"}}', ['log']),
  ],
)
def test_search_spaces(
  text: str,
  parts: list[str],
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'space.json').write_text(text)
  code = main(changed(ruleset='external', submission='adamw', tuning_search_space='space.json'))
  check(capsys.readouterr().err, code, 'space.json', *parts)


def test_a_provisional_goal_is_not_raced_by_accident(capsys: pytest.CaptureFixture[str]):
  words = changed(workload='quick_vision_no_norm')
  code = main([word for word in words if word != '--smoke'])
  check(capsys.readouterr().err, code, 'provisional', '--allow_provisional')


def test_an_experiment_that_exists(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
  """Regression: the reference asks on standard input, and other ranks wait."""
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / f'runs/nadamw/study_1/quick_vision_{FRAMEWORK}/trial_1'
  kept = folder / 'measurements.jsonl'
  kept.parent.mkdir(parents=True)
  kept.write_text('something')
  code = main([*GOOD, '--experiment_dir', 'runs'])
  check(capsys.readouterr().err, code, 'exists already', '--resume', '--overwrite')
  assert kept.read_text() == 'something'


BAD_SUBMISSIONS = {
  'syntax error': (HONEST + '\ndef broken(:\n', ['not valid Python', 'line']),
  'missing function': (HONEST + '\ndel update_params\n', ['lacks update_params']),
  'raises at import': (HONEST + '\n1 / 0\n', ['ZeroDivisionError']),
  'missing package': (HONEST + '\nimport no_such_package\n', ['no_such_package']),
  'wrong arity': (
    HONEST + '\ndef update_params(**arguments):\n  return 1, 2\n',
    ['update_params must return', 'returned 2 values'],
  ),
  'batch size': (
    HONEST + '\ndef get_batch_size(name):\n  return 7.5\n',
    ['must be a positive integer', '7.5'],
  ),
  'wrong arity of prepare_for_eval': (
    HONEST + '\ndef prepare_for_eval(**arguments):\n  return 1, 2, 3, 4\n',
    ['prepare_for_eval must return', 'returned 4 values'],
  ),
}


def trained_by(code: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
  """A run of a submission that is HONEST in PyTorch but for `code`."""
  (folder / 'submission.py').write_text(code)
  flags = {'framework': 'pytorch', 'submission': 'submission.py', 'experiment_dir': 'runs'}
  return algoeff(*changed(**flags, **changes), '--quiet', cwd=folder)


def at_step(step: int, statement: str) -> str:
  """A submission that trains honestly, but does something else first at one step."""
  return f"""{HONEST}
honest_update = update_params

def update_params(global_step, **arguments):
  if global_step == {step}:
    {statement}
  return honest_update(global_step=global_step, **arguments)
"""


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize('name', BAD_SUBMISSIONS)
def test_submissions(name: str, tmp_path: Path):
  code, parts = BAD_SUBMISSIONS[name]
  result = trained_by(code, tmp_path)
  check(result.stderr, result.returncode, *parts)
  assert not (tmp_path / 'runs').exists()  # so that the mended submission finds nothing in its way


@needs_torch
@pytest.mark.slow
def test_a_submission_that_raises_leaves_its_rows_and_the_other_trials(tmp_path: Path):
  result = trained_by(at_step(12, '1 / 0'), tmp_path, trials='2')
  assert result.returncode == 1
  folders = sorted((tmp_path / 'runs').rglob('trial_*'))
  assert len(folders) == 2
  for folder in folders:
    assert 'ZeroDivisionError' in (folder / 'traceback.txt').read_text()
    assert len((folder / 'eval_measurements.csv').read_text().splitlines()) == 3


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(
  'error', ["MemoryError('a large array')", "RuntimeError('CUDA out of memory. Tried 8 GiB')"]
)
def test_a_submission_that_runs_out_of_memory(error: str, tmp_path: Path):
  result = trained_by(at_step(12, f'raise {error}'), tmp_path)
  folder = trial_folder(tmp_path)
  found = record(folder)
  assert result.returncode == 1 and f'FAILED: {found.reason}' in result.stderr
  assert (found.status, found.stop_reason) == ('failed', 'out_of_memory')
  assert error.partition('(')[0] in found.reason
  assert error.partition('(')[0] in (folder / 'traceback.txt').read_text()
  assert [row['global_step'] for row in rows(folder).evals] == [1, 10]


@needs_torch
@pytest.mark.slow
def test_a_submission_that_returns_nan_parameters(tmp_path: Path):
  params = "arguments['current_param_container'].parameters()"
  statement = f"[param.data.fill_(float('nan')) for param in {params}]"
  result = trained_by(at_step(5, statement), tmp_path, suite='quick')
  assert result.returncode == 0, result.stderr
  folder = trial_folder(tmp_path)
  assert (record(folder).status, record(folder).stop_reason) == ('finished', 'diverged')
  assert [row['global_step'] for row in rows(folder).evals] == [1, 10]


@pytest.mark.slow
def test_data_that_are_not_there(tmp_path: Path):
  command = changed(workload='mnist', experiment_dir='runs', data_dir='empty')
  command.remove('--smoke')
  result = algoeff(*command, cwd=tmp_path)
  check(result.stderr, result.returncode, "--data_dir must be a directory; 'empty' is not")
  (tmp_path / 'empty').mkdir()
  result = algoeff(*command, cwd=tmp_path)
  check(result.stderr, result.returncode, 'algoeff data prepare mnist')
  assert not result.stdout and not (tmp_path / 'runs').exists()


@pytest.fixture(scope='module')
def mnist(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A data folder with MNIST prepared in it."""
  folder = tmp_path_factory.mktemp('data')
  command = ['data', 'prepare', 'mnist', '--source', str(test_data / 'mnist')]
  assert main([*command, '--data_dir', str(folder)]) == 0
  return folder


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize('damage', ['truncated', 'altered'])
def test_data_that_are_damaged(damage: str, mnist: Path, tmp_path: Path):
  file = mnist / 'mnist' / 'train.inputs.npy'
  sound = file.read_bytes()
  middle = len(sound) // 2
  altered = sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
  command = changed(workload='mnist', experiment_dir='runs', data_dir=str(mnist))
  command.remove('--smoke')
  try:
    file.write_bytes(sound[:middle] if damage == 'truncated' else altered)
    result = algoeff(*command, '--quiet', cwd=tmp_path)
  finally:
    file.write_bytes(sound)
  check(result.stderr, result.returncode, str(file), 'algoeff data prepare mnist --overwrite')
  assert not (tmp_path / 'runs').exists()


@pytest.mark.slow
def test_batches_that_do_not_divide_over_the_devices(tmp_path: Path):
  pytest.importorskip('jax')
  command = changed(framework='jax', experiment_dir='runs', num_devices='3')
  result = algoeff(*command, '--quiet', cwd=tmp_path)
  check(result.stderr, result.returncode, 'divisible by the number of devices', '3 devices')


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize(('limit_kib', 'num_rows'), [(1, 0), (10, 1)])
def test_a_full_disk_loses_nothing_that_was_complete(limit_kib: int, num_rows: int, tmp_path: Path):
  """The smaller limit refuses the trial's own record too, the larger one the first checkpoint."""
  command = changed(framework='pytorch', experiment_dir='runs')
  words = ' '.join(map(str, ['algorithmic_efficiency', *command, '--quiet']))
  result = subprocess.run(
    ['bash', '-c', f'ulimit -f {limit_kib}; exec "$PYTHON" -m {words}'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHON': sys.executable},
    capture_output=True,
    text=True,
    check=False,
  )
  check(result.stderr, result.returncode, 'could not be written')
  tables = list((tmp_path / 'runs').rglob('eval_measurements.csv'))
  assert [len(table.read_text().splitlines()) - 1 for table in tables] == [1] * num_rows


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='the system has no full device')
def test_an_output_that_is_full_is_said_in_one_line():
  command = [sys.executable, '-m', 'algorithmic_efficiency', 'list', 'suites']
  with open('/dev/full', 'w') as full:
    result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
  message = 'algoeff: the output cannot be written: No space left on device.\n'
  assert (result.returncode, result.stderr) == (2, message)


@needs_torch
@pytest.mark.slow
def test_a_reader_who_goes_does_not_end_the_trials(tmp_path: Path):
  """Regression: `algoeff run | head -1` killed the trial that was under way, with exit code 0."""
  read, write = os.pipe()
  os.close(read)
  code = '\ndef update_params(**arguments):\n  1 / 0\n'
  (tmp_path / 'submission.py').write_text(HONEST + code)
  command = changed(framework='pytorch', submission='submission.py', experiment_dir='runs')
  try:
    result = subprocess.run(
      [sys.executable, '-m', 'algorithmic_efficiency', *command],
      cwd=tmp_path,
      stdout=write,
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  finally:
    os.close(write)
  assert (result.returncode, result.stderr) == (1, '')
  assert record(trial_folder(tmp_path)).reason.startswith('ZeroDivisionError: division by zero (')
