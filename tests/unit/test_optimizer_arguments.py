"""Arguments from text: values, names and calls, checked against a signature."""

from __future__ import annotations

import decimal
import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.optimizers import arguments, requirements


def sgd(
  params,
  lr: float = 0.1,
  betas=(0.9, 0.99),
  nesterov: bool = False,
  num_steps: int = 5,
  mode: str = 'plain',
  max_eval: int | None = None,
  weight_decay: float | Callable = 0.0,
  dtype: Any = None,
  inner: Callable | None = None,
  odd: decimal.Context | None = None,
):
  """Stands for an optimizer."""


def test_what_may_be_called():
  optax = pytest.importorskip('optax')
  import jax

  for name in ('adamw', 'sgd', 'lbfgs', 'cosine_decay_schedule', 'inject_hyperparams'):
    assert arguments.is_of_optax(getattr(optax, name)), name
  for name in ('muon', 'sam', 'prodigy', 'schedule_free_adamw'):
    assert arguments.is_of_optax(getattr(optax.contrib, name)), name
  assert arguments.is_of_optax(functools.partial(optax.sgd, momentum=0.9))
  assert arguments.is_of_optax(jax.jit(optax.sgd))
  for found in (os.system, os.mkdir, subprocess.run, shutil.rmtree, print, exec, Path.touch):
    assert not arguments.is_of_optax(found), found
  for found in (jax.profiler.start_trace, jax.clear_caches, sgd, decimal.Context, 3):
    assert not arguments.is_of_optax(found), found


def test_functions_of_a_users_own_that_may_be_called():
  pytest.importorskip('optax')
  spaces: list[dict[str, Any]] = []
  for source in (
    'import optax\ndef make(lr): return optax.sgd(lr)',
    'from optax import sgd\ndef make(lr): return sgd(lr)',
    'def make(lr):\n  import optax\n  return optax.sgd(lr)',
    'import jax\ndef make(lr): ...',
    'def make(lr) -> "GradientTransformation": ...',
  ):
    spaces.append({'__name__': 'mine'})
    exec(source, spaces[-1])
    assert arguments.is_of_optax(spaces[-1]['make']), source


def test_a_class_of_torchs_interface_is_known_without_torch():
  torch = pytest.importorskip('torch')
  assert arguments.has_torch_interface(torch.optim.AdamW)
  assert arguments.has_torch_interface(type('Mine', (torch.optim.SGD,), {}))
  for found in (torch.nn.Linear, torch.save, torch.optim, int, 3):
    assert not arguments.has_torch_interface(found)


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('1e-3', 0.001),
    (' 5 ', 5),
    ('1e400', '1e400'),  # no number that there is
    ('(1, -1e999)', '(1, -1e999)'),
    ('true', True),
    ('False', False),
    ('none', None),
    ('(0.9, 0.95)', [0.9, 0.95]),
    ('[1, 2]', [1, 2]),
    ("'quoted'", 'quoted'),
    ('strong_wolfe', 'strong_wolfe'),
    ('optax.sgd(0.1)', 'optax.sgd(0.1)'),
    ('{1, 2}', '{1, 2}'),  # which JSON does not have
  ],
)
def test_values(text, value):
  found = arguments.parse_value(text)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('', ['']),
    (' a ,, b,', ['a', '', 'b', '']),
    ('a, b', ['a', 'b']),
    ('a=(1, 2), b=f(x, y=[3, 4])', ['a=(1, 2)', 'b=f(x, y=[3, 4])']),
    ('a="x, y", b', ['a="x, y"', 'b']),
  ],
)
def test_split(text, parts):
  assert arguments.split(text, ',') == parts


@pytest.mark.parametrize('text', ['f(a', 'f)', '"a', 'a)(b'])
def test_what_is_open_must_be_closed(text):
  with pytest.raises(UserError, match='Brackets and quotes must be closed'):
    arguments.split(text, ',')


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    ({'lr': 1}, {'lr': 1}),
    ({'betas': [0.5, 0.6]}, {'betas': (0.5, 0.6)}),
    ({'nesterov': True, 'num_steps': 3}, {'nesterov': True, 'num_steps': 3}),
    ({'max_eval': None}, {'max_eval': None}),
    ({'max_eval': 7}, {'max_eval': 7}),
    ({'dtype': 'bfloat16'}, {'dtype': 'bfloat16'}),
    ({'dtype': 'decimal.Decimal'}, {'dtype': decimal.Decimal}),
    ({'inner': 'decimal.Decimal'}, {'inner': decimal.Decimal}),
    ({'odd': 0.5}, {'odd': 0.5}),  # an annotation that says nothing to us forbids nothing
  ],
)
def test_bind(values, expected):
  assert arguments.bind(sgd, 'sgd', values, given=1) == expected


