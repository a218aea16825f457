"""What an entry lacks on this machine, in words."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from algorithmic_efficiency.trial import failure


def raised(file: Path, code: str) -> Exception:
  """What a submission module of that code raises."""
  file.write_text(code)
  with pytest.raises(Exception) as caught:
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
    ('import json.no_such_part', ('needs json.no_such_part', 'the json found here')),
    ('raise RuntimeError("Found no NVIDIA driver on your system.")', ('needs a CUDA GPU',)),
    ('raise AssertionError("Torch not compiled with CUDA enabled")', ('needs a CUDA GPU',)),
    (
      'raise ValueError("Default process group has not been initialized")',
      ('needs several processes', 'has 1 process', '--num_devices'),
    ),
    ('raise ValueError("The world size is 1.")', ('refuses to run here, with 1 process', 'is 1 (')),
  ],
)
def test_what_is_missing_is_said_with_the_place(file, code, parts):
  message = failure.missing_requirement(raised(file, f'\n{code}'), file)
  for part in (*parts, f'({file}, line 2)'):
    assert part in message


def test_requirements_are_named(file):
  file.with_name('requirements.txt').write_text('')
  assert f'pip install -r {file.with_name("requirements.txt")}' in failure.missing_requirement(
    raised(file, 'import no_such_package'), file
  )


@pytest.mark.parametrize(
  'code', ['1 / 0', 'raise TypeError("x")', 'int("x")', 'import json\njson.loads("x")']
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


def test_what_a_terminal_or_a_file_could_not_take_is_escaped(file):
  error = FileNotFoundError('\x1b[31mr\xf6t \udcff\x00')
  assert failure.one_line(error, file) == r'FileNotFoundError: \x1b[31mröt \udcff\x00'
