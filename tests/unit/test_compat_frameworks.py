"""What a submission imports decides which frameworks it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.compat import frameworks
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.trial import submission

BOTH = ('jax', 'pytorch')


@pytest.mark.parametrize(
  ('code', 'expected'),
  [
    ('import jax.numpy as jnp', ('jax',)),
    ('from flax import jax_utils', ('jax',)),
    ('def f():\n  import torch', ('pytorch',)),
    ('from torch.optim import SGD', ('pytorch',)),
    ('import torch, jax', BOTH),
    ('from algoperf import spec', BOTH),
    ('from algoperf.pytorch_utils import pytorch_setup', ('pytorch',)),
    ('from algorithmic_efficiency import jax_sharding_utils', ('jax',)),
    ('from algorithmic_efficiency.training import torch as training', ('pytorch',)),
    ('from algorithmic_efficiency.updates import jax as updates', ('jax',)),
    ('import torchmetrics_of_mine', BOTH),
    ('import jax\nx = (', BOTH),
    ('\0', BOTH),
  ],
)
def test_imports_decide(code: str, expected: tuple[str, ...], tmp_path: Path):
  file = tmp_path / 'submission.py'
  file.write_text(code)
  assert frameworks.written_for(file) == expected


def test_the_files_that_a_module_imports_count_too(tmp_path: Path):
  (tmp_path / 'steps.py').write_text('import torch')
  (tmp_path / 'unused.py').write_text('import jax')
  file = tmp_path / 'submission.py'
  file.write_text('from .steps import update_params')
  assert frameworks.written_for(file) == ('pytorch',)


def test_our_own_submissions_are_for_the_framework_of_their_file():
  for entry in registry.submissions().values():
    for framework in entry.frameworks:
      assert frameworks.written_for(entry.file(framework)) == (framework,)


def test_another_framework_is_refused_with_the_right_one(tmp_path: Path):
  folder = tmp_path / 'mine'
  folder.mkdir()
  file = folder / 'submission.py'
  file.write_text('import torch')
  for path in (folder, file):
    assert submission.locate(str(path), 'self', 'pytorch') == ('mine', file)
    with pytest.raises(UserError, match=r"'mine' is written for pytorch.* Use --framework pytorch"):
      submission.locate(str(path), 'self', 'jax')
  assert list(submission.frameworks_of(str(folder), 'self', BOTH)) == ['pytorch']
  with pytest.raises(UserError, match='is written for pytorch'):
    submission.frameworks_of(str(folder), 'self', ('jax',))
