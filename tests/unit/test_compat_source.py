"""What is found in a source by reading it."""

from __future__ import annotations

import ast

import pytest

from algorithmic_efficiency.compat.source import Source


def source(code: str) -> Source:
  return Source.of(ast.parse(code))


@pytest.mark.parametrize(
  'code',
  [
    'import functools, jax\n@functools.partial(jax.pmap, axis_name="b")\ndef f(): pass',
    'from jax import pmap\nf = pmap(abs)',
    'from jax import pmap as p\n@p\ndef f(): pass',
    'import jax as j\nf = j.pmap(abs)',
    'import jax.numpy as jnp\nimport jax.lax\nf = jax.pmap(abs)',
    'def f():\n  import jax\n  return jax.pmap',
  ],
)
def test_pmap_is_used(code):
  assert 'jax.pmap' in source(code).uses


@pytest.mark.parametrize(
  'code',
  [
    'import jax\n# jax.pmap\nf = jax.jit(abs)',
    'import jax\n"""In place of jax.pmap."""',
    'import jax\nself.pmap = 1\npmap = jax.jit',
    'from mine import pmap\nf = pmap(abs)',
    'import jax.numpy as jnp\njnp.pmap',
  ],
)
def test_pmap_is_not_used(code):
  assert 'jax.pmap' not in source(code).uses


def test_keywords_of_calls():
  found = source('import jax.numpy as jnp\njnp.clip(jnp.sum(x), a_min=0, **more)').uses
  assert {'jax.numpy.clip(a_min)', 'jax.numpy.clip', 'jax.numpy.sum'} <= found
  assert not any('None' in name for name in found)


def test_imports():
  code = 'import a.b as c, d\nfrom e.f import g, h\nfrom . import i\nfrom .j import k'
  assert source(code).imports == {'a.b', 'd', 'e.f', 'e.f.g', 'e.f.h'}
