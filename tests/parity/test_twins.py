"""The JAX and the PyTorch model of every workload and variant are the same function."""

from __future__ import annotations

import functools

import pytest

jax = pytest.importorskip('jax')
pytest.importorskip('torch')

import numpy as np  # noqa: E402
import twins  # noqa: E402

from algorithmic_efficiency.benchmark import registry  # noqa: E402
from tests.cost_of_tasks import is_large, slow_if_large_or_variant  # noqa: E402

DEFINITIONS = twins.definitions()
RELATIVE = 1e-9
VIT = registry.workload('imagenet_vit').for_smoke()
MAX_PARAMETERS = 60_000_000  # of a model that a CPU trains
STEP = ['logits', 'loss', 'gradients', 'model_state', 'params']
FIELDS = [*STEP, 'eval_logits', 'eval_sums', 'outputs']


def _each_model(marks_of_others):
  """Every definition; long where at smoke size another one before it has the same model.

  Args:
    marks_of_others: those of definitions on data that are not bundled, where a model of the same
      kind is before them.
  """
  params, models, kinds = [], [], set()
  for definition in sorted(DEFINITIONS, key=is_large):
    model = definition.for_smoke().model
    kind = definition.task, type(model)
    is_other = kind in kinds and not definition.bundled
    marks = slow_if_large_or_variant(definition)
    if is_other:
      marks = marks_of_others
    if model in models:
      marks = [pytest.mark.long]
    models.append(model)
    kinds.add(kind)
    params.append(pytest.param(definition, marks=marks, id=definition.name))
  return params


@functools.cache
def _outcomes(name, dtype):
  """The outcomes in JAX and in PyTorch at smoke size, from the same numbers."""
  definition = registry.workload(name).for_smoke()
  weights = twins.random_weights(definition, seed=1, dtype=dtype)
  batch = twins.batch(definition, definition.batch_sizes.train, seed=2, dtype=dtype)
  with jax.enable_x64(dtype is np.float64):
    in_jax = twins.with_jax(definition, weights, batch)
  return in_jax, twins.with_torch(definition, weights, batch)


@pytest.fixture(scope='module', params=_each_model([pytest.mark.slow]))
def outcomes(request):
  return _outcomes(request.param.name, np.float64)


@pytest.fixture(
  scope='module',
  params=[
    pytest.param(
      *one.values, id=one.id, marks=[*one.marks, *[pytest.mark.long] * one.values[0].is_variant]
    )
    for one in _each_model([pytest.mark.long])
  ],
)
def outcomes_by_type(request):
  """In float64 and in float32."""
  return [_outcomes(request.param.name, dtype) for dtype in (np.float64, np.float32)]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_the_training_batch_is_mixed_where_the_task_says_so(dtype):
  for name, num_axes in (('imagenet_vit', 2), ('imagenet_resnet', 1)):
    definition = registry.workload(name).for_smoke()
    batch = twins.batch(definition, 8, seed=2, dtype=dtype)
    training = twins.mixed(definition, batch)
    assert training['targets'].ndim == num_axes and batch['targets'].ndim == 1
    assert np.array_equal(training['inputs'], batch['inputs']) == (num_axes == 1)
    assert training['inputs'].dtype == dtype
  assert (np.sort(twins.mixed(VIT, twins.batch(VIT, 8, 2, dtype))['targets'])[:, -2] > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize('field', FIELDS)
def test_neither_framework_is_much_less_accurate_in_float32(outcomes_by_type, field):
  """The rounding of one is at most four times that of the other, or of a few operations."""
  outcomes, outcomes_in_float32 = outcomes_by_type
  exact = getattr(outcomes[0], field)
  of_jax, of_torch = (
    max(twins.distances(getattr(outcome, field), exact), default=0.0)
    for outcome in outcomes_in_float32
  )
  floor = 4 * np.finfo(np.float32).eps
  assert of_jax <= 4 * max(of_torch, floor) and of_torch <= 4 * max(of_jax, floor)


@pytest.mark.parametrize('field', FIELDS)
def test_a_step_and_an_evaluation_agree_in_float64(outcomes, field):
  in_jax, in_torch = (getattr(outcome, field) for outcome in outcomes)
  twins.assert_close(in_jax, in_torch, relative=RELATIVE)


def test_the_outcomes_were_computed_in_float64_and_mean_something(outcomes):
  for outcome in outcomes:
    for leaf in jax.tree.leaves((outcome.logits, outcome.gradients, outcome.eval_logits)):
      assert leaf.dtype == np.float64
    parts = {'parts'} if isinstance(outcome.logits, dict) else set()
    assert {'summed', 'per_example', 'n_valid_examples'} | parts == set(outcome.loss)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(outcome.gradients))
  assert not jax.config.jax_enable_x64


@pytest.mark.parametrize('definition', DEFINITIONS, ids=lambda definition: definition.name)
def test_to_torch_after_to_jax_is_the_identity(definition):
  definition = definition.for_smoke()
  parity = registry.module_of(definition, 'parity')
  weights = twins.random_weights(definition, seed=3, dtype=np.float32)
  params, model_state = parity.to_jax(definition, weights)
  returned = parity.to_torch(definition, params, model_state)
  assert set(returned) == set(weights)
  for name, array in weights.items():
    assert returned[name].dtype == array.dtype
    np.testing.assert_array_equal(returned[name], array, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize(
  'definition',
  [one for one in DEFINITIONS if not (one.is_variant and one.bundled)],
  ids=lambda definition: definition.name,
)
def test_logits_agree_in_float32_at_full_size_where_a_cpu_can_hold_it(definition):
  weights = twins.random_weights(definition, seed=4, dtype=np.float32)
  if sum(array.size for array in weights.values()) > MAX_PARAMETERS:
    pytest.skip('two steps of so large a model take more memory than a small machine has')
  # A model of an accelerator takes a few examples here, two of which are padding.
  batch_size = 4 if 'full' in definition.suites else definition.batch_sizes.train
  batch = twins.batch(definition, batch_size, seed=5, dtype=np.float32)
  in_jax = twins.with_jax(definition, weights, batch)
  in_torch = twins.with_torch(definition, weights, batch)
  pairs = zip(jax.tree.leaves(in_jax.logits), jax.tree.leaves(in_torch.logits), strict=True)
  for left, right in pairs:
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * max(1, np.abs(right).max()))
