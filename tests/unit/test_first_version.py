"""What commands say of a task folder that was written for the first version of the contract."""

from __future__ import annotations

import pytest

from algorithmic_efficiency import cli
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.launch import request

DEFINITION = """
import dataclasses
from workloads.vision import definition

BASE = definition.WORKLOADS['quick_vision']
WORKLOADS = {
  'former': dataclasses.replace(
    BASE, name='former', base='former', task='former', dataset='former', bundled=False
  ),
}
"""
DATA = 'def train_stream(): ...\ndef eval_stream(): ...\n'
COMMANDS = (
  'run --workload former --framework jax --submission nadamw --ruleset self',
  'check nadamw --workloads former',
  'plan --suite quick --workloads former --submissions nadamw --ruleset self --frameworks jax',
  'bench --suite quick --workloads former --submissions nadamw --ruleset self --frameworks jax',
  'calibrate former --submissions nadamw --trials 2 --seeds 2 --step_budget 30 --framework jax',
  'data prepare former',
  'data verify former',
  'list parameters former --framework jax',
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A task folder of the first version."""
  monkeypatch.setattr(registry, '_single_tasks', [])
  monkeypatch.setattr(request, 'check_installed', lambda framework: None)
  monkeypatch.setattr(request, 'installed', lambda: ('jax',))
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'former'
  folder.mkdir()
  (folder / 'definition.py').write_text(DEFINITION)
  (folder / 'data.py').write_text(DATA)
  for name in ('model_jax', 'model_torch', 'parity'):
    (folder / f'{name}.py').write_text('')
  yield folder
  monkeypatch.undo()
  registry._forget()


@pytest.mark.parametrize('command', COMMANDS)
def test_it_is_one_message_that_names_the_new_exports(folder, capsys, command):
  assert cli.main([*command.split(), '--workload_path', str(folder)]) == 2
  [line] = capsys.readouterr().err.splitlines()
  assert "The task 'former': data.py must export loader(definition, root, split), or" in line
  assert 'it has train_stream and eval_stream, of the first version' in line
  assert f'Change {folder}/data.py' in line
  assert not list(folder.parent.glob('*/*/trial.json'))


@pytest.mark.parametrize('name', ['run', 'check', 'plan', 'calibrate', 'list parameters'])
@pytest.mark.parametrize('former', ['eval_sums', 'predict'])
def test_so_are_models_of_the_first_version(folder, capsys, name, former):
  (folder / 'data.py').write_text('about = prepare = fake_batch = loader = None\n')
  (folder / 'model_jax.py').write_text(f'def loss(): ...\ndef {former}(): ...\n')
  [command] = [command for command in COMMANDS if command.startswith(name)]
  assert cli.main([*command.split(), '--workload_path', str(folder)]) == 2
  [line] = capsys.readouterr().err.splitlines()
  assert "The task 'former': model_jax.py must export eval_step(definition, batch, logits)" in line
  assert f'it has {former}, of the first version' in line


def test_lists_show_it_with_the_reason(folder, capsys):
  for command in ('list workloads', 'data list'):
    assert cli.main([*command.split(), '--workload_path', str(folder)]) == 0
    out = capsys.readouterr().out
    assert 'mnist' in out and "The task 'former': data.py must export" in out
