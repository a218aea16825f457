"""The files of an entry by whatever names it knows them, and nothing of it left for the next."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from algorithmic_efficiency.compat import submission_finder

OFFICIAL = 'submissions.submissions_algorithms_v0_5.AlgoPerf_Team_99.external_tuning'


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
  submission_finder.leave()  # what tests of others have loaded
  modules, path = dict(sys.modules), list(sys.path)
  yield
  submission_finder.leave()
  assert {n: m for n, m in sys.modules.items() if n in modules} == modules
  assert sys.path == path
  assert not [
    finder for finder in sys.meta_path if isinstance(finder, submission_finder.SubmissionFinder)
  ]


def make(folder: Path, **files: str) -> Path:
  """Writes files, whose names have `__` for a slash, and returns the submission module."""
  for name, content in files.items():
    file = folder / f'{name.replace("__", "/")}.py'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
  return folder / 'submission.py'


def load(folder: Path, **files: str) -> types.ModuleType:
  return submission_finder.load(make(folder, **files)).module


class TestNames:
  def test_relative_imports_need_no_init(self, tmp_path):
    module = load(
      tmp_path,
      submission='from .inner import deep\nfrom . import beside\nfrom .beside import VALUE',
      inner__deep='from .. import beside\nfrom ..beside import VALUE',
      beside='VALUE = object()',
    )
    assert module.deep.beside is module.beside
    assert module.deep.VALUE is module.VALUE

  def test_an_init_is_executed_once(self, tmp_path):
    (tmp_path / 'inner').mkdir()
    (tmp_path / '__init__.py').write_text('VALUE = []\nVALUE.append(1)')
    (tmp_path / 'inner' / '__init__.py').write_text('from .. import VALUE\nVALUE.append(2)')
    module = load(tmp_path, submission='from . import VALUE\nfrom . import inner')
    assert module.VALUE == [1, 2]

  @pytest.mark.parametrize('folder', ['the_entry', 'renamed'])
  @pytest.mark.parametrize(
    'line',
    [
      f'import {OFFICIAL}.the_entry.part as part',
      f'from {OFFICIAL}.the_entry import part',
      f'from {OFFICIAL}.the_entry.part import VALUE',
      f'import {OFFICIAL}.the_entry.part',
      'from submissions.self_tuning.the_entry import part',
      'from submissions_algorithms.leaderboard.external_tuning.the_entry.part import VALUE',
      'import part',
      'from part import VALUE',
    ],
  )
  def test_absolute_names_mean_the_entry_s_own_files(self, tmp_path, folder, line):
    module = load(
      tmp_path / folder,
      submission=f'from . import part as own\n{line}',
      part='VALUE = object()',
    )
    assert getattr(module, 'VALUE', module.own.VALUE) is module.own.VALUE
    assert getattr(module, 'part', module.own) is module.own

  def test_one_module_has_four_names(self, tmp_path):
    module = load(
      tmp_path / 'the_entry',
      submission=(
        'from optimizers.good.main import Kind, lists\n'
        'from submissions_algorithms.leaderboard.external_tuning.the_entry.optimizers.good.kinds '
        'import Kind as official\n'
        'from optimizers.good.kinds import Kind as by_folder\n'
        'from .optimizers.good.kinds import Kind as relative\n'
      ),
      optimizers__good__main='from kinds import Kind\nfrom utils import lists',
      optimizers__good__kinds='class Kind: pass',
      optimizers__good__utils__lists='from kinds import Kind',
    )
    kinds = (module.official, module.by_folder, module.relative, module.lists.Kind)
    assert all(kind is module.Kind for kind in kinds)

  def test_a_module_that_is_found_while_it_runs(self, tmp_path):
    module = load(
      tmp_path,
      submission=(
        'import importlib\nimport utils.first\n'
        'def later(): return importlib.import_module("utils.second")'
      ),
      utils__first='',
      utils__second='from . import first\nimport third',
      utils__third='VALUE = 3',
    )
    assert module.later().first is module.utils.first
    assert module.later().third.VALUE == 3

  def test_the_file_nearest_to_the_first_that_imports_it_is_meant(self, tmp_path):
    module = load(
      tmp_path,
      submission='import inner.main',
      tools='PLACE = "outer"',
      inner__main='import tools',
      inner__tools='PLACE = "inner"',
    )
    assert module.inner.main.tools.PLACE == 'inner'

  def test_names_of_others_are_theirs(self, tmp_path):
    """A file that is called like a library, or a folder of that name, hides nothing."""
    (tmp_path / 'pandas').mkdir()
    module = load(
      tmp_path,
      submission='import json\nimport numpy\nimport numpy.linalg\nimport pandas.core\n',
      json='',
      numpy='',
      linalg='',
      core='',
    )
    assert module.json.loads('1') == 1
    assert module.numpy.linalg.__name__ == 'numpy.linalg'
    assert hasattr(module.pandas, 'DataFrame')
    assert module.pandas.core.__name__ == 'pandas.core'

  def test_our_own_package_of_that_name_keeps_working(self, tmp_path):
    ours = importlib.import_module('submissions.self_tuning')
    load(
      tmp_path / 'the_entry',
      submission='from submissions.self_tuning.the_entry.part import VALUE',
      part='VALUE = 1',
    )
    assert importlib.import_module('submissions.self_tuning') is ours
    submission_finder.leave()
    assert not hasattr(ours, 'the_entry')
    with pytest.raises(ModuleNotFoundError):
      importlib.import_module('submissions.self_tuning.the_entry')

  def test_the_submission_module_by_its_own_name(self, tmp_path):
    module = load(tmp_path, submission='VALUE = 1\nimport part', part='import submission')
    assert module.part.submission is module

  def test_a_file_with_dots_and_dashes_in_its_name(self, tmp_path):
    file = tmp_path / 'my-entry.v2.py'
    file.write_text('from . import part')
    (tmp_path / 'part.py').write_text('VALUE = 1')
    assert submission_finder.load(file).module.part.VALUE == 1

  def test_what_is_missing_is_missing(self, tmp_path):
    with pytest.raises(ModuleNotFoundError, match='no_such_thing'):
      load(tmp_path, submission='import no_such_thing')
    with pytest.raises(ModuleNotFoundError):
      load(tmp_path, submission=f'import {OFFICIAL}.the_entry.no_such_thing')


class TestTheNext:
  def test_the_same_names_mean_the_files_of_each(self, tmp_path):
    for name in ('first', 'second', 'first'):
      module = load(
        tmp_path / name,
        submission='import utils.place\nfrom utils.place import NAME',
        utils__place=f'NAME = {name!r}',
      )
      assert name == module.NAME
    submission_finder.leave()
    with pytest.raises(ModuleNotFoundError):
      importlib.import_module('utils.place')

  def test_a_module_that_others_had_imported_comes_back(self, tmp_path, monkeypatch):
    theirs = types.ModuleType('place')
    monkeypatch.setitem(sys.modules, 'place', theirs)
    module = load(tmp_path, submission='import place', place='NAME = 1')
    assert module.place.NAME == 1
    submission_finder.leave()
    assert sys.modules['place'] is theirs

  def test_what_an_entry_adds_to_the_search_path_is_forgotten(self, tmp_path):
    code = (
      'import importlib, os, sys\n'
      'sys.path.insert(0, os.path.join(os.path.dirname(__file__), "more"))\n'
      'added = importlib.import_module("added_by_path")'
    )
    assert load(tmp_path, submission=code, more__added_by_path='X = 1').added.X == 1
    submission_finder.leave()
    assert 'added_by_path' not in sys.modules

  def test_nothing_is_left_of_one_that_fails(self, tmp_path):
    with pytest.raises(ZeroDivisionError):
      load(tmp_path, submission='import part\n1 / 0', part='')
    assert 'part' not in sys.modules

  def test_no_compiled_file_is_left_behind(self, tmp_path):
    load(tmp_path, submission='from . import part', part='')
    assert not list(tmp_path.rglob('__pycache__'))


class TestOldNames:
  """What JAX has no more is there for the entry that uses it, while it is loaded."""

  @pytest.fixture(autouse=True)
  def _needs_jax(self) -> None:
    pytest.importorskip('jax')

  @pytest.mark.parametrize(
    'code',
    [
      'import jax\ndef f(x): return jax.tree_map(lambda v: v + 1, x)',
      'import jax as j\ndef f(x): return j.tree_map(lambda v: v + 1, x)',
      'from jax import tree_map\ndef f(x): return tree_map(lambda v: v + 1, x)',
    ],
  )
  def test_tree_map(self, tmp_path, code):
    import jax

    loaded = submission_finder.load(make(tmp_path, submission=code))
    assert loaded.module.f({'a': 1}) == {'a': 2}
    assert loaded.restored == ['jax.tree_map']
    submission_finder.leave()
    assert not hasattr(jax, 'tree_map')

  def test_clip(self, tmp_path):
    import jax.numpy as jnp

    code = (
      'import jax.numpy as jnp\ndef f(x): return jnp.clip(x, a_min=1)\n'
      'def g(x): return jnp.clip(x, a_min=None, a_max=2), jnp.clip(x, 1, 2), jnp.clip(x, min=2)'
    )
    before = jnp.clip
    module = load(tmp_path, submission=code)
    x = jnp.arange(4)
    assert module.f(x).tolist() == [1, 1, 2, 3]
    assert [y.tolist() for y in module.g(x)] == [[0, 1, 2, 2], [1, 1, 2, 2], [2, 2, 2, 3]]
    submission_finder.leave()
    assert jnp.clip is before

  def test_a_part_that_is_imported_late_and_the_packages_it_calls(self, tmp_path):
    """An old package is not read; it finds what the entry itself uses."""
    code = 'def f(call):\n  import part\n  return call(part)'
    module = load(tmp_path, submission=code, part='from jax import tree_map')
    import jax

    assert not hasattr(jax, 'tree_map')
    assert module.f(lambda part: jax.tree_map) is jax.tree.map

  def test_one_that_uses_none_of_it_gets_nothing(self, tmp_path):
    import jax
    import jax.numpy as jnp

    before = jnp.clip
    code = 'import jax\nimport jax.numpy as jnp\n# jax.tree_map\nf = lambda x: jnp.clip(x, min=0)'
    loaded = submission_finder.load(make(tmp_path, submission=code))
    assert loaded.restored == [] and jnp.clip is before and not hasattr(jax, 'tree_map')
