"""Batch sizes that a submission is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.trial import parts
from algorithmic_efficiency.trial.submission import Submission, locate, source_hash

NAMES = ('some_variant', 'some_base')


def known(sizes: dict[str, int]) -> Callable[[str], int]:
  def size(name: str) -> int:
    if name not in sizes:
      raise ValueError(f'Unsupported workload name: {name}.')
    return sizes[name]

  return size


def submission(
  train: Callable[[str], int], evaluation: Callable[[str], int] | None = None
) -> Submission:
  def unused(*arguments: object) -> None:
    raise AssertionError

  return Submission(
    file=Path('submission.py'),
    get_batch_size=train,
    init_optimizer_state=unused,
    update_params=unused,
    data_selection=unused,
    prepare_for_eval=None,
    get_eval_batch_size=evaluation,
    wants_train_state=False,
  )


def test_an_unknown_variant_takes_the_size_of_its_base():
  assert submission(known({'some_base': 64})).batch_size(NAMES, 8, 4) == (64, 'some_base')


def test_an_unknown_workload_takes_the_size_of_the_definition():
  assert submission(known({})).batch_size(NAMES, 8, 4) == (8, '')


def test_the_evaluation_batch_size_falls_back_likewise():
  """Regression: an entry that did not know a workload's name ended its trial with a traceback."""
  assert submission(known({}), known({'some_base': 64})).eval_batch_size(NAMES, 10, 4) == 64
  assert submission(known({}), known({})).eval_batch_size(NAMES, 10, 4) == 12
  assert submission(known({})).eval_batch_size(NAMES, 10, 4) == 12


@pytest.mark.parametrize('size', [0, -8, 7.5, None, True, '8'])
def test_a_size_that_is_none_is_refused(size):
  with pytest.raises(errors.UserError, match='must be a positive integer'):
    submission(lambda name: size).batch_size(NAMES, 8, 1)


class TestFixedSize:
  """On an axis of steps, and in a smoke run, what the entry asks for is only recorded."""

  definition = registry.workload('quick_vision')
  default = definition.batch_sizes.train

  def size(self, asked: int | None, num_devices: int, fixed_by: str | None):
    entry = submission(known({} if asked is None else {'quick_vision': asked}))
    return parts.train_batch_size(entry, self.definition, num_devices, fixed_by)

  def test_the_entry_s_own_size_need_not_suit_the_devices(self):
    """Regression: an entry whose own size was odd was refused on two devices."""
    note = f'The suite quick fixes the batch size at {self.default}; the submission asked for 7.'
    assert self.size(7, 2, 'The suite quick') == (self.default, (note,))
    with pytest.raises(errors.UserError, match='divisible'):
      self.size(7, 2, None)

  def test_the_size_that_is_fixed_must_suit_them(self):
    with pytest.raises(errors.UserError, match='divisible'):
      self.size(7, self.default - 1, 'The suite quick')

  def test_nothing_is_noted_where_there_is_no_difference(self):
    assert self.size(self.default, 1, 'The suite quick') == (self.default, ())
    assert self.size(None, 1, 'The suite quick') == (self.default, ())

  @pytest.mark.parametrize(
    ('suite', 'smoke', 'found'),
    [
      ('quick', False, 'The suite quick'),
      ('quick', True, 'A smoke run'),
      ('algoperf_v05', True, 'A smoke run'),
      ('algoperf_v05', False, None),
    ],
  )
  def test_the_note_says_what_fixes_it(self, suite, smoke, found):
    """Regression: in a smoke run the suite was blamed."""
    assert parts.batch_size_is_fixed_by(registry.suite(suite), smoke=smoke) == found


class TestFingerprint:
  def test_of_a_module_with_a_name_of_its_own_what_it_imports_counts(self, tmp_path: Path):
    """Regression: files beside such a module could be changed unnoticed."""
    module, helper, other = (tmp_path / f'{name}.py' for name in ('mine', 'helper', 'other'))
    module.write_text('import helper')
    helper.write_text('RATE = 0.1')
    before = source_hash(module)
    other.write_text('not imported')
    assert source_hash(module) == before
    helper.write_text('RATE = 0.2')
    assert source_hash(module) != before

  @pytest.mark.parametrize('text', ['def', 'x = "\0"'])
  def test_of_what_is_not_valid_python_the_module_counts(self, tmp_path: Path, text: str):
    (tmp_path / 'mine.py').write_text(text)
    before = source_hash(tmp_path / 'mine.py')
    (tmp_path / 'mine.py').write_text(f'{text} ')
    assert source_hash(tmp_path / 'mine.py') != before

  def test_of_a_folder_of_its_own_every_file_counts(self, tmp_path: Path):
    (tmp_path / 'submission.py').write_text('pass')
    before = source_hash(tmp_path / 'submission.py')
    (tmp_path / 'other.py').write_text('pass')
    assert source_hash(tmp_path / 'submission.py') != before


@pytest.mark.parametrize('given', ['alice', 'alice/submission.py', 'alone.py'])
def test_a_link_is_called_as_it_was_given(tmp_path, given):
  """Regression: two links to folders called alike were one submission."""
  (tmp_path / 'mine').mkdir()
  file = tmp_path / 'mine' / 'submission.py'
  file.write_text('')
  (tmp_path / 'alice').symlink_to(tmp_path / 'mine')
  (tmp_path / 'alone.py').symlink_to(file)
  name, found = locate(str(tmp_path / given), 'external', 'jax')
  assert name == Path(given).parts[0].removesuffix('.py') and found == file.resolve()
