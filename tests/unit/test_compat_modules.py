"""The modules of AlgoPerf that submissions may import, under both roots: what they do."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency import spec
from algorithmic_efficiency.benchmark import search_space
from algorithmic_efficiency.compat import imports, random_utils
from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.spec import ParameterType


@pytest.fixture(autouse=True)
def roots() -> Iterator[None]:
  with imports.installed():
    yield


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Any:
  return lambda name: monkeypatch.setattr(random_utils, '_framework', name)


def algoperf(name: str) -> Any:
  return importlib.import_module(f'algoperf.{name}')


@pytest.mark.parametrize('name', sorted(imports.MODULES))
def test_each_is_one_module_under_both_roots(name: str):
  pytest.importorskip('jax')
  pytest.importorskip('torch')
  assert algoperf(name) is importlib.import_module(f'algorithmic_efficiency.{name}')


# random_utils


def test_keys_of_pytorch_are_drawn_by_numpy_as_published(framework):
  framework('pytorch')
  rng = algoperf('random_utils')
  keys = np.random.RandomState(5).randint(2**31 - 1, size=(2, 2), dtype=np.int32)
  np.testing.assert_array_equal(rng.PRNGKey(5), keys[0])
  np.testing.assert_array_equal(rng.split(5), keys)
  assert rng.split(keys[0], 4).shape == (4, 2)
  np.testing.assert_array_equal(rng.split(2**31 - 1 + 5), keys)  # seeds are taken modulo 2**31 - 1
  first, data = rng.fold_in(keys[0], 7)
  assert (first, data) == (np.random.RandomState(keys[0]).randint(2**31 - 1, dtype=np.int32), 7)
  assert rng.split([first, data]).dtype == np.int32  # a folded key is a key
  assert rng.split(-1).shape == (2, 2)


def test_keys_of_jax_are_those_of_jax(framework):
  jax = pytest.importorskip('jax')
  framework('jax')
  rng = algoperf('random_utils')
  key = rng.PRNGKey(3)
  np.testing.assert_array_equal(key, jax.random.PRNGKey(3))
  np.testing.assert_array_equal(rng.split(key, 3), jax.random.split(key, 3))
  np.testing.assert_array_equal(rng.fold_in(key, 9), jax.random.fold_in(key, 9))
  assert jax.jit(rng.split)(key).shape == (2, 2)


def test_a_key_of_the_other_framework_is_told_by_its_type(framework):
  jax = pytest.importorskip('jax')
  framework('pytorch')
  rng = algoperf('random_utils')
  key = jax.random.PRNGKey(3)
  np.testing.assert_array_equal(rng.split(key), jax.random.split(key))


# halton


def test_points_are_the_published_ones_as_named_tuples():
  content = {'learning_rate': {'min': 1e-4, 'max': 1e-2, 'scaling': 'log'}}
  points = algoperf('halton').generate_search(content, 3)
  values = sorted(point.learning_rate for point in points)
  assert values == pytest.approx([3.7346384e-4, 5.2673558e-4, 4.5712889e-3])
  assert type(points[0]).__name__ == 'Hyperparameters'
  listed = algoperf('halton').generate_search([{'a': 1}, {'a': 2}], 2)
  assert [point.a for point in listed] == [1, 2]


def test_what_is_no_search_space_is_told():
  with pytest.raises(UserError, match=r'halton\.generate_search holds a int'):
    algoperf('halton').generate_search(3, 1)


def test_a_search_space_is_checked_alike_from_a_file_and_in_memory(tmp_path):
  (tmp_path / 'space.json').write_text('{"a": {"feasible_points": [1, 2]}}')
  in_memory = search_space.parse({'a': {'feasible_points': [1, 2]}}, 'memory')
  assert search_space.load(tmp_path / 'space.json') == in_memory


# param_utils


def test_shapes_and_types_in_pytorch():
  torch = pytest.importorskip('torch')
  utils = algoperf('param_utils')
  model = torch.nn.ModuleDict({'conv1': torch.nn.Conv2d(1, 2, 3), 'bn1': torch.nn.BatchNorm2d(2)})
  shapes = utils.pytorch_param_shapes(model)
  assert shapes['conv1.weight'] == spec.ShapeTuple((2, 1, 3, 3))
  types = utils.pytorch_param_types(shapes)
  assert types == {
    'conv1.weight': ParameterType.CONV_WEIGHT,
    'conv1.bias': ParameterType.BIAS,
    'bn1.weight': ParameterType.BATCH_NORM_SCALE,
    'bn1.bias': ParameterType.BATCH_NORM_BIAS,
  }


def test_shapes_and_types_in_jax():
  pytest.importorskip('jax')
  utils = algoperf('param_utils')
  params = {'Dense_0': {'kernel': np.zeros((3, 4)), 'bias': np.zeros(4)}}
  shapes = utils.jax_param_shapes(params)
  assert shapes['Dense_0']['kernel'] == spec.ShapeTuple((3, 4))
  types = utils.jax_param_types(shapes)
  assert types == {'Dense_0': {'kernel': ParameterType.WEIGHT, 'bias': ParameterType.BIAS}}
  assert utils.jax_param_types({'scale': None}, 'LayerNorm_0') == {
    'scale': ParameterType.LAYER_NORM_SCALE
  }


# jax_utils


def test_dropout_takes_its_rate_at_the_call():
  jax = pytest.importorskip('jax')
  dropout = algoperf('jax_utils').Dropout(rate=0.9)
  x = jax.numpy.ones((100, 100))

  @jax.jit
  def apply(rate, seed):
    return dropout.apply({}, x, False, rate=rate, rngs={'dropout': jax.random.key(seed)})

  kept = apply(0.25, 0)
  assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.02)
  assert np.unique(kept).tolist() == pytest.approx([0, 4 / 3])
  np.testing.assert_array_equal(apply(0.0, 0), x)
  np.testing.assert_array_equal(apply(1.0, 0), np.zeros((100, 100)))
  assert not np.array_equal(apply(0.25, 1), kept)
  np.testing.assert_array_equal(dropout.apply({}, x, deterministic=True), x)


def test_dropout_takes_its_rate_from_the_module_and_may_share_it_along_axes():
  jax = pytest.importorskip('jax')
  dropout = algoperf('jax_utils').Dropout(rate=0.5, broadcast_dims=(1,), deterministic=False)
  kept = dropout.apply({}, jax.numpy.ones((50, 4)), rngs={'dropout': jax.random.key(0)})
  assert set(np.unique(kept).tolist()) == {0.0, 2.0}
  np.testing.assert_array_equal(kept, np.repeat(kept[:, :1], 4, axis=1))
  with pytest.raises(ValueError, match='needs a rate'):
    algoperf('jax_utils').Dropout().apply({}, kept, False, rngs={'dropout': jax.random.key(0)})


# interop_utils


def test_arrays_go_from_one_framework_to_the_other():
  jax, torch = pytest.importorskip('jax'), pytest.importorskip('torch')
  utils = algoperf('interop_utils')
  tensor = utils.jax_to_pytorch(jax.numpy.arange(6.0).reshape(2, 3))
  assert isinstance(tensor, torch.Tensor) and tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
  array = utils.pytorch_to_jax(torch.ones(2, 3, requires_grad=True).T)
  assert isinstance(array, jax.Array) and array.shape == (3, 2)


# init_utils


def test_layers_begin_as_those_of_flax():
  torch = pytest.importorskip('torch')
  layer = torch.nn.Linear(400, 300)
  algoperf('init_utils').pytorch_default_init(layer)
  stddev = math.sqrt(1 / 400)
  assert layer.weight.std().item() == pytest.approx(stddev, rel=0.02)
  assert layer.weight.abs().max().item() <= 2 * stddev / 0.87962566103423978 + 1e-6
  assert not layer.bias.any()
  algoperf('init_utils').pytorch_default_init(torch.nn.Linear(4, 3, bias=False))


# profiler


def test_a_profiler_records_what_actions_take():
  profiler = algoperf('profiler').Profiler()
  for _ in range(2):
    with profiler.profile('Update'):
      time.sleep(0.01)
  with pytest.raises(ZeroDivisionError), profiler.profile('Fail'):
    1 / 0  # noqa: B018
  assert len(profiler.recorded_durations['Update']) == 2
  assert min(profiler.recorded_durations['Update']) >= 0.01
  assert 'Update' in profiler.summary() and 'Fail' in profiler.summary()
  profiler.start('Open')
  with pytest.raises(ValueError, match="'Open' has not"):
    profiler.start('Open')
  with pytest.raises(ValueError, match="'Never' has not"):
    profiler.stop('Never')
  other = algoperf('profiler').PassThroughProfiler()
  with other.profile('Update'):
    pass
  assert not other.recorded_durations and other.summary() == ''


def test_only_the_first_rank_records():
  profiler = algoperf('profiler').Profiler()
  profiler.set_local_rank(1)
  with profiler.profile('Update'):
    pass
  assert not profiler.recorded_durations


# data_utils


def test_rows_are_appended():
  padded = algoperf('data_utils').pad(np.ones((2, 3), np.float32), 2, padding_value=7)
  assert padded.tolist() == [[1, 1, 1], [1, 1, 1], [7, 7, 7], [7, 7, 7]]
  assert padded.dtype == np.float32


# pytorch_utils


def test_dropout_modules_take_their_rate_at_the_call():
  torch = pytest.importorskip('torch')
  utils = algoperf('pytorch_utils')
  x = torch.ones(20, 30, 4, 4)
  model = utils.SequentialWithDropout(torch.nn.Identity(), utils.CustomDropout(), torch.nn.ReLU())
  assert (model(x, 0.5) == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
  assert torch.equal(model(x, 0.0), x)
  nested = utils.SequentialWithDropout(model, torch.nn.Identity())
  assert not torch.equal(nested(x, 0.5), x)
  channels = (utils.CustomDropout2d()(x, 0.5) == 0).flatten(2)
  assert torch.equal(channels.all(2), channels.any(2)) and channels.any()
  assert torch.equal(model.eval()(x, 0.5), x)


@pytest.mark.parametrize('ours', [False, True], ids=['of torch', 'of this project'])
def test_running_statistics_are_updated_or_left_alone(ours: bool):
  torch = pytest.importorskip('torch')
  from algorithmic_efficiency.layers import torch as layers

  utils = algoperf('pytorch_utils')
  norm = layers.BatchNorm1d(2, dtype=torch.float32) if ours else torch.nn.BatchNorm1d(2)
  model = torch.nn.Sequential(torch.nn.Linear(3, 2), norm)
  before = norm.running_mean.clone()
  for update in (False, False, True):
    model.apply(lambda module, update=update: utils.update_batch_norm_fn(module, update))
    model(torch.randn(8, 3))
    assert torch.equal(norm.running_mean, before) != update


def test_the_time_of_one_process_is_its_own():
  torch = pytest.importorskip('torch')
  assert algoperf('pytorch_utils').sync_ddp_time(1.25, torch.device('cpu')) == 1.25


# jax_sharding_utils


def test_shards_are_shown(capsys: pytest.CaptureFixture[str]):
  jax = pytest.importorskip('jax')
  algoperf('jax_sharding_utils').display_shard_info(jax.numpy.zeros((2, 3)))
  assert 'float32[2, 3]' in capsys.readouterr().out


# What is not offered.


@pytest.mark.parametrize(
  ('module', 'name', 'reason'),
  [
    ('checkpoint_utils', 'save_checkpoint', 'the harness saves and restores'),
    ('logger_utils', 'set_up_loggers', 'append_scalar_metrics'),
    ('data_utils', 'shard_and_maybe_pad_np', 'from the input queue'),
    ('pytorch_utils', 'pytorch_init', 'pytorch_setup'),
  ],
)
def test_what_is_not_offered_can_be_imported_and_says_why_when_it_is_used(module, name, reason):
  if module == 'pytorch_utils':
    pytest.importorskip('torch')
  names: dict[str, Any] = {}
  exec(f'from algoperf.{module} import {name}', names)
  with pytest.raises(UserError) as caught:
    names[name](1, two=2)
  assert f'{module}.{name} is not offered' in str(caught.value) and reason in str(caught.value)
  assert not hasattr(algoperf(module), '__no_such_thing__')


def test_a_module_that_is_not_offered_is_told_with_those_that_are():
  reason = imports.why_not('algoperf.workloads.mnist')
  assert 'algoperf.workloads.mnist is not offered' in reason
  assert all(name in reason for name in ('spec', 'random_utils', 'init_utils'))
  assert imports.why_not('algoperf') is None
  assert imports.why_not('json.no_such_part') is None


def test_the_functions_of_a_submission_are_declared_in_spec():
  for name in ('get_batch_size', 'init_optimizer_state', 'update_params', 'data_selection'):
    assert callable(getattr(algoperf('spec'), name))
  assert callable(algoperf('spec').prepare_for_eval)
