"""What a submission gets of every task: batches of known types, logits that are an array."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends.base import Devices, TaskCode
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.layers import chunks
from algorithmic_efficiency.spec import ForwardPassMode, LossType
from tests.cost_of_tasks import slow_if_large

PACKAGES = {'jax': 'jax', 'pytorch': 'torch'}
# By framework, the types of the arrays in a batch, where the task has them in numpy.
TYPES = {
  'jax': {'int32': 'int32', 'float32': 'float32', 'uint8': 'uint8'},
  'pytorch': {'int32': 'int64', 'float32': 'float32', 'uint8': 'uint8'},
}
BATCH_SIZE = 8
SMALL_CHUNK_BYTES = 8_192  # less than the logits of a smoke-sized language model take


def first_of_each_model() -> list[Any]:
  """A workload for each kind of model of each task."""
  found: dict[Any, Any] = {}
  for definition in registry.workloads().values():
    found.setdefault((definition.task, type(definition.model)), definition)
  return list(found.values())


CASES = [
  pytest.param(
    (definition, framework, is_cut),
    marks=slow_if_large(definition) if framework == 'jax' else [],
    id=f'{definition.name}-{framework}{suffix}',
  )
  for definition in first_of_each_model()
  for framework in PACKAGES
  if registry.is_runnable(definition, framework)
  for is_cut, suffix in ((False, ''), (True, '-cut'))
  if not is_cut or definition.task == 'lm'
]


@pytest.fixture(scope='module', params=CASES)
def case(request):
  """A workload of the backend at smoke size, a training batch as drawn and placed, logits."""
  definition, framework, is_cut = request.param
  pytest.importorskip(PACKAGES[framework])
  definition = definition.for_smoke()
  backend = backends.start(framework, Devices(platform='cpu', num_devices=1))
  code = TaskCode.of(definition, framework)
  workload = backend.workload(definition, code, next(iter(definition.suites.values())))
  key = backend.key(np.array([1, 2], np.uint32))
  batch = code.data.fake_batch(definition, BATCH_SIZE, 0)
  placed = backend.place(batch)
  params, model_state = workload.init_model_fn(key)

  def logits(params: Any, batch: Any) -> Any:
    train = ForwardPassMode.TRAIN
    return workload.model_fn(params, batch, model_state, train, key, update_batch_norm=False)[0]

  with pytest.MonkeyPatch.context() as patch:
    if is_cut:
      patch.setattr(chunks, '_WORK_BYTES', SMALL_CHUNK_BYTES)
    yield SimpleNamespace(
      definition=definition,
      framework=framework,
      workload=workload,
      params=params,
      batch=batch,
      placed=placed,
      logits=logits,
    )


def leaves(batch: Any) -> list[Any]:
  if isinstance(batch, dict):
    return [leaf for name in sorted(batch) for leaf in leaves(batch[name])]
  if isinstance(batch, tuple):
    return [leaf for value in batch for leaf in leaves(value)]
  return [batch]


def name_of(dtype: Any) -> str:
  return str(dtype).removeprefix('torch.')


def test_arrays_of_a_batch_have_the_types_and_the_layout_of_the_contract(case):
  """Where AlgoPerf's entries call cross entropy or one_hot, PyTorch takes int64 alone."""
  drawn, placed = leaves(case.batch), leaves(case.placed)
  types = TYPES[case.framework]
  assert [name_of(x.dtype) for x in placed] == [types[name_of(x.dtype)] for x in drawn]
  for left, right in zip(drawn, placed, strict=True):
    if case.framework == 'pytorch' and left.ndim == 4:  # images, with their channels first
      left = np.moveaxis(left, -1, 1)
    np.testing.assert_array_equal(left, np.asarray(right))


def summary_in_jax(targets: Any, logits: Any) -> Any:
  import jax
  import jax.numpy as jnp
  import optax

  assert isinstance(getattr(logits, 'logits', logits), jax.Array)
  wide = logits.astype(jnp.float32)
  return {
    'logits': wide,
    'best': logits.argmax(axis=-1),
    'probabilities': jax.nn.softmax(logits, axis=-1),
    'losses': optax.softmax_cross_entropy_with_integer_labels(wide, targets),
    'labels': jax.nn.one_hot(targets, logits.shape[-1]),
    'shifted': 1 + 2 * logits[:, ..., 0],
  }


