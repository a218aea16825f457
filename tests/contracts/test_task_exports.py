"""Every task exports the same functions with the same arguments, and nothing else."""

from __future__ import annotations

import ast
import inspect

import pytest

from algorithmic_efficiency.benchmark import registry

ARGUMENTS = {
  'data': {
    'about': ['definition'],
    'prepare': ['definition', 'source', 'out', 'progress'],
    'loader': ['definition', 'root', 'split'],
    'source': ['definition', 'root', 'split'],
    'transform': ['definition', 'train'],
    'collate': ['definition'],
    'fake_batch': ['definition', 'batch_size', 'seed'],
  },
  'model': {
    'build': ['definition', '*dtype'],
    'forward': ['model', 'batch', '*train', '*use_running_average', '*dropout_rate'],
    'loss': ['definition', 'targets', 'logits', 'mask', 'label_smoothing'],
    'eval_sums': ['definition', 'batch', 'logits'],
    'predict': None,  # its arguments are the metric's business
  },
  'parity': {
    'to_torch': ['definition', 'params', 'model_state'],
    'to_jax': ['definition', 'state_dict'],
  },
}
OPTIONAL = {'predict', 'loader', 'source', 'transform', 'collate'}
DEFAULTS = {'mask': None, 'label_smoothing': 0.0}

FILES = [
  (task, name, name.partition('_')[0])
  for task in registry.tasks().values()
  for name in ('data', 'model_jax', 'model_torch', 'parity')
  if task.has(name)
]


def each_file():
  return pytest.mark.parametrize(
    ('task', 'name', 'kind'), FILES, ids=[f'{task.name}-{name}' for task, name, _ in FILES]
  )


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


def import_or_skip(task, name):
  for framework in ('jax', 'torch'):
    if name == f'model_{framework}':
      pytest.importorskip(framework)
  return task.module(name)


@each_file()
def test_a_file_exports_the_functions_of_its_kind_and_nothing_else(task, name, kind):
  found = public_names(task.folder / f'{name}.py')
  expected = set(ARGUMENTS[kind])
  assert expected - OPTIONAL <= found <= expected


@each_file()
def test_exported_functions_take_the_agreed_arguments(task, name, kind):
  module = import_or_skip(task, name)
  for function, expected in ARGUMENTS[kind].items():
    if expected is None or (function in OPTIONAL and not hasattr(module, function)):
      continue
    parameters = inspect.signature(getattr(module, function)).parameters.values()
    found = [
      f'*{one.name}' if one.kind is inspect.Parameter.KEYWORD_ONLY else one.name
      for one in parameters
    ]
    assert found == expected, function
    for one in parameters:
      if one.name in DEFAULTS:
        assert one.default == DEFAULTS[one.name]
      elif one.name != 'dtype':
        assert one.default is inspect.Parameter.empty


@pytest.mark.parametrize(
  'task', [task for task, name, _ in FILES if name == 'data'], ids=lambda task: task.name
)
def test_examples_come_from_a_loader_or_from_a_source(task):
  data = task.module('data')
  assert hasattr(data, 'loader') != hasattr(data, 'source')
  assert hasattr(data, 'source') == hasattr(data, 'transform')
  assert hasattr(data, 'source') or not hasattr(data, 'collate')


@pytest.mark.parametrize('task', registry.tasks().values(), ids=lambda task: task.name)
def test_the_files_of_a_task_come_together(task):
  """A folder has a definition alone, or data and a model, or data, both models and their map."""
  has = {name for name in ('data', 'model_jax', 'model_torch', 'parity') if task.has(name)}
  assert has in (
    set(),
    {'data', 'model_jax'},
    {'data', 'model_torch'},
    {'data', 'model_jax', 'model_torch', 'parity'},
  )


@pytest.mark.parametrize('task', registry.tasks().values(), ids=lambda task: task.name)
def test_a_definition_file_exports_workloads_and_records(task):
  tree = ast.parse((task.folder / 'definition.py').read_text())
  records = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
  assert public_names(task.folder / 'definition.py') == {'WORKLOADS'} | records
