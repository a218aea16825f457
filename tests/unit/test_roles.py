"""What parameters are for, and the matrices that they consist of."""

from __future__ import annotations

import numpy as np
import pytest

from algorithmic_efficiency.backends import roles
from algorithmic_efficiency.spec import MatrixView, ParameterRole, ParameterType

NO_OUTPUT = {'is_output': False, 'outputs_first': False}


def describe(name, shape, kind, **changes):
  return roles.describe(name, shape, ParameterType[kind], **{**NO_OUTPUT, **changes})


@pytest.mark.parametrize(
  ('name', 'shape', 'kind', 'role'),
  [
    ('Dense_0/kernel', (6, 8), 'WEIGHT', 'hidden_matrix'),
    ('Dense_0/bias', (8,), 'BIAS', 'bias'),
    ('attention/key/bias', (6, 64), 'ATTENTION_BIAS', 'bias'),
    ('Conv_0/kernel', (3, 3, 4, 8), 'CONV_WEIGHT', 'convolution'),
    ('RMSNorm_0/scale', (8,), 'LAYER_NORM_SCALE', 'norm'),
    ('BatchNorm_0/bias', (8,), 'BATCH_NORM_BIAS', 'norm'),
    ('embed/embedding', (100, 8), 'EMBEDDING', 'embedding'),
    ('embedding_chunk_0', (100, 8), 'WEIGHT', 'embedding'),
    ('attn/attn_scale', (), 'WEIGHT', 'vector'),
    ('map/probe', (1, 1, 384), 'WEIGHT', 'vector'),
    ('moe/Router/kernel', (8, 4), 'WEIGHT', 'router'),
    ('moe/Experts_0/kernel', (4, 8, 16), 'WEIGHT', 'expert'),
    ('query/kernel', (8, 2, 4), 'ATTENTION_Q', 'hidden_matrix'),
    ('Dense_7/kernel', (256, 1), 'WEIGHT', 'hidden_matrix'),
  ],
)
def test_roles(name, shape, kind, role):
  assert describe(name, shape, kind).role.value == role


@pytest.mark.parametrize(
  ('name', 'shape', 'kind', 'role'),
  [
    ('Dense_1/kernel', (8, 3), 'WEIGHT', 'head'),
    ('Dense_1/bias', (3,), 'BIAS', 'bias'),
    ('Conv_0/kernel', (1, 1, 32, 1), 'CONV_WEIGHT', 'head'),
    ('shared_embedding/embedding', (100, 8), 'EMBEDDING', 'tied'),
  ],
)
def test_roles_of_outputs(name, shape, kind, role):
  assert describe(name, shape, kind, is_output=True).role.value == role


@pytest.mark.parametrize(
  ('name', 'shape', 'kind', 'outputs_first', 'view'),
  [
    ('Dense_0/kernel', (6, 8), 'WEIGHT', False, (1, 6, 8)),
    ('Conv_0/kernel', (3, 3, 4, 8), 'CONV_WEIGHT', False, (1, 36, 8)),
    ('conv1.weight', (8, 4, 3, 3), 'CONV_WEIGHT', True, (1, 8, 36)),
    ('conv1.weight', (512, 1, 5), 'CONV_WEIGHT', True, (1, 512, 5)),
    ('query/kernel', (12, 3, 4), 'ATTENTION_Q', False, (1, 12, 12)),
    ('out/kernel', (3, 4, 12), 'ATTENTION_OUT', False, (1, 12, 12)),
    ('in_proj.weight', (36, 12), 'ATTENTION_QKV', True, (3, 12, 12)),
    ('kv_proj.weight', (24, 12), 'ATTENTION_KV', True, (2, 12, 12)),
    ('map.mha.kv_proj.weight', (24, 12), 'WEIGHT', True, (2, 12, 12)),
    ('qkv/kernel', (12, 36), 'ATTENTION_QKV', False, (3, 12, 12)),
    ('qkv/kernel', (12, 3, 3, 4), 'ATTENTION_QKV', False, (3, 12, 12)),
    ('experts/kernel', (4, 8, 16), 'WEIGHT', False, (4, 8, 16)),
    ('experts.weight', (4, 16, 8), 'WEIGHT', True, (4, 16, 8)),
    ('Dense_0/bias', (8,), 'BIAS', False, (0, 0, 0)),
    ('attn_scale', (), 'WEIGHT', False, (0, 0, 0)),
  ],
)
def test_views(name, shape, kind, outputs_first, view):
  found = describe(name, shape, kind, outputs_first=outputs_first).matrix_view
  assert (found.num_matrices, found.rows, found.columns) == view
  assert bool(found) == (view[0] > 0)
  if found:
    array = np.arange(np.prod(shape)).reshape(shape)
    matrices = found.split(array)
    assert matrices.shape == view
    np.testing.assert_array_equal(found.join(matrices, shape), array)


def test_a_fused_projection_comes_apart_into_its_parts():
  query, key, value = np.random.default_rng(0).normal(size=(3, 5, 4))  # each [in, out]
  fused = describe('qkv/kernel', (5, 12), 'ATTENTION_QKV').matrix_view
  np.testing.assert_array_equal(
    fused.split(np.concatenate([query, key, value], axis=1)), [query, key, value]
  )
  fused = describe('in_proj', (12, 5), 'ATTENTION_QKV', outputs_first=True).matrix_view
  np.testing.assert_array_equal(
    fused.split(np.concatenate([query.T, key.T, value.T])), [query.T, key.T, value.T]
  )


@pytest.mark.parametrize('by_columns', [False, True])
def test_a_view_in_pytorch_shares_the_memory_of_its_parameter(by_columns):
  torch = pytest.importorskip('torch')
  parameter = torch.zeros(4, 6)
  rows, columns = (4, 3) if by_columns else (2, 6)
  view = MatrixView(num_matrices=2, rows=rows, columns=columns, by_columns=by_columns)
  view.split(parameter)[1] += 1
  assert parameter.sum() == rows * columns


def test_every_role_is_given():
  assert {role.value for role in ParameterRole} == {
    'hidden_matrix', 'convolution', 'embedding', 'head', 'tied', 'norm', 'bias', 'router',
    'expert', 'vector',
  }  # fmt: skip