def summary_in_torch(targets: Any, logits: Any) -> Any:
  import torch
  from torch.nn import functional as F

  assert isinstance(getattr(logits, 'logits', logits), torch.Tensor)
  wide = logits.float()
  rows, labels = wide.flatten(0, -2), targets.flatten()
  losses = F.cross_entropy(rows, labels, reduction='none').view(targets.shape)
  same = F.nll_loss(F.log_softmax(rows, dim=-1), labels, reduction='none').view(targets.shape)
  torch.testing.assert_close(losses, same)
  return {
    'logits': wide,
    'best': logits.argmax(dim=-1),
    'probabilities': torch.softmax(logits, dim=-1),
    'losses': losses,
    'labels': F.one_hot(targets, logits.shape[-1]).float(),
    'shifted': 1 + 2 * logits[:, ..., 0],
  }


def traced(case: Any) -> tuple[Any, Any, Any]:
  """Shape and type of the logits, what a submission computes of them, and their loss."""
  import jax

  seen = []

  @jax.jit
  def compute(params: Any, batch: Any) -> Any:
    logits = case.logits(params, batch)
    seen.append((logits.shape, name_of(logits.dtype)))
    loss = case.workload.loss_fn(batch['targets'], logits)
    return summary_in_jax(batch['targets'], logits), loss

  summary, loss = jax.device_get(compute(case.params, case.placed))
  return seen[0], summary, loss


def untraced(case: Any) -> tuple[Any, Any, Any]:
  logits = case.logits(case.params, case.placed)
  seen = (tuple(logits.shape), name_of(logits.dtype))
  loss = case.workload.loss_fn(case.placed['targets'], logits)
  if case.framework == 'jax':
    return seen, summary_in_jax(case.placed['targets'], logits), loss
  from torch.utils import _pytree as tree

  summary = summary_in_torch(case.placed['targets'], logits)
  return seen, *tree.tree_map(lambda x: x.detach(), (summary, loss))


WAYS = {'jax': (traced, untraced), 'pytorch': (untraced,)}


def test_logits_are_an_array(case):
  """Or act as one, with auxiliary losses beside them."""
  assert case.definition.loss_type == LossType.SOFTMAX_CROSS_ENTROPY  # others need their own check
  for way in WAYS[case.framework]:
    check_logits(case, *way(case))


def check_logits(case: Any, seen: tuple[Any, str], summary: Any, loss: Any) -> None:
  shape, dtype = seen
  targets = case.batch['targets']
  logits = np.asarray(summary['logits'], np.float64)
  assert shape == logits.shape == (*targets.shape, shape[-1])
  assert dtype == 'float32'
  exponentials = np.exp(logits)
  probabilities = exponentials / exponentials.sum(-1, keepdims=True)
  losses = -np.log(np.take_along_axis(probabilities, targets[..., None], -1)[..., 0])
  expected = {
    'best': logits.argmax(-1),
    'probabilities': probabilities,
    'losses': losses,
    'labels': np.eye(shape[-1])[targets],
    'shifted': 1 + 2 * logits[..., 0],
  }
  for name, values in expected.items():
    np.testing.assert_allclose(summary[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
  np.testing.assert_allclose(loss['per_example'], losses, rtol=1e-5, atol=1e-6)
  auxiliary = sum(float(total) for total, _ in loss.get('parts', {}).values())
  np.testing.assert_allclose(loss['summed'], losses.sum() + auxiliary, rtol=1e-5)


def test_losses_by_task_are_the_loss_of_the_batch(case):
  if not case.definition.task_names:
    return
  logits, weights = case.logits(case.params, case.placed), case.placed.get('weights')
  arguments = (case.placed['targets'], logits, weights)
  found = case.workload.task_losses(*arguments, case.placed['task'])
  whole = case.workload.loss_fn(*arguments)
  for name, expected in (
    ('summed', whole['per_example'].sum()),
    ('n_valid_examples', whole['n_valid_examples']),
  ):
    by_task, total = (
      np.asarray(x if case.framework == 'jax' else x.detach()) for x in (found[name], expected)
    )
    assert by_task.shape == (len(case.definition.task_names),)
    np.testing.assert_allclose(by_task.sum(), total, rtol=1e-5)


def test_predictions_are_probabilities(case):
  """`output_activation_fn` takes the logits as they come."""
  found = case.workload.output_activation_fn(case.logits(case.params, case.placed))
  found = np.asarray(found if case.framework == 'jax' else found.detach())
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
