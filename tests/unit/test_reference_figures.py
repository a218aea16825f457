"""The reference figures of a task are read strictly: a misspelled name would check nothing."""

from __future__ import annotations

import json
import sys

import pytest
import reference_figures

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.task_folder import Task


@pytest.fixture
def task(tmp_path):
  (tmp_path / 'definition.py').write_text('WORKLOADS = {"mine": None}')
  yield Task('own', tmp_path, 'figures_of_a_test')
  for name in [name for name in sys.modules if name.startswith('figures_of_a_test')]:
    del sys.modules[name]


def read(task, content):
  (task.folder / reference_figures.FILE).write_text(json.dumps(content))
  return reference_figures.read(task)


def test_a_task_without_the_file_has_none(task):
  assert reference_figures.read(task) == {}


def test_figures_may_be_left_out(task):
  figures = read(task, {'mine': {'source': 'a paper', 'parameters': {'jax': {'w': [2, 3]}}}})
  assert figures['mine'].parameters == {'jax': {'w': (2, 3)}}
  assert figures['mine'].num_parameters is None


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ({'mien': {'source': 'a paper'}}, "must name workloads of its task; 'mien' is none"),
    ({'mine': {}}, 'mine: .*source'),
    ({'mine': {'source': 'a paper', 'num_params': 3}}, 'num_params'),
    ({'mine': {'source': 'a paper', 'parameters': {'torch': {}}}}, 'torch'),
    ({'mine': {'source': 'a paper', 'parameters': {'jax': {'w': ['3']}}}}, 'Expected `int`'),
  ],
)
def test_what_is_wrong_is_named(task, content, message):
  with pytest.raises(ValueError, match=message):
    read(task, content)


def test_the_published_models_have_figures():
  known = {name for task in registry.tasks().values() for name in reference_figures.read(task)}
  assert {'mnist', 'finewebedu_lm'} <= known
