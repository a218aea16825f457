"""What an entry lacks on this machine, in words."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from algorithmic_efficiency.compat import imports, packages
from algorithmic_efficiency.trial import failure

ROOT = Path(__file__).parents[2]


def raised(file: Path, code: str) -> BaseException:
  """What a submission module of that code raises."""
  file.write_text(code)
  with pytest.raises(BaseException) as caught:
    runpy.run_path(str(file))
  return caught.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
  return tmp_path / 'submission.py'


@pytest.mark.parametrize(
  ('code', 'parts'),
  [
    ('import no_such_package.part', ('needs no_such_package', 'pip install no_such_package')),
    ('raise ModuleNotFoundError("x", name="haiku")', ('needs haiku', 'pip install dm-haiku')),
    (
      'raise ModuleNotFoundError("x", name="flax")',
      ('needs flax', "pip install 'algorithmic-efficiency[jax]'"),
    ),
    ('import __import__', ('imports __import__, which can be the name of no package',)),
    ('import winreg', ('imports winreg, which is a part of Python that this one lacks',)),
    ('import json.no_such_part', ('needs json.no_such_part', 'the json found here')),
    ('raise RuntimeError("Found no NVIDIA driver on your system.")', ('needs a CUDA GPU',)),
    ('raise AssertionError("Torch not compiled with CUDA enabled")', ('needs a CUDA GPU',)),
    (
      'raise ValueError("Default process group has not been initialized")',
      ('needs several processes', 'has 1 process', '--num_devices'),
    ),
    ('raise ValueError("The world size is 1.")', ('refuses to run here, with 1 process', 'is 1 (')),
    ('raise KeyError("no such device")', ('refuses to run here', "KeyError: 'no such device'")),
    ('raise type("Unfit", (Exception,), {})("eight GPUs")', ('refuses', 'Unfit: eight GPUs')),
    ('if True: raise TypeError("x")', ('refuses to run here', 'TypeError: x')),
    ('assert 1 == 8, "8 processes"', ('refuses to run here', 'AssertionError: 8 processes')),
    ('import sys; sys.exit("8 processes")', ('refuses to run here', 'SystemExit: 8 processes')),
  ],
)
def test_what_is_missing_is_said_with_the_place(file, code, parts):
  message = failure.missing_requirement(raised(file, f'\n{code}'), file)
  for part in (*parts, f'({file}, line 2)'):
    assert part in str(message)
  assert (message.file, message.line) == (str(file), 2)


@pytest.mark.parametrize('name', ['__import__', '_x', 'x_', 'winreg', 'näme'])
def test_nothing_is_to_be_installed_that_no_package_can_be_called(name, file):
  """Regression: the advice was `pip install __import__`."""
  error = failure.missing_requirement(raised(file, f'import {name}'), file)
  assert 'pip' not in str(error) and 'Correct the import' in str(error)


def test_requirements_are_named(file):
  file.with_name('requirements.txt').write_text('')
  error = failure.missing_requirement(raised(file, 'import no_such_package'), file)
  assert f'pip install -r {file.with_name("requirements.txt")}' in str(error)


@pytest.mark.parametrize('name', ['chex', 'jraph', 'optax'])
def test_what_most_entries_import_is_in_an_extra(file, name):
  """Regression: the advice for chex was a package of its own."""
  error = failure.missing_requirement(
    raised(file, f'raise ModuleNotFoundError("x", name="{name}")'), file
  )
  assert "pip install 'algorithmic-efficiency[jax]'" in str(error)


def test_a_part_of_algoperf_that_is_not_offered_is_told_with_what_is(file):
  with imports.installed():
    error = failure.missing_requirement(raised(file, '\nimport algoperf.workloads.mnist'), file)
  for part in ('algoperf.workloads is not offered', 'random_utils', f'({file}, line 2)'):
    assert part in str(error)


def test_the_extra_that_is_named_installs_the_package():
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  for name, extra in packages.EXTRAS.items():
    installed = {canonicalize_name(Requirement(line).name) for line in extras[extra]}
    assert canonicalize_name(packages.DISTRIBUTIONS.get(name, name)) in installed


@pytest.mark.parametrize(
  'code', ['1 / 0', 'int("x")', '{}["x"]', '[].x', 'f()', 'import json\njson.loads("x")']
)
def test_a_mistake_of_the_entry_is_none(file, code):
  assert failure.missing_requirement(raised(file, code), file) is None


def test_what_others_raise_is_none(file):
  assert failure.missing_requirement(ValueError('The world size is 1.'), file) is None
  assert failure.missing_requirement(ModuleNotFoundError('x', name='x'), file) is None


def test_an_exception_in_a_line(file):
  error = raised(file, 'def f():\n  raise KeyError("a\\nb")\n\nf()')
  assert failure.one_line(error, file) == f"KeyError: 'a\\nb' ({file}, line 2)"
  assert failure.one_line(ValueError('one:\n  two.\n'), file) == 'ValueError: one: two'
  assert failure.one_line(ValueError('x' * 500), file) == f'ValueError: {"x" * 388} ...'
  assert failure.one_line(KeyboardInterrupt(), file) == 'KeyboardInterrupt'


def test_a_line_of_the_task_is_named_beside_that_of_the_submission(tmp_path):
  file, model = tmp_path / 'entry' / 'submission.py', tmp_path / 'task' / 'model_jax.py'
  for path in (file, model):
    path.parent.mkdir()
  model.write_text('def forward():\n  return 1 / 0\n')
  load = f'import runpy\nruntime = runpy.run_path({str(model)!r})\n'
  error = raised(file, f'{load}runtime["forward"]()')
  place = f'({file}, line 3 and {model}, line 2)'
  assert (
    failure.one_line(error, file, model.parent) == f'ZeroDivisionError: division by zero {place}'
  )


def test_what_a_terminal_or_a_file_could_not_take_is_escaped(file):
  error = FileNotFoundError('\x1b[31mr\xf6t \udcff\x00')
  assert failure.one_line(error, file) == r'FileNotFoundError: \x1b[31mröt \udcff\x00'
