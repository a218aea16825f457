"""What is found by folder: which folders count, whose file comes first, and what clashes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry, task_folder
from algorithmic_efficiency.errors import UserError

DEFINITION = """
import dataclasses
from workloads.vision import definition

BASE = definition.WORKLOADS['quick_vision']
WORKLOADS = {KEY: dataclasses.replace(BASE, name=NAME, base=NAME, task=TASK)}
"""


@pytest.fixture(autouse=True)
def own_roots(monkeypatch: pytest.MonkeyPatch):
  """Roots that are added in a test are gone after it."""
  monkeypatch.setattr(registry, '_roots', list(registry._roots))
  monkeypatch.setattr(registry, '_single_tasks', list(registry._single_tasks))
  yield
  monkeypatch.undo()
  registry._forget()


def add_submission(root: Path, name: str, *files: str, ruleset: str = 'self_tuning') -> Path:
  folder = root / 'submissions' / ruleset / name
  folder.mkdir(parents=True)
  for file in files:
    (folder / file).write_text('')
  return folder


def add_task(root: Path, folder: str, *, key: str = 'mine', name: str = '', task: str = '') -> Path:
  path = root / 'workloads' / folder
  path.mkdir(parents=True)
  text = DEFINITION.replace('KEY', repr(key)).replace('NAME', repr(name or key))
  (path / 'definition.py').write_text(text.replace('TASK', repr(task or folder)))
  return path


class TestSubmissions:
  def test_folders_that_begin_with_an_underscore_or_a_dot_are_skipped(self, tmp_path):
    for name in ('_private', '.hidden', 'open'):
      add_submission(tmp_path, name, 'submission.py')
    registry.add_root(tmp_path)
    new = {name for _, name in registry.submissions()} & {'_private', '.hidden', 'open'}
    assert new == {'open'}

  def test_a_folder_without_a_module_is_none(self, tmp_path):
    add_submission(tmp_path, 'empty', 'README.md')
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match=r"no .*'empty'"):
      registry.submission('empty', 'self')

  def test_the_module_of_a_framework_comes_before_that_of_both(self, tmp_path):
    both = add_submission(tmp_path, 'both', 'submission.py', 'submission_jax.py')
    registry.add_root(tmp_path)
    found = registry.submission('both', 'self')
    assert found.file('jax') == both / 'submission_jax.py'
    assert found.file('pytorch') == both / 'submission.py'
    assert found.frameworks == ('jax', 'pytorch')

  def test_one_module_of_a_framework_is_for_that_one_alone(self, tmp_path):
    add_submission(tmp_path, 'one', 'submission_pytorch.py')
    registry.add_root(tmp_path)
    found = registry.submission('one', 'self')
    assert (found.frameworks, found.file('jax')) == (('pytorch',), None)

  def test_the_first_root_that_has_a_name_wins(self, tmp_path):
    add_submission(tmp_path, 'nadamw', 'submission.py')
    registry.add_root(tmp_path)
    assert registry.submission('nadamw', 'self').folder.is_relative_to(registry.HOME)

  def test_a_name_is_looked_for_in_its_ruleset_alone(self, tmp_path):
    add_submission(tmp_path, 'mine', 'submission.py', ruleset='external_tuning')
    registry.add_root(tmp_path)
    assert registry.submission('mine', 'external').tuning_search_space is None
    with pytest.raises(UserError, match=r"no .*'mine'"):
      registry.submission('mine', 'self')


class TestTasks:
  def test_folders_that_begin_with_an_underscore_or_have_no_definition_are_skipped(self, tmp_path):
    add_task(tmp_path, '_private', key='private')
    add_task(tmp_path, 'open')
    (tmp_path / 'workloads' / 'empty').mkdir()
    registry.add_root(tmp_path)
    assert {'_private', 'open', 'empty'} & set(registry.tasks()) == {'open'}
    assert registry.workload('mine').task == 'open'

  def test_names_of_tasks_are_unique(self, tmp_path):
    add_task(tmp_path, 'vision')
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match="Task names must be unique; 'vision' is in"):
      registry.tasks()

  def test_names_of_workloads_are_unique(self, tmp_path):
    add_task(tmp_path, 'other', key='quick_vision')
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match="Workload names must be unique; 'quick_vision'"):
      registry.workloads()

  @pytest.mark.parametrize('wrong', [{'name': 'another'}, {'task': 'another'}])
  def test_a_definition_has_the_name_of_its_key_and_the_task_of_its_folder(self, tmp_path, wrong):
    add_task(tmp_path, 'other', **wrong)
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match=r"WORKLOADS\['mine'\] must have name='mine' and task='o"):
      registry.workloads()

  @pytest.mark.parametrize(
    ('text', 'said'),
    [
      ('X = 1 /', r"The task 'other': definition.py cannot be imported: SyntaxError: .*line 1\)"),
      ('\nraise ValueError("no target")', r': ValueError: no target \(.*definition\.py, line 2\)'),
      ('import no_such_module', "ModuleNotFoundError: No module named 'no_such_module'"),
      ('', 'definition.py: WORKLOADS must hold definitions by name; it is None'),
      ('WORKLOADS = [1]', r'WORKLOADS must hold definitions by name; it is \[1\]'),
      ('WORKLOADS = {"a": 1}', r"WORKLOADS\['a'\] must be a WorkloadDefinition; it is 1"),
    ],
  )
  def test_a_definition_that_is_none_is_told_with_its_place(self, tmp_path, text, said):
    (add_task(tmp_path, 'other') / 'definition.py').write_text(text)
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match=said):
      registry.workloads()

  def test_so_is_other_code_of_a_task(self, tmp_path):
    (add_task(tmp_path, 'other') / 'metrics.py').write_text('\n\nmetrics = 1 / 0')
    registry.add_root(tmp_path)
    with pytest.raises(UserError, match=r'metrics\.py cannot .* by zero \(.*metrics\.py, line 3\)'):
      registry.metrics_of(registry.workload('mine'))

  def test_a_root_holds_workloads_or_submissions(self, tmp_path):
    with pytest.raises(UserError, match='has neither'):
      registry.add_root(tmp_path)
    with pytest.raises(UserError, match='must be a task folder with a definition'):
      registry.add_task(tmp_path)


def test_members_are_the_base_and_held_out_workloads_of_a_suite():
  members = registry.members('algoperf_v05')
  roles = {name: one.suites['algoperf_v05'].role for name, one in members.items()}
  assert set(roles.values()) == {'base', 'held_out'}
  extra = {
    name
    for name, one in registry.workloads().items()
    if 'algoperf_v05' in one.suites and name not in members
  }
  assert {registry.workload(name).suites['algoperf_v05'].role for name in extra} <= {'extra'}


CONV_NET = registry.workload('quick_vision')  # its records are a ConvNet and VisionData
MLP = registry.workload('mnist')  # its records are an Mlp and VisionData
NAMES = 'about, prepare, fake_batch, loader, build, forward, loss, eval_step, to_torch, to_jax'
EXPORTS = f'from .others import {NAMES}\n'


class TestCode:
  """Which file has the code of a definition."""

  @pytest.fixture
  def task(self, tmp_path):
    """A task of two definitions whose models are of two classes."""
    task = task_folder.Task('mixed', tmp_path, 'mixed_of_a_test')
    (tmp_path / 'definition.py').write_text(
      'from workloads.vision.definition import WORKLOADS as _ALL\n'
      "WORKLOADS = {name: _ALL[name] for name in ('quick_vision', 'mnist')}\n"
    )
    yield task
    for name in [name for name in sys.modules if name.startswith(task.package)]:
      del sys.modules[name]
    task_folder.forget_files()

  @staticmethod
  def write(task, *names: str, text: str = EXPORTS):
    for name in names:
      (task.folder / f'{name}.py').write_text(text)

  def test_a_file_of_the_record_comes_before_that_of_the_task(self, task):
    self.write(task, 'conv_net_jax', 'model_jax', 'vision_data_data', 'conv_net_parity')
    assert task.code_file(CONV_NET, 'jax') == 'conv_net_jax'
    assert task.code_file(MLP, 'jax') == 'model_jax'
    assert task.code_file(CONV_NET, 'parity') == 'conv_net_parity'
    assert task.code_file(MLP, 'parity') is None
    assert {task.code_file(one, 'data') for one in (CONV_NET, MLP)} == {'vision_data_data'}

  def test_a_model_may_exist_in_one_framework_alone(self, task):
    self.write(task, 'conv_net_jax', 'mlp_torch', 'data')
    problems = {
      (one.name, framework): task.problem(one, framework)
      for one in (CONV_NET, MLP)
      for framework in ('jax', 'pytorch')
    }
    assert [key for key, problem in problems.items() if not problem] == [
      ('quick_vision', 'jax'),
      ('mnist', 'pytorch'),
    ]
    assert 'neither mlp_jax.py nor model_jax.py' in problems['mnist', 'jax']

  def test_a_missing_file_is_named_with_both_of_its_names(self, task):
    with pytest.raises(UserError, match=r'neither conv_net_torch\.py nor model_torch\.py in /'):
      task.code(CONV_NET, 'pytorch')

  def test_a_shared_file_that_no_definition_uses_is_refused(self, task):
    """Else an edit of it would change nothing, without a word."""
    self.write(task, 'conv_net_jax', 'mlp_jax', 'model_jax')
    with pytest.raises(UserError, match=r'has conv_net_jax\.py and model_jax\.py, which no other'):
      task.code(CONV_NET, 'jax')
    assert 'which no other' in task.problem(CONV_NET, 'jax')

  def test_code_is_imported_from_the_file_that_was_found(self, task):
    model = 'build = forward = loss = eval_step = None\n'
    self.write(task, 'conv_net_jax', text=f'WHICH = "own"\n{model}')
    self.write(task, 'model_jax', text=f'WHICH = "shared"\n{model}')
    assert [task.code(one, 'jax').WHICH for one in (CONV_NET, MLP)] == ['own', 'shared']

  @pytest.mark.parametrize(
    ('text', 'found'),
    [
      (
        'def train_stream(): ...\ndef eval_stream(): ...\n',
        'has train_stream and eval_stream, of the first version',
      ),
      ('def fake_batch(): ...\n', 'has neither'),
    ],
  )
  def test_a_file_of_the_first_version_is_told_what_it_must_have(self, task, text, found):
    self.write(task, 'data', text=text)
    for problem in (task.problem(MLP, 'data'), str(refusal(task, MLP, 'data'))):
      assert "The task 'mixed': data.py must export loader(definition, root, split)" in problem
      assert 'or source(definition, root, split) with transform(definition, train)' in problem
      assert found in problem and str(task.folder / 'data.py') in problem

  @pytest.mark.parametrize(
    'text',
    [
      'from .shared import source, transform, fake_batch\n',
      'from .shared import *\n',
      'loader = fake_batch = 1\n',
      'fake_batch: int = 1\nloader: int = 1\n',
      'def fake_batch(): ...\ntry:\n  import a\nexcept ImportError:\n  def loader(): ...\n',
      '(',
    ],
    ids=['imported', 'star', 'assigned', 'annotated', 'in a block', 'no Python'],
  )
  def test_a_file_that_may_have_the_exports_is_left_to_its_import(self, task, text):
    self.write(task, 'data', text=text)
    assert task.problem(dataclasses.replace(MLP, bundled=True), 'data') == ''

  def test_data_that_are_not_bundled_need_their_preparation(self, task):
    self.write(task, 'data', text='about = fake_batch = loader = None\n')
    found = task.problem(MLP, 'data')
    assert 'data.py must export fake_batch, about, prepare; it lacks prepare. Add what' in found
    assert 'or set bundled=True if mnist needs no preparation' in found
    assert task.problem(dataclasses.replace(MLP, bundled=True), 'data') == ''

  @pytest.mark.parametrize(
    ('kind', 'name', 'text', 'missing'),
    [
      ('data', 'data', 'source = about = prepare = None\n', 'fake_batch, transform'),
      ('jax', 'model_jax', 'build = loss = eval_step = None\n', 'forward'),
      ('parity', 'parity', 'to_jax = None\n', 'to_torch'),
    ],
  )
  def test_what_a_file_lacks_is_said_before_anything_starts(self, task, kind, name, text, missing):
    self.write(task, name, text=text)
    assert f'it lacks {missing}. Add what is missing' in task.problem(MLP, kind)
    assert f'{name}.py must export' in str(refusal(task, MLP, kind))

  @pytest.mark.parametrize(
    ('name', 'expected'),
    [
      ('ConvNet', 'conv_net'),
      ('Mlp', 'mlp'),
      ('LSTMModel', 'lstm_model'),
      ('ResNet50', 'res_net50'),
    ],
  )
  def test_files_are_named_in_snake_case(self, name, expected):
    assert task_folder._snake_case(name) == expected


def refusal(task, definition, kind) -> UserError:
  with pytest.raises(UserError) as caught:
    task.code(definition, kind)
  return caught.value
