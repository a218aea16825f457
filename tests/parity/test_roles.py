"""The twins agree on what each of their parameters is for, and on the matrices in it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('flax')

from twins import definitions

from algorithmic_efficiency.backends import _jax_workload, _torch_workload
from algorithmic_efficiency.backends.base import TaskCode
from algorithmic_efficiency.benchmark import registry
from tests.cost_of_tasks import slow_if_large


def _parameters(definition, backend, framework):
  code = TaskCode.of(definition, framework)
  return {one.name: one for one in backend.parameters(definition, code)}


@pytest.mark.parametrize(
  'definition',
  [pytest.param(one, marks=slow_if_large(one), id=one.name) for one in definitions()],
)
def test_the_twins_agree(definition):
  small = definition.for_smoke()
  jax_side = _parameters(small, _jax_workload, 'jax')
  torch_side = _parameters(small, _torch_workload, 'pytorch')
  for name, sources in _sources(small, jax_side).items():
    if name not in torch_side:
      continue  # a buffer
    one, others = torch_side[name], [jax_side[source] for source in sources]
    assert {other.role for other in others} == {one.role}, name
    views = [other.matrix_view for other in others]
    assert sum(view.num_matrices for view in views) == one.matrix_view.num_matrices, name
    sides = {tuple(sorted((view.rows, view.columns))) for view in (one.matrix_view, *views)}
    assert len(sides) == 1, name


def _sources(definition, jax_side):
  """For each name in PyTorch, the names in flax that its numbers come from."""
  names = list(jax_side)
  params, state = {}, {}
  for index, name in enumerate(names):
    _put(params, name, np.full(jax_side[name].shape, index, np.float64))
  for name, shape in _state_shapes(definition):
    _put(state, name, np.full(shape, -1.0))
  parity = registry.module_of(definition, 'parity')
  mapped = parity.to_torch(definition, params, state)
  return {
    name: {names[int(index)] for index in np.unique(array) if index >= 0}
    for name, array in mapped.items()
    if array.dtype.kind == 'f' and (array >= 0).any()
  }


def _put(tree, name, array):
  *parents, leaf = name.split('/')
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[leaf] = array


def _state_shapes(definition):
  import jax

  code = TaskCode.of(definition, 'jax')
  model = code.model.build(definition)
  variables = jax.eval_shape(
    lambda rng, batch: _jax_workload._init_variables(model, code, rng, batch),
    jax.ShapeDtypeStruct((2,), np.uint32),
    code.data.fake_batch(definition, 1, 0),
  )
  state = {kind: tree for kind, tree in variables.items() if kind != 'params'}
  return [
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  ]
