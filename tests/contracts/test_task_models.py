"""What the model code of every task does, in each framework by itself, at smoke size."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference_figures
from initial_values import without_zeros

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.metrics import derived
from algorithmic_efficiency.metrics.metric import check_rows
from algorithmic_efficiency.spec import LossType
from algorithmic_efficiency.trial import evaluation
from tests.cost_of_tasks import is_large, slow_if_large

RUNNABLE = {
  framework: [one for one in registry.workloads().values() if registry.is_runnable(one, framework)]
  for framework in backends.FRAMEWORKS
}
NAMES = {'ids': lambda definition: definition.name}
REFERENCES = {
  name: figures
  for task in registry.tasks().values()
  for name, figures in reference_figures.read(task).items()
}


class JaxModel:
  """A flax model of a task with its variables."""

  def __init__(self, definition: WorkloadDefinition, dtype: str = 'float32'):
    import jax
    from flax import linen as nn

    self.definition, self.code = definition, registry.module_of(definition, 'jax')
    self.model = self.code.build(definition, dtype=jax.numpy.dtype(dtype))
    self._loss = jax.jit(lambda *arguments: self.code.loss(definition, *arguments))

    def init(key: Any) -> Any:
      return nn.init(self.code.forward, self.model)(
        key, fake_batch(definition, 1), train=False, use_running_average=True, dropout_rate=0.0
      )

    self.init, self.key = init, jax.random.PRNGKey(0)
    self.shapes = jax.eval_shape(init, self.key)

  def parameters(self) -> dict[str, Any]:
    return self._named(self.shapes['params'])

  def state(self) -> dict[str, Any]:
    return self._named({name: tree for name, tree in self.shapes.items() if name != 'params'})

  def _named(self, tree: Any) -> dict[str, Any]:
    import jax

    named = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in named}

  def logits(self, variables: Any, batch: Any, *, train: bool, key: Any = None) -> tuple[Any, Any]:
    """Logits, and the collections that the forward pass changed."""
    from flax import linen as nn

    mutable = [name for name in variables if name != 'params'] if train else []
    return nn.apply(self.code.forward, self.model, mutable=mutable)(
      variables,
      batch,
      train=train,
      use_running_average=not train,
      dropout_rate=0.1 if train else 0.0,
      rngs={'dropout': key} if train else {},
    )

  def evaluator(self) -> Callable[[Any], tuple[Any, dict[str, Any], dict[str, Any]]]:
    """A function of a batch that gives logits, sums, and outputs, generated ones among them."""
    import jax
    from flax import linen as nn

    variables = dict(jax.jit(self.init)(self.key))
    variables['params'] = jax.tree.map(without_zeros, variables['params'])

    @jax.jit
    def evaluate(batch: Any) -> Any:
      logits, _ = self.logits(variables, batch, train=False)
      sums, outputs = self.code.eval_step(self.definition, batch, logits)
      if self.definition.generation is not None:
        outputs |= nn.apply(generate, self.model)(variables, batch)
      return logits, sums, outputs

    def generate(model: Any, batch: Any) -> Any:
      return self.code.generate(self.definition, model, batch, is_last=False)

    return lambda batch: jax.tree.map(np.asarray, evaluate(batch))

  def loss(self, targets: Any, logits: Any, mask: Any, label_smoothing: float) -> Any:
    return self._loss(targets, logits, mask, label_smoothing)


class TorchModel:
  """A PyTorch model of a task."""

  def __init__(self, definition: WorkloadDefinition, dtype: str = 'float32'):
    import torch

    self.definition, self.code = definition, registry.module_of(definition, 'pytorch')
    torch.manual_seed(0)
    self.model = self.code.build(definition, dtype=getattr(torch, dtype))

  def parameters(self) -> dict[str, Any]:
    return dict(self.model.named_parameters())

  def state(self) -> dict[str, Any]:
    parameters = self.model.named_parameters(remove_duplicate=False)
    names = self.model.state_dict().keys() - dict(parameters).keys()
    return {name: self.model.get_buffer(name) for name in names}

  def evaluator(self) -> Callable[[Any], tuple[Any, dict[str, Any], dict[str, Any]]]:
    import torch
    from torch.utils import _pytree as tree

    self.model.eval()
    with torch.no_grad():
      for parameter in self.model.parameters():
        parameter.copy_(torch.from_numpy(without_zeros(parameter.detach())))

    @torch.no_grad()
    def evaluate(batch: Any) -> Any:
      batch = torch_batch(batch)
      logits = self.code.forward(
        self.model, batch, train=False, use_running_average=True, dropout_rate=0.0
      )
      sums, outputs = self.code.eval_step(self.definition, batch, logits)
      if self.definition.generation is not None:
        outputs |= self.code.generate(self.definition, self.model, batch, is_last=False)
      return tree.tree_map(lambda x: x.numpy(), (logits, sums, outputs))

    return evaluate

  def loss(self, targets: Any, logits: Any, mask: Any, label_smoothing: float) -> Any:
    import torch
    from torch.utils import _pytree as tree

    targets, logits, mask = tree.tree_map(
      lambda x: None if x is None else torch.tensor(x), (targets, logits, mask)
    )
    result = self.code.loss(self.definition, targets, logits, mask, label_smoothing)
    # Submissions reduce these over the ranks, which takes tensors.
    assert all(isinstance(value, torch.Tensor) for value in tree.tree_leaves(result))
    return result


def fake_batch(definition: WorkloadDefinition, size: int, seed: int = 0) -> dict[str, Any]:
  return registry.module_of(definition, 'data').fake_batch(definition, size, seed)


def torch_batch(batch: dict[str, Any]) -> dict[str, Any]:
  """A batch as the steps of a submission get it."""
  import torch

  from algorithmic_efficiency.backends._torch_backend import TorchBackend

  return TorchBackend(torch.device('cpu'), Devices(), compiles=False).place(batch)


def with_weights(batch: dict[str, Any], weights: list[int]) -> dict[str, Any]:
  """The batch of an evaluation, whose examples have these weights times those of their parts."""
  examples = np.array(weights, np.float32)
  own = batch.get('weights', np.ones(len(examples), np.float32))
  return {**batch, 'weights': own * examples.reshape(-1, *[1] * (own.ndim - 1))}


def array_of(logits: Any) -> np.ndarray:
  """The logits themselves, of a model that returns auxiliary losses beside them."""
  return logits.logits if hasattr(logits, 'auxiliary') else logits


def build(definition: WorkloadDefinition, framework: str, dtype: str = 'float32') -> Any:
  pytest.importorskip({'jax': 'jax', 'pytorch': 'torch'}[framework])
  return {'jax': JaxModel, 'pytorch': TorchModel}[framework](definition, dtype)


def in_float64(framework: str) -> contextlib.AbstractContextManager[Any]:
  """Where arrays of float64 exist, in either framework."""
  if framework != 'jax':
    return contextlib.nullcontext()
  return pytest.importorskip('jax').enable_x64(True)


def without_allocating(framework: str) -> contextlib.AbstractContextManager[Any]:
  """Where a model has shapes alone, as a flax model has anyway."""
  if framework != 'pytorch':
    return contextlib.nullcontext()
  return pytest.importorskip('torch').device('meta')


CASES = [(one, framework) for framework in RUNNABLE for one in RUNNABLE[framework]]
CASE_NAMES = {'ids': lambda case: f'{case[0].name}-{case[1]}'}


def _by_model():
  """Every case, with marks on those of which others before it show the most.

  At smoke size, one may have the model and the metrics of another. Flax models take long to
  compile: the first model of a kind is enough, as variants are parameters of its code, and the
  tests of parity run each model. Other models of a kind are long, unless they are in PyTorch and
  their data are bundled.
  """
  params, seen = [], []
  for definition, framework in sorted(CASES, key=lambda case: is_large(case[0])):
    model = framework, definition.for_smoke().model, definition.loss_type, definition.metrics
    kind = framework, definition.task, type(definition.model)
    marks = slow_if_large(definition) if framework == 'jax' else []
    if model in seen or (kind in seen and (framework == 'jax' or not definition.bundled)):
      marks = [pytest.mark.long]
    seen += [model, kind]
    params.append(
      pytest.param((definition, framework), marks=marks, id=f'{definition.name}-{framework}')
    )
  return params


def _at_full_size():
  """Every case; large models are slow, and their variants long."""
  return [
    pytest.param(
      (definition, framework),
      marks=slow_if_large(definition),
      id=f'{definition.name}-{framework}',
    )
    for definition, framework in CASES
  ]


@pytest.fixture(scope='module', params=_by_model())
def small(request):
  """Definition, model and evaluator at smoke size; the function is compiled once."""
  definition, framework = request.param
  model = build(definition.for_smoke(), framework)
  return model.definition, model, model.evaluator()


# Parameters, at full size and without allocating where the framework allows it.


@pytest.mark.parametrize('case', _at_full_size())
def test_parameters(case):
  definition, framework = case
  with without_allocating(framework):
    model = build(definition, framework)
  parameters = model.parameters()
  assert all(str(one.dtype).removeprefix('torch.') == 'float32' for one in parameters.values())
  figures = REFERENCES.get(definition.name)
  if figures is None:
    return
  shapes = {name: tuple(one.shape) for name, one in parameters.items()}
  assert shapes == figures.parameters.get(framework, shapes)
  assert figures.num_parameters in (None, sum(map(math.prod, shapes.values())))
  state = {name: tuple(one.shape) for name, one in model.state().items()}
  assert state == figures.state.get(framework, state)


@pytest.mark.parametrize('case', CASES, **CASE_NAMES)
def test_output_parameters_exist(case):
  definition, framework = case
  names = list(build(definition.for_smoke(), framework).parameters())
  keys = definition.output_params[framework]
  assert keys
  for key in keys:
    assert any(key in (name, *name.split('/')) for name in names), key


@pytest.mark.parametrize('case', CASES, **CASE_NAMES)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float64'])
def test_parameters_are_at_least_float32_whatever_the_compute_type(case, dtype):
  definition, framework = case
  with in_float64(framework):
    parameters = build(definition.for_smoke(), framework, dtype).parameters()
  expected = 'float64' if dtype == 'float64' else 'float32'
  assert {str(one.dtype).removeprefix('torch.') for one in parameters.values()} == {expected}


# Evaluation.


def numbers_of(definition, batch, sums, outputs) -> dict[str, float]:
  """The metrics of an evaluation of one batch, by name."""
  task = registry.task_of(definition)
  given = task.module('metrics').metrics(definition, None) if task.has('metrics') else {}
  split = 'validation' if definition.generation is None else definition.generation.splits[0]
  metrics = evaluation._metrics(definition, split, given, len(batch['weights']), generate=True)
  reader = metrics.reader((0, 1))
  if reader is not None:
    reader(batch, outputs)
  return metrics.numbers(sums, lambda content: [content])


def test_evaluation_gives_the_metrics_of_the_definition(small):
  definition, _, evaluate = small
  batch = with_weights(fake_batch(definition, 8), [1] * 8)
  _, sums, outputs = evaluate(batch)
  check_rows(outputs, 8)
  numbers = numbers_of(definition, batch, sums, outputs)
  assert {name.partition('/')[0] for name in numbers} == set(definition.metrics)
  assert np.isfinite([*numbers.values()]).all()
  if not registry.task_of(definition).has('metrics'):
    assert set(sums) == set(derived.summed(definition.metrics))


def test_rows_do_not_see_each_other_in_evaluation(small):
  definition, _, evaluate = small
  batch, other = (fake_batch(definition, 8, seed) for seed in (0, 1))
  mixed = _map(lambda x, y: np.concatenate([x[:4], y[4:]]), batch, other)
  logits, _, outputs = evaluate(with_weights(batch, [1] * 8))
  changed, _, others = evaluate(with_weights(mixed, [1] * 8))
  logits, changed = array_of(logits), array_of(changed)
  np.testing.assert_allclose(logits[:4], changed[:4], rtol=1e-5, atol=1e-6)
  assert not np.allclose(logits[4:], changed[4:])
  for name, rows in outputs.items():
    np.testing.assert_allclose(rows[:4], others[name][:4], rtol=1e-5, atol=1e-6)


def test_padding_rows_do_not_change_the_metrics(small):
  definition, _, evaluate = small
  batch, other = (fake_batch(definition, 8, seed) for seed in (0, 1))
  mixed = _map(lambda x, y: np.concatenate([x[:5], y[5:]]), batch, other)
  one, same = (with_weights(rows, [1] * 5 + [0] * 3) for rows in (batch, mixed))
  more = with_weights(mixed, [1] * 8)
  sums, sums_of_same, sums_of_more = (evaluate(rows)[1] for rows in (one, same, more))
  for left, right in zip(_leaves(sums), _leaves(sums_of_same), strict=True):
    np.testing.assert_allclose(left, right, rtol=1e-6)
  for name in sums:
    pairs = zip(_leaves(sums[name]), _leaves(sums_of_more[name]), strict=True)
    assert not all(np.array_equal(left, right) for left, right in pairs), name
  numbers, expected = (numbers_of(definition, rows, *evaluate(rows)[1:]) for rows in (same, one))
  assert numbers == pytest.approx(expected, rel=1e-6)


# The loss.


def softmax_cross_entropy(targets, logits, label_smoothing):
  """In plain numpy and float64; targets are classes."""
  logits = logits.astype(np.float64)
  log_sum = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
  log_probabilities = logits - logits.max(-1, keepdims=True) - log_sum
  num_classes = logits.shape[-1]
  labels = np.eye(num_classes)[targets] * (1 - label_smoothing) + label_smoothing / num_classes
  return -(labels * log_probabilities).sum(-1)


REFERENCE_LOSSES = {LossType.SOFTMAX_CROSS_ENTROPY: softmax_cross_entropy}
MASKS = [None, np.array([1, 1, 0, 1, 1, 1, 0, 0], np.float32)]


@pytest.mark.parametrize('label_smoothing', [0.0, 0.1])
@pytest.mark.parametrize('mask', MASKS, ids=['whole', 'masked'])
def test_the_loss_is_that_of_a_plain_reference(small, mask, label_smoothing):
  definition, model, evaluate = small
  batch = fake_batch(definition, 8)
  returned, *_ = evaluate(with_weights(batch, [1] * 8))
  logits = 5 * array_of(returned)
  auxiliary = getattr(returned, 'auxiliary', None)
  returned = logits if auxiliary is None else replace(returned, logits=logits)
  found = dict(model.loss(batch['targets'], returned, mask, label_smoothing))
  assert ('parts' in found) == (auxiliary is not None)
  parts = found.pop('parts', {})
  assert set(parts) == set(auxiliary or {})
  found = {name: np.asarray(value) for name, value in found.items()}
  assert set(found) == {'summed', 'n_valid_examples', 'per_example'}
  reference = REFERENCE_LOSSES[definition.loss_type]
  expected = reference(batch['targets'], logits, label_smoothing)
  valid = np.ones(8) if mask is None else mask
  valid = np.broadcast_to(valid.reshape(-1, *[1] * (expected.ndim - 1)), expected.shape)
  np.testing.assert_allclose(found['per_example'], expected * valid, rtol=1e-5, atol=1e-6)
  of_parts = sum(float(total) for total, _ in parts.values())
  np.testing.assert_allclose(found['summed'], (expected * valid).sum() + of_parts, rtol=1e-5)
  assert found['n_valid_examples'] == valid.sum()
  assert all(number == valid.sum() for _, number in parts.values())


def test_the_evaluated_loss_has_no_auxiliary_parts(small):
  definition, model, evaluate = small
  if 'loss' not in definition.metrics:
    return
  batch = with_weights(fake_batch(definition, 8), [1] * 5 + [0] * 3)
  logits, sums, _ = evaluate(batch)
  found = model.loss(batch['targets'], logits, batch['weights'], 0.0)
  total, weight = sums['loss']
  np.testing.assert_allclose(total, np.asarray(found['per_example']).sum(), rtol=1e-5)
  np.testing.assert_allclose(weight, np.asarray(found['n_valid_examples']))


# Training.


@pytest.mark.parametrize('case', [one for one in _by_model() if one.values[0][1] == 'jax'])
def test_the_train_and_evaluation_steps_export_for_tpu(case):
  jax = pytest.importorskip('jax')
  from jax import export

  definition = case[0].for_smoke()
  model = build(definition, 'jax')

  def train_step(variables, batch, key):
    def loss(params):
      logits, state = model.logits({**variables, 'params': params}, batch, train=True, key=key)
      result = model.code.loss(definition, batch['targets'], logits, batch.get('weights'))
      return result['summed'] / result['n_valid_examples'], state

    gradients, state = jax.grad(loss, has_aux=True)(variables['params'])
    params = jax.tree.map(lambda x, gradient: x - 0.1 * gradient, variables['params'], gradients)
    return {'params': params, **state}

  def eval_step(variables, batch):
    logits, _ = model.logits(variables, batch, train=False)
    return model.code.eval_step(definition, batch, logits)

  batch = fake_batch(definition, 8)
  train_arguments = (model.shapes, batch, model.key)
  exported = export.export(jax.jit(train_step), platforms=['tpu'])(*train_arguments)
  assert exported.platforms == ('tpu',)
  assert [leaf.shape for leaf in exported.out_avals] == [
    leaf.shape for leaf in jax.tree.leaves(model.shapes)
  ]
  eval_arguments = (model.shapes, with_weights(batch, [1] * 8))
  exported = export.export(jax.jit(eval_step), platforms=['tpu'])(*eval_arguments)
  assert exported.platforms == ('tpu',)


@pytest.mark.parametrize('definition', RUNNABLE['pytorch'], **NAMES)
def test_forward_calls_the_module_so_that_hooks_run(definition):
  model = build(definition.for_smoke(), 'pytorch')
  calls = []
  model.model.register_forward_hook(lambda *_: calls.append(1))
  batch = torch_batch(fake_batch(model.definition, 8))
  model.code.forward(model.model, batch, train=True, use_running_average=False, dropout_rate=0.1)
  assert calls == [1]


@pytest.mark.parametrize('definition', RUNNABLE['pytorch'], **NAMES)
def test_a_pytorch_model_is_described_without_allocating(definition):
  definition = definition.for_smoke()
  with without_allocating('pytorch'):
    described = build(definition, 'pytorch').parameters()
  assert all(one.is_meta for one in described.values())
  assert {name: one.shape for name, one in described.items()} == {
    name: one.shape for name, one in build(definition, 'pytorch').parameters().items()
  }


def _map(function: Callable[..., Any], *trees: Any) -> Any:
  """Maps over nested dicts and tuples of arrays."""
  first = trees[0]
  if isinstance(first, dict):
    return {key: _map(function, *(one[key] for one in trees)) for key in first}
  if isinstance(first, (tuple, list)):
    return tuple(_map(function, *ones) for ones in zip(*trees, strict=True))
  return function(*trees)


def _leaves(tree: Any) -> list[np.ndarray]:
  leaves: list[np.ndarray] = []
  _map(leaves.append, tree)
  return leaves
