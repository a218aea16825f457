"""Every task exports the same functions with the same arguments, and nothing else."""

from __future__ import annotations

import ast
import inspect

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.task_folder import KINDS, PREPARATION

ARGUMENTS = {
  'data': {
    'about': ['definition'],
    'prepare': ['definition', 'source', 'out', 'progress'],
    'loader': ['definition', 'root', 'split'],
    'source': ['definition', 'root', 'split'],
    'transform': ['definition', 'train'],
    'collate': ['definition'],
    'mix_batch': ['definition'],
    'fake_batch': ['definition', 'batch_size', 'seed'],
    'fake_eval_batch': ['definition', 'batch_size', 'seed'],
  },
  'model': {
    'build': ['definition', '*dtype'],
    'forward': ['model', 'batch', '*train', '*use_running_average', '*dropout_rate'],
    'loss': ['definition', 'targets', 'logits', 'mask', 'label_smoothing'],
    'eval_step': ['definition', 'batch', 'logits'],
    'generate': ['definition', 'model', 'batch', '*is_last'],
  },
  'metrics': {'metrics': ['definition', 'root']},
  'parity': {
    'to_torch': ['definition', 'params', 'model_state'],
    'to_jax': ['definition', 'state_dict'],
  },
}
OPTIONAL_ARGUMENTS = {'forward': {'*aux_dropout_rate'}}  # by function
OPTIONAL = {
  'generate',
  'loader',
  'source',
  'transform',
  'collate',
  'mix_batch',
  'fake_eval_batch',
}
DEFAULTS = {'mask': None, 'label_smoothing': 0.0, 'aux_dropout_rate': 0.0}

FRAMEWORKS = {'jax': 'jax', 'pytorch': 'torch'}
TASKS = {'ids': lambda task: task.name}
DEFINITIONS = [one for one in registry.workloads().values() if one.smoke is not None]
NAMES = {'ids': lambda definition: definition.name}


def files(definition) -> dict[str, str]:
  """The module with the code of a definition, by kind, where there is one."""
  task = registry.task_of(definition)
  found = {kind: task.code_file(definition, kind) for kind in KINDS}
  return {kind: name for kind, name in found.items() if name is not None}


# Task, module and kind of each file; another definition may share it.
FILES = list(
  dict.fromkeys(
    (registry.task_of(one), name, kind) for one in DEFINITIONS for kind, name in files(one).items()
  )
)


def each_file():
  return pytest.mark.parametrize(
    ('task', 'name', 'kind'), FILES, ids=[f'{task.name}-{name}' for task, name, _ in FILES]
  )


def optional_in(task, name) -> set[str]:
  """Names that a file may lack: `about` and `prepare`, too, where all its data are bundled."""
  users = [one for one in DEFINITIONS if registry.task_of(one) == task]
  users = [one for one in users if name in files(one).values()]
  return OPTIONAL | (set(PREPARATION) if all(one.bundled for one in users) else set())


def expected_of(kind) -> dict[str, list[str] | None]:
  return ARGUMENTS['model' if kind in FRAMEWORKS else kind]


def public_names(path) -> set[str]:
  """Names without underscore that the top level of a file defines, imports apart."""
  names = set()
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      names.add(node.name)
    elif isinstance(node, ast.Assign):
      names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      names.add(node.target.id)
  return {name for name in names if not name.startswith('_')}


def names_of_siblings(path) -> set[str]:
  """Names that the top level of a file imports from other files of its task."""
  nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
  return {one.asname or one.name for node in nodes if node.level == 1 for one in node.names}


def import_or_skip(task, name, kind):
  if kind in FRAMEWORKS:
    pytest.importorskip(FRAMEWORKS[kind])
  return task.module(name)


@each_file()
def test_a_file_exports_the_functions_of_its_kind_and_nothing_else(task, name, kind):
  """It may have some of them from another file of the task, such as the loss of all its models."""
  file, expected = task.folder / f'{name}.py', set(expected_of(kind))
  found = public_names(file) | (names_of_siblings(file) & expected)
  assert expected - optional_in(task, name) <= found <= expected


@each_file()
def test_exported_functions_take_the_agreed_arguments(task, name, kind):
  module = import_or_skip(task, name, kind)
  for function, expected in expected_of(kind).items():
    if function in optional_in(task, name) and not hasattr(module, function):
      continue
    parameters = inspect.signature(getattr(module, function)).parameters.values()
    found = [
      f'*{one.name}' if one.kind is inspect.Parameter.KEYWORD_ONLY else one.name
      for one in parameters
    ]
    optional = OPTIONAL_ARGUMENTS.get(function, set())
    assert [one for one in found if one not in optional] == expected, function
    for one in parameters:
      if one.name in DEFAULTS:
        assert one.default == DEFAULTS[one.name]
      elif one.name != 'dtype':
        assert one.default is inspect.Parameter.empty


@pytest.mark.parametrize('definition', DEFINITIONS, **NAMES)
def test_examples_come_from_a_loader_or_from_a_source(definition):
  data = registry.module_of(definition, 'data')
  assert hasattr(data, 'loader') != hasattr(data, 'source')
  assert hasattr(data, 'source') == hasattr(data, 'transform')
  assert hasattr(data, 'source') or not hasattr(data, 'collate')


@pytest.mark.parametrize('definition', DEFINITIONS, **NAMES)
def test_the_files_of_a_definition_come_together(definition):
  """It has data and a model, or data, both models and their map; and metrics, if it needs them."""
  has = set(files(definition)) - {'metrics'}
  assert has in ({'data', 'jax'}, {'data', 'pytorch'}, {'data', 'jax', 'pytorch', 'parity'})


@pytest.mark.parametrize('task', registry.tasks().values(), **TASKS)
def test_every_file_that_looks_like_code_of_a_definition_is_that_of_one(task):
  """A file with a misspelled name would be passed over without a word."""
  used = {name for other, name, _ in FILES if other == task}
  endings = ('_data', '_jax', '_torch', '_parity', '_metrics')
  named = {path.stem for path in task.folder.glob('*.py') if path.stem.endswith(endings)}
  assert named <= used


@pytest.mark.parametrize('task', registry.tasks().values(), **TASKS)
def test_a_definition_file_exports_workloads_and_records(task):
  tree = ast.parse((task.folder / 'definition.py').read_text())
  classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
  records = {name for name in classes if not name.startswith('_')}
  assert public_names(task.folder / 'definition.py') == {'WORKLOADS'} | records
