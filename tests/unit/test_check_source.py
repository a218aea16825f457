"""What `algoeff check` finds by reading a submission."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.check_rules import KINDS
from algorithmic_efficiency.experiments.check import source as check_source

MARK = '# here'

# What each of these says on the line that is marked. Everything stands in `update_params`, or
# before it where it is not indented.
FOUND = {
  'workload_name': [
    "if str(workload) == 'ogbg': return  # here",
    "rate = {'imagenet_resnet': 0.1, 1: 2}  # here",
    "if 'librispeech' in str(workload): return  # here",
    "if str(workload).startswith('imagenet'): return  # here",
  ],
  'workload_identity': [
    'print(workload.definition.name)  # here',
    'print(type(workload).__name__)  # here',
    'print(workload.__class__)  # here',
    'if workload.num_train_examples == 1281167: return  # here',
    'if workload.step_hint in (10_666, 52_000): return  # here',
    'rate = {10_666: 0.1}.get(workload.step_hint)  # here',
    'rate = {10_666: 0.1}[workload.step_hint]  # here',
  ],
  'environment': [
    "import os\nos.environ['XLA_FLAGS'] = ''  # here",
    "from os import environ\nenviron.setdefault('XLA_FLAGS', '')  # here",
    "import os\ndel os.environ['HOME']  # here",
    "import os\nos.putenv('A', 'b')  # here",
  ],
  'settings': [
    'import torch\ntorch.set_num_threads(8)  # here',
    'import torch\ntorch.backends.cudnn.benchmark = True  # here',
    "import jax\njax.config.update('jax_enable_x64', True)  # here",
    'from jax import config\nconfig.jax_debug_nans = True  # here',
  ],
  'threads': [
    'import threading\nthreading.Thread(target=print).start()  # here',
    "import subprocess\nsubprocess.run(['nvidia-smi'])  # here",
    'from concurrent import futures\nfutures.ThreadPoolExecutor()  # here',
  ],
  'data': [
    "workload._build_input_queue(0, 'test', '', 8)  # here",
    'workload.eval_model()  # here',
  ],
  'files': [
    "import numpy as np\nweights = np.load('weights.npy')  # here",
    "import torch\ntorch.load('weights.pt')  # here",
    "open('weights')  # here",
  ],
  'harness': [
    'from algorithmic_efficiency import clock  # here',
    'from workloads.vision import data  # here',
    'import time\ntime.perf_counter = lambda: 0  # here',
    'workload.loss_fn = None  # here',
    "setattr(workload, 'loss_fn', None)  # here",
    'import sys\nsys._getframe(1)  # here',
  ],
  'untimed_hook': [
    'import atexit\natexit.register(print)  # here',
    'class Kept:\n  def __del__(self):  # here\n    print()',
  ],
  'network': [
    "import urllib.request\nurllib.request.urlopen('http://a')  # here",
    'import socket\nsocket.socket()  # here',
  ],
}

ALLOWED = """
  import os
  from algorithmic_efficiency import spec
  from .sizes import SIZES

  OTHERS = {'criteo1tb': 262_144}


  def known(name):
    return OTHERS[name] if name in OTHERS else SIZES['wmt']


  def get_batch_size(workload_name):
    if workload_name == 'mnist' or workload_name.startswith('imagenet'):
      return 8
    return known(workload_name)


  def update_params(workload, hyperparameters, **arguments):
    '''As on mnist.'''
    steps = workload.step_hint // 20
    if steps > 3 and workload.loss_type is not None and os.environ.get('HOME'):
      return workload.param_shapes, {'quick': 1}, f'validation/{workload.target_metric_name}'
    return hyperparameters