def test_a_value_may_be_a_call(monkeypatch, tmp_path):
  (tmp_path / 'own_schedules.py').write_text('def twice(x: int) -> "Schedule": return 2 * x')
  monkeypatch.syspath_prepend(tmp_path)
  values = {'weight_decay': 'own_schedules.twice(x=3)'}
  assert arguments.bind(sgd, 'sgd', values, given=1) == {'weight_decay': 6}
  with pytest.raises(UserError, match=r'decimal\.Decimal is neither, and was not called'):
    arguments.bind(sgd, 'sgd', {'weight_decay': "decimal.Decimal(value='2')"}, given=1)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'lrr': 1}, "no hyperparameter of sgd 'lrr'. Did you mean 'lr'"),
    ({'params': 1}, "no hyperparameter of sgd 'params'"),
    ({'learning_rate': 1}, 'sgd calls its learning rate lr, not learning_rate'),
    ({'lr': 'fast'}, "lr of sgd must be a number; it is 'fast'"),
    ({'lr': True}, 'lr of sgd must be a number; it is True'),
    ({'lr': None}, 'lr of sgd must be a number; it is None'),
    ({'lr': [1]}, r'lr of sgd must be a number; it is \[1\]'),
    ({'betas': 0.9}, r'betas of sgd must be a sequence, as in \(0.9, 0.99\); it is 0.9'),
    ({'betas': [0.9]}, r'betas of sgd must have 2 values, as in \(0.9, 0.99\); it is \(0.9,\)'),
    ({'nesterov': 1}, 'nesterov of sgd must be true or false; it is 1'),
    ({'num_steps': 1.5}, 'num_steps of sgd must be a whole number; it is 1.5'),
    ({'mode': 3}, 'mode of sgd must be a text; it is 3'),
    ({'max_eval': 'x'}, "max_eval of sgd must be a whole number; it is 'x'"),
    ({'weight_decay': 'x'}, 'weight_decay of sgd must be a number, or an object by its import'),
    ({'inner': 'decimal.Decimel'}, "no 'Decimel' in decimal. Did you mean 'Decimal'"),
    ({'inner': 'decimal.Decimal(2)'}, "Arguments must have names, as in lr=0.1; .* has '2'"),
  ],
)
def test_a_wrong_argument_is_a_clear_mistake(values, message):
  with pytest.raises(UserError, match=message):
    arguments.bind(sgd, 'sgd', values, given=1)


def test_what_has_no_default_must_be_given():
  with pytest.raises(UserError, match='sgd needs a value for params; give it with --hparam params'):
    arguments.bind(sgd, 'sgd', {})


def test_load():
  assert arguments.load('decimal.Decimal') is decimal.Decimal
  with pytest.raises(UserError, match=r'a class or a function; decimal\.MAX_PREC is a int'):
    arguments.load('decimal.MAX_PREC')
  with pytest.raises(UserError, match="no 'decimel' in collections"):
    arguments.load('collections.decimel.Decimal')


class _WithClosure:
  def step(self, closure): ...


class _Plain:
  def step(self, closure=None): ...


class LBFGS(_Plain): ...


def test_what_optimizers_need():
  assert requirements.needs_of(_WithClosure).step == 'closure'
  assert requirements.needs_of(_Plain).step == 'gradients'
  assert requirements.needs_of(LBFGS).step == 'gradients'  # another package's
  derived = type('Mine', (type('LBFGS', (_Plain,), {'__module__': 'torch.optim.lbfgs'}),), {})
  assert requirements.needs_of(derived).step == 'closure'


def test_learning_rates():
  def muon(learning_rate: float | Callable, adam_learning_rate=None, b1=0.9, lr0=0.1): ...

  assert requirements.rates(muon, {'learning_rate': 0.3}) == {'learning_rate': 0.3}
  both = {'learning_rate': 0.3, 'adam_learning_rate': 0.1}
  assert requirements.rates(muon, {**both, 'b1': 0.8}) == both
  assert requirements.takes_schedule(muon, 'learning_rate')
  assert not requirements.takes_schedule(muon, 'adam_learning_rate')

  def aliased(learning_rate: base.ScalarOrSchedule): ...  # noqa: F821

  assert requirements.takes_schedule(aliased, 'learning_rate')
  assert arguments.bind(aliased, 'aliased', {'learning_rate': 1}) == {'learning_rate': 1}
  with pytest.raises(UserError, match='must be a number'):
    arguments.bind(aliased, 'aliased', {'learning_rate': 'fast'})
