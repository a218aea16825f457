"""One training step and one evaluation of a model in both frameworks, on shared weights.

Everything comes back as numpy arrays under flax's names, so that the outcomes can be compared field
by field. Nothing here knows a task: it goes through a task's own `parity.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
import torch
from flax import linen as nn
from torch.utils import _pytree as torch_tree

from algorithmic_efficiency import backends
from algorithmic_efficiency.backends._torch_backend import TorchBackend
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data.random_numbers import ExampleRandom
from tests import compiler

LEARNING_RATE = 0.5
LABEL_SMOOTHING = 0.1
NUM_PADDED = 2  # rows at the end of the batch that do not count
# An array below this part of the largest value of its tree is zero but for rounding. The gradient
# of the bias of keys is such an array, because a softmax does not change with it.
ROUNDING = 1e-12

Tree = Any  # nested containers of numpy arrays


@dataclass(frozen=True, kw_only=True)
class Outcome:
  """What one step did: logits, loss and gradients of the training forward, then the state after it.

  `eval_logits`, `eval_sums` and `outputs` are those of the evaluation after the step, which
  generates where the definition says so.
  """

  logits: Tree
  loss: Mapping[str, np.ndarray]
  gradients: Tree
  model_state: Tree
  params: Tree
  eval_logits: Tree
  eval_sums: Mapping[str, Any]
  outputs: Mapping[str, np.ndarray]


def definitions() -> list[WorkloadDefinition]:
  """Every workload and variant that exists in both frameworks."""
  return [
    definition
    for definition in registry.workloads().values()
    if all(registry.is_runnable(definition, framework) for framework in backends.FRAMEWORKS)
  ]


def random_weights(definition: WorkloadDefinition, seed: int, dtype: type) -> dict[str, np.ndarray]:
  """A PyTorch state dict in which no two arrays are alike, as fresh biases and scales would be.

  Arrays that are tied stay so. In float64 they are those of float32.
  """
  model = registry.module_of(definition, 'pytorch').build(definition)
  random = np.random.default_rng(seed)
  drawn: dict[int, np.ndarray] = {}  # by the place in memory, which tied arrays share
  for tensor in model.state_dict().values():
    array = tensor.numpy()
    if array.dtype.kind == 'f' and tensor.data_ptr() not in drawn:
      # Kernels have both signs: queries and keys of one direction would let attention be even, and
      # the gradient of its scale be nothing but rounding.
      low = -0.15 if array.ndim > 1 else 0.05
      array = array + random.uniform(low, 0.15, size=array.shape)
      drawn[tensor.data_ptr()] = array.astype(np.float32).astype(dtype)
  return {
    name: drawn.get(tensor.data_ptr(), tensor.numpy()).copy()
    for name, tensor in model.state_dict().items()
  }


def batch(
  definition: WorkloadDefinition, batch_size: int, seed: int, dtype: type
) -> dict[str, Any]:
  """A generated batch with floating-point leaves of `dtype`, the last rows of which are padding."""
  data = registry.module_of(definition, 'data')
  result = _as_type(data.fake_batch(definition, batch_size, seed), dtype)
  counts = (np.arange(batch_size) < batch_size - NUM_PADDED).astype(np.float32)
  own = result.get('weights', np.ones(batch_size)).astype(np.float32)
  result['weights'] = own * counts.reshape(-1, *[1] * (own.ndim - 1))
  return result


def mixed(definition: WorkloadDefinition, batch: Mapping[str, Any]) -> Mapping[str, Any]:
  """A batch as training gets it: mixed with itself where the task says so."""
  data = registry.module_of(definition, 'data')
  mix = data.mix_batch(definition) if hasattr(data, 'mix_batch') else None
  if mix is None:
    return batch
  rows = jax.tree.map(np.copy, dict(batch))
  before = jax.tree.map(lambda x: x[-1:].copy(), rows)
  return _as_type(mix(rows, before, ExampleRandom(0)), _dtype(batch['inputs']))


def _as_type(batch: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
  return jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == 'f' else x, dict(batch))


def with_jax(
  definition: WorkloadDefinition, weights: Mapping[str, np.ndarray], batch: Mapping[str, Any]
) -> Outcome:
  code = registry.module_of(definition, 'jax')
  params, model_state = registry.module_of(definition, 'parity').to_jax(definition, weights)
  model = code.build(definition, dtype=_dtype(params))
  optimizer = optax.sgd(LEARNING_RATE)

  def run(
    params: Tree, model_state: Tree, training: Mapping[str, Any], batch: Mapping[str, Any]
  ) -> dict[str, Any]:
    def training_loss(params: Tree) -> tuple[Any, Any]:
      logits, new_state = nn.apply(code.forward, model, mutable=list(model_state))(
        {'params': params, **model_state},
        training,
        train=True,
        use_running_average=False,
        dropout_rate=0.0,
      )
      loss = code.loss(
        definition, training['targets'], logits, training['weights'], LABEL_SMOOTHING
      )
      return loss['summed'] / loss['n_valid_examples'], (logits, loss, new_state)

    gradients, (logits, loss, new_state) = jax.grad(training_loss, has_aux=True)(params)
    updates, _ = optimizer.update(gradients, optimizer.init(params))
    new_params = optax.apply_updates(params, updates)
    eval_logits = nn.apply(code.forward, model)(
      {'params': new_params, **new_state},
      batch,
      train=False,
      use_running_average=True,
      dropout_rate=0.0,
    )
    sums, outputs = code.eval_step(definition, batch, eval_logits)
    if definition.generation is not None:
      generate = functools.partial(code.generate, definition)
      bound = nn.apply(lambda model: generate(model, batch, is_last=True), model)
      outputs = {**outputs, **bound({'params': new_params, **new_state})}
    return {
      'logits': _plain(logits),
      'loss': loss,
      'gradients': gradients,
      'model_state': new_state,
      'params': new_params,
      'eval_logits': _plain(eval_logits),
      'eval_sums': sums,
      'outputs': outputs,
    }

  # In float32, the rounding is that of training.
  options = compiler.AS_IN_TRAINING if _dtype(params) == np.float32 else None
  compiled = jax.jit(run, compiler_options=options)
  return Outcome(
    **jax.tree.map(np.asarray, compiled(params, model_state, mixed(definition, batch), batch))
  )


def with_torch(
  definition: WorkloadDefinition, weights: Mapping[str, np.ndarray], batch: Mapping[str, Any]
) -> Outcome:
  code, parity = (registry.module_of(definition, kind) for kind in ('pytorch', 'parity'))
  dtype = torch.float64 if _dtype(weights) == np.float64 else torch.float32
  model = code.build(definition, dtype=dtype)
  model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
  optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
  place = TorchBackend(torch.device('cpu'), Devices(), compiles=False).place
  training, batch = place(dict(mixed(definition, batch))), place(dict(batch))

  model.train()
  logits = code.forward(model, training, train=True, use_running_average=False, dropout_rate=0.0)
  loss = code.loss(definition, training['targets'], logits, training['weights'], LABEL_SMOOTHING)
  (loss['summed'] / loss['n_valid_examples']).backward()
  named = model.named_parameters(remove_duplicate=False)
  gradients = {name: parameter.grad for name, parameter in named}
  gradients, _ = parity.to_jax(definition, _numpy({**model.state_dict(), **gradients}))
  optimizer.step()
  model.eval()
  with torch.no_grad():
    eval_logits = code.forward(
      model, batch, train=False, use_running_average=True, dropout_rate=0.0
    )
    sums, outputs = code.eval_step(definition, batch, eval_logits)
    if definition.generation is not None:
      outputs = {**outputs, **code.generate(definition, model, batch, is_last=True)}
  params, model_state = parity.to_jax(definition, _numpy(model.state_dict()))
  return Outcome(
    logits=_numpy(_plain(logits)),
    loss=_numpy(loss),
    gradients=gradients,
    model_state=model_state,
    params=params,
    eval_logits=_numpy(_plain(eval_logits)),
    eval_sums=_numpy(sums),
    outputs=_numpy(outputs),
  )


def _plain(logits: Any) -> Tree:
  """What forward returns, without the type that a framework has for auxiliary losses."""
  return vars(logits) if hasattr(logits, 'auxiliary') else logits


def distances(actual: Tree, expected: Tree) -> list[float]:
  """The largest difference in every array, relative to its scale."""
  leaves = jax.tree.leaves(actual), jax.tree.leaves(expected), _scales(expected)
  return [
    float(np.abs(left - right).max(initial=0)) / (scale or 1.0)
    for left, right, scale in zip(*leaves, strict=True)
  ]


def assert_close(actual: Tree, expected: Tree, *, relative: float) -> None:
  """Every array differs by at most `relative` times its scale."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  leaves = jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), _scales(expected)
  for (path, left), right, scale in zip(*leaves, strict=True):
    assert left.shape == right.shape, jax.tree_util.keystr(path)
    np.testing.assert_allclose(
      left, right, rtol=0, atol=relative * scale, err_msg=jax.tree_util.keystr(path)
    )


def _scales(tree: Tree) -> list[float]:
  """The largest magnitude in every array; that in the tree if it is zero but for rounding."""
  scales = [float(np.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(tree)]
  largest = max(scales, default=0.0)
  return [largest if scale < ROUNDING * largest else scale for scale in scales]


def _numpy(tree: Any) -> Tree:
  return torch_tree.tree_map(lambda x: x.detach().numpy().copy(), tree)


def _dtype(tree: Tree) -> np.dtype:
  return np.result_type(*(x for x in jax.tree.leaves(tree) if x.dtype.kind == 'f'))