"""
SIZES = "SIZES = {'wmt': 128}\n"


def write(folder: Path, text: str, name: str = 'submission.py') -> Path:
  file = folder / name
  file.write_text(textwrap.dedent(text))
  return file


def place(file: Path) -> int:
  lines = file.read_text().splitlines()
  return next(number for number, line in enumerate(lines, 1) if MARK in line)


@pytest.mark.parametrize(
  ('kind', 'code'), [(kind, code) for kind, codes in FOUND.items() for code in codes]
)
def test_what_breaks_a_rule_is_found_where_it_stands(kind: str, code: str, tmp_path: Path):
  body = textwrap.indent(code, '  ')
  file = write(tmp_path, f'def update_params(workload):\n{body}\n')
  [finding] = check_source.findings(file)
  assert (finding.kind, finding.file, finding.line) == (kind, str(file), place(file))


def test_every_kind_that_is_found_by_reading_is_here():
  by_reading = {name for name, kind in KINDS.items() if kind.found_by != 'running'}
  assert by_reading == {*FOUND, 'info', 'syntax'}


INFO = """
submission_name: a
submission_folder: external_tuning/a
authors: b
affiliations: c
ruleset: self-tuning
framework: PyTorch
description: d
"""


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('authors: "b\n', 'no YAML'),
    ('authors: {[1]: 2}\n', 'no YAML: found unhashable key (line 1)'),
    ('- authors\n', 'of type list'),
    ('', 'of type NoneType'),
    (INFO.replace('authors: b', 'authors: ""'), 'lacks the text of authors.'),
    (INFO.replace('affiliations: c', ''), 'lacks the text of affiliations.'),
    (INFO.replace('PyTorch', '[PyTorch]'), 'lacks the text of framework.'),
    (INFO.replace('PyTorch', 'TensorFlow'), "framework must be jax or pytorch; it is 'TensorFlow'"),
    (INFO.replace('self-tuning', '3'), 'ruleset must be external or self; it is 3.'),
  ],
)
def test_an_info_file_that_algoperf_would_refuse_is_an_error(text: str, said: str, tmp_path: Path):
  file = write(tmp_path, 'import jax\n')
  (tmp_path / 'submission_info.yml').write_text(text)
  [finding] = check_source.findings(file)
  assert finding.kind == 'info' and said in finding.text
  (tmp_path / 'submission_info.yml').write_text(INFO)
  assert check_source.findings(file) == []


def test_the_batch_size_may_depend_on_the_name_and_nothing_else_does(tmp_path: Path):
  write(tmp_path, SIZES, 'sizes.py')
  file = write(tmp_path, ALLOWED)
  assert check_source.findings(file) == []


def test_a_table_of_the_batch_sizes_that_steps_use_too_is_found(tmp_path: Path):
  write(tmp_path, SIZES, 'sizes.py')
  file = write(tmp_path, ALLOWED + '\n\n  def data_selection():\n    return known(1)\n')
  lines = file.read_text().splitlines()
  table = next(number for number, line in enumerate(lines, 1) if line.startswith('OTHERS'))
  found = {(Path(one.file).name, one.kind, one.line) for one in check_source.findings(file)}
  assert ('submission.py', 'workload_name', table) in found
  assert ('sizes.py', 'workload_name', 1) in found


def test_files_that_are_not_imported_are_not_read(tmp_path: Path):
  write(tmp_path, "import os\nos.environ['A'] = 'b'\n", 'another.py')
  assert check_source.findings(write(tmp_path, 'import json\n')) == []


def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path: Path):
  write(tmp_path, 'x = (\n', 'broken.py')
  file = write(tmp_path, 'from . import broken\n')
  [finding] = check_source.findings(file)
  assert (finding.kind, finding.file, finding.line) == ('syntax', str(tmp_path / 'broken.py'), 1)
  assert check_source.functions(file) == {}


def test_functions_are_found_where_they_are_defined_last(tmp_path: Path):
  write(tmp_path, 'def data_selection():\n  pass\n', 'other.py')
  text = 'from .other import data_selection\ndef f():\n  pass\ndef f():\n  pass\n'
  found = check_source.functions(write(tmp_path, text))
  assert found['f'] == (str(tmp_path / 'submission.py'), 4)
  assert found['data_selection'] == (str(tmp_path / 'other.py'), 1)


def our_files() -> list[Path]:
  entries = registry.submissions().values()
  return [file for entry in entries for name in entry.frameworks if (file := entry.file(name))]


@pytest.mark.parametrize('file', our_files(), ids=lambda file: '/'.join(file.parts[-3:]))
def test_our_own_submissions_show_nothing(file: Path):
  assert check_source.findings(file) == []
