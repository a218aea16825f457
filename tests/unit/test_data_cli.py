from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import small_mnist

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry


@pytest.fixture
def source(tmp_path, monkeypatch):
  return small_mnist.write(tmp_path / 'raw', small_mnist.install(monkeypatch))


@pytest.fixture
def prepared(tmp_path, source):
  assert cli.main(['data', 'prepare', 'mnist', '--source', str(source), *at(tmp_path)]) == 0
  return tmp_path / 'mnist'


def at(folder):
  return ['--data_dir', str(folder)]


def listed(capsys, folder):
  capsys.readouterr()
  assert cli.main(['data', 'list', '--json', *at(folder)]) == 0
  return {entry['name']: entry for entry in json.loads(capsys.readouterr().out)}


def test_list_says_where_each_set_stands(tmp_path, capsys, source):
  entries = listed(capsys, tmp_path)
  assert entries['digits']['status'] == 'bundled'
  assert entries['digits']['licence'] == 'CC BY 4.0'
  assert 'quick_vision' in entries['digits']['workloads']
  assert entries['mnist']['status'] == 'missing'
  assert entries['mnist']['tfds'] == 'mnist'
  assert entries['fastmri']['status'] == 'planned'
  cli.main(['data', 'prepare', 'mnist', '--source', str(source), *at(tmp_path)])
  entry = listed(capsys, tmp_path)['mnist']
  assert entry['status'] == 'prepared'
  assert entry['folder'] == str(tmp_path / 'mnist')
  assert entry['num_bytes'] == sum(
    path.stat().st_size for path in (tmp_path / 'mnist').glob('*.npy')
  )
  (tmp_path / 'mnist' / 'test.inputs.npy').unlink()
  entry = listed(capsys, tmp_path)['mnist']
  assert entry['status'] == 'damaged'
  assert 'test.inputs.npy is missing' in entry['problem']


def test_list_in_words(tmp_path, capsys, prepared):
  (prepared / 'manifest.json').write_text('{}')
  assert cli.main(['data', 'list', *at(tmp_path)]) == 0
  out = capsys.readouterr().out
  lines = {line.split()[0]: line for line in out.splitlines()}
  assert lines['digits'].split()[1:4] == ['bundled', '57.5', 'kB']
  assert lines['mnist'].split()[1] == 'damaged'
  assert 'Prepare it again with: algoeff data prepare mnist --overwrite' in out


def test_prepare_takes_the_name_of_a_workload_and_reports(tmp_path, capsys, source):
  argv = ['data', 'prepare', 'mnist_relu', '--source', str(source), *at(tmp_path)]
  assert cli.main(argv) == 0
  captured = capsys.readouterr()
  assert captured.out == (
    f'{tmp_path}/mnist is ready: 50 train, 10 validation, 12 test examples, 57,504 bytes.\n'
  )
  assert 'read train-images-idx3-ubyte.gz' in captured.err


def test_the_data_folder_may_come_from_the_environment(tmp_path, monkeypatch, source, capsys):
  monkeypatch.setenv('ALGOEFF_DATA_DIR', str(tmp_path / 'there'))
  assert cli.main(['data', 'prepare', 'mnist', '--source', str(source)]) == 0
  assert (tmp_path / 'there' / 'mnist' / 'manifest.json').is_file()


def test_an_embedded_set_needs_nothing(capsys):
  assert cli.main(['data', 'prepare', 'quick_vision']) == 0
  assert 'is bundled: there is nothing to prepare' in capsys.readouterr().out


def test_verify_finds_a_flipped_byte(tmp_path, capsys, prepared):
  capsys.readouterr()
  assert cli.main(['data', 'verify', 'mnist', *at(tmp_path)]) == 0
  assert 'mnist is intact: 6 files, 57,504 bytes.' in capsys.readouterr().out
  path = prepared / 'validation.inputs.npy'
  content = bytearray(path.read_bytes())
  content[5000] ^= 4
  path.write_bytes(content)
  assert cli.main(['data', 'verify', 'mnist', *at(tmp_path)]) == 2
  assert f'{path} has changed since it was prepared' in capsys.readouterr().err
  assert cli.main(['data', 'verify', 'mnist', '--json', *at(tmp_path)]) == 2
  answer = json.loads(capsys.readouterr().out)
  assert not answer['intact']
  assert str(path) in answer['problem']


def test_verify_of_embedded_data(capsys):
  assert cli.main(['data', 'verify', 'digits', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['intact']


def test_generated_data_need_not_say_where_they_come_from(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(registry, '_roots', list(registry._roots))
  toys = Path(__file__).resolve().parents[1] / 'toys'
  try:
    assert cli.main(['data', 'verify', 'toy_graphs', '--path', str(toys), *at(tmp_path)]) == 0
    assert 'toy_graphs is intact' in capsys.readouterr().out
    assert listed(capsys, tmp_path)['toy_graphs']['num_bytes'] is None
  finally:
    monkeypatch.undo()
    registry._forget()


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['prepare', 'mnits'], "There is no data set 'mnits'. Did you mean 'mnist'?"),
    (['verify', 'digit'], "Did you mean 'digits'?"),
    (['verify', 'mnist'], 'algoeff data prepare mnist --data_dir'),
    (['verify', 'fastmri'], 'There is no code for fastmri yet'),
    (['prepare', 'fastmri'], 'There is no code for fastmri yet'),
    (['prepare', 'mnist', '--source', '/nonexistent'], '/nonexistent does not exist'),
    (['prepare', 'mnist', '--source', '/dev'], 'has no train-images-idx3-ubyte'),
    (['list', '--path', '/nonexistent'], '--path must be a directory'),
  ],
  ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, capsys, words, message):
  assert cli.main(['data', *words, *at(tmp_path)]) == 2
  captured = capsys.readouterr()
  assert message in captured.err
  assert captured.out == ''


@pytest.mark.parametrize('words', [[], ['prepare'], ['prepare', 'mnist', '--from', 'torch']])
def test_wrong_words_are_exit_code_2(capsys, words):
  with pytest.raises(SystemExit) as caught:
    cli.main(['data', *words])
  assert caught.value.code == 2
  assert 'See algoeff data' in capsys.readouterr().err


def test_a_terminal_gets_a_bar(tmp_path, prepared):
  ours, theirs = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-m', 'algorithmic_efficiency', 'data', 'verify', 'mnist', *at(tmp_path)],
    stdout=subprocess.DEVNULL,
    stderr=theirs,
    cwd=registry.HOME,
    env={**os.environ, 'TERM': 'xterm'},
  )
  os.close(theirs)
  shown = b''
  while True:
    try:
      block = os.read(ours, 4096)
    except OSError:  # the other end is closed
      break
    if not block:
      break
    shown += block
  os.close(ours)
  process.wait()
  assert '100%' in shown.decode()


def test_listing_imports_no_framework():
  script = (
    'import sys\n'
    'from algorithmic_efficiency import cli\n'
    'assert cli.main(["data", "list"]) == 0\n'
    'found = {"jax", "torch", "tensorflow", "tensorflow_datasets", "sklearn", "scipy", "rich"}\n'
    'assert not found & set(sys.modules), found & set(sys.modules)\n'
  )
  subprocess.run(
    [sys.executable, '-c', script], check=True, cwd=registry.HOME, stdout=subprocess.DEVNULL
  )
