"""Mistakes of a task: one message that names task, split and example, and no traceback."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trials import record, trial_folder
from warm import algoeff

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.data import streams
from algorithmic_efficiency.errors import UserError

TOYS = Path(__file__).parents[1] / 'toys' / 'workloads'

LISTED = "[example['target'] for example in examples]"
JOINED = f'np.array({LISTED}, np.int32)'
POINTS = "return {'inputs': point, 'targets': example['target']}"
DEATH = """if multiprocessing.parent_process():
      os._exit(3)"""
BY_DEATH = ('import time', 'import multiprocessing\nimport os\nimport time')


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
  """Copies a toy into a root of its own, with texts of one of its files replaced."""

  def change(toy: str, file: str, *changes: tuple[str, str]) -> Path:
    folder = tmp_path / 'root' / 'workloads' / toy
    shutil.copytree(TOYS / toy, folder, ignore=shutil.ignore_patterns('__pycache__'))
    text = (folder / file).read_text()
    for before, after in changes:
      assert text.count(before) == 1, before
      text = text.replace(before, after)
    (folder / file).write_text(text)
    return tmp_path / 'root'

  return change


# What streams say.

BAD_DATA = [
  pytest.param(
    ('toy_slow', 'data.py', (POINTS, "return {'inputs': [1.0, 2.0]}")),
    r'toy_slow, train, example \d+: inputs must be an array; it is list\.',
    id='no array',
  ),
  pytest.param(
    ('toy_slow', 'data.py', (POINTS, POINTS.replace('point,', "point[: 2 + example['target']],"))),
    r'toy_slow, train, example \d+: examples must have one structure; it is inputs float32\[\d\]',
    id='another structure',
  ),
  pytest.param(
    ('toy_graphs', 'data.py', (JOINED, LISTED)),
    r'toy_graphs, train, the batch of the examples \d+, \d+, \d+, \.\.\.: targets must be an ar',
    id='no array of a batch',
  ),
  pytest.param(
    ('toy_modalities', 'definition.py', ("('image', 1.0)", "('image', 0.0)")),
    r'toy_modalities, train: the weight of a source must be a positive number; that of image is',
    id='weight of a mixture',
  ),
  pytest.param(
    ('toy_modalities', 'data.py', ('lengths, data.row_length)', 'lengths, 3)')),
    r'toy_modalities, train, example \d+ of source text: a packed example must have a length fr',
    id='longer than a row',
  ),
]


@pytest.fixture
def own_roots(monkeypatch: pytest.MonkeyPatch):
  """Roots that are added in a test are gone after it."""
  monkeypatch.setattr(registry, '_roots', list(registry._roots))
  yield
  monkeypatch.undo()
  registry._forget()


@pytest.mark.parametrize(('change', 'message'), BAD_DATA)
def test_data_that_are_wrong(change, message, changed, own_roots, tmp_path):
  registry.add_root(changed(*change))
  definition = registry.workload(change[0])
  data = registry.module_of(definition, 'data')
  with pytest.raises(UserError, match=message):
    next(streams.train_stream(data, definition, tmp_path, 16, 0))


# What a run says.


def run(root: Path, toy: str, *flags: str, framework: str = 'pytorch'):
  return algoeff(
    *('run', '--path', root, '--workload', toy, '--framework', framework, '--submission', 'adamw'),
    *('--ruleset', 'self', '--num_threads', '1', '--experiment_dir', 'runs', '--quiet', *flags),
    cwd=root,
  )


WORKERS = ('--num_data_workers', '2')
BAD_TASKS = [
  pytest.param(
    ('toy_slow', 'data.py', (POINTS, "return {'inputs': [1.0, 2.0]}")),
    WORKERS,
    ['toy_slow, train, example ', ': inputs must be an array; it is list.'],
    id='no array, in a worker',
  ),
  pytest.param(
    ('toy_translation', 'model_torch.py', ("{'words': ", "{'wrods': ")),
    (),
    [
      'toy_translation (task toy_translation), split validation: ',
      "The metric 'bleu' reads the output 'words', which generate must give; the outputs are: ",
    ],
    id='output of a metric',
  ),
  pytest.param(
    ('toy_graphs', 'model_torch.py', ("'accuracy': (", "'acuracy': (")),
    (),
    ["split eval_train: The metric 'accuracy' takes its sums from eval_step, which gives acuracy,"],
    id='sums of a metric',
    marks=pytest.mark.long,
  ),
  pytest.param(
    ('toy_slow', 'data.py', ('return trees.stack(', 'return list(')),
    ('--smoke',),
    ['toy_slow, train, fake_batch: a batch must be a dict of arrays; it is list.'],
    id='generated batch',
    marks=pytest.mark.long,
  ),
]


@pytest.mark.slow
@pytest.mark.parametrize(('change', 'flags', 'parts'), BAD_TASKS)
def test_a_task_that_is_wrong_is_one_line_and_exit_code_2(change, flags, parts, changed):
  pytest.importorskip('torch')
  root = changed(*change)
  done = run(root, change[0], *flags)
  assert done.returncode == 2, done.stderr
  [line] = done.stderr.strip().splitlines()
  for part in parts:
    assert part in line
  assert not (root / 'runs').exists()


@pytest.mark.slow
def test_a_worker_that_ends_by_itself_ends_the_trial(changed):
  pytest.importorskip('torch')
  death = (POINTS, f'{DEATH}\n    {POINTS}')
  root = changed('toy_slow', 'data.py', BY_DEATH, death)
  done = run(root, 'toy_slow', *WORKERS)
  found = record(trial_folder(root))
  assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
  assert found.status == 'failed'
  assert 'The data worker algoeff-data-' in found.reason
  assert re.search(
    r'ended with exit code 3 while it was making batch \d of toy_slow, train', found.reason
  )


@pytest.mark.long
def test_an_exception_in_a_worker_is_named_with_its_example_and_traceback(changed):
  pytest.importorskip('torch')
  root = changed('toy_slow', 'data.py', (POINTS, f'assert 1 == 2\n    {POINTS}'))
  done = run(root, 'toy_slow', *WORKERS)
  folder = trial_folder(root)
  assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
  assert record(folder).reason.startswith('TaskError: toy_slow, train, example ')
  text = (folder / 'traceback.txt').read_text()
  assert 'assert 1 == 2' in text and str(root / 'workloads' / 'toy_slow' / 'data.py') in text
