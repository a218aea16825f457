"""The training loss of every task has second derivatives in both frameworks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import training_loss
from training_loss import Case

# A step must be too short for a unit to cross the kink of a ReLU. Two steps of different length
# then have the same difference of gradients.
STEPS = (3e-7, 6e-7)
TOLERANCE = 1e-6

Vector = list[Any]  # an array for each parameter
Draw = Callable[[tuple[int, ...]], np.ndarray]


def differences(gradient: Callable[[Vector], Vector], at: Vector, along: Vector) -> list[Vector]:
  """Returns central differences of the gradient along a vector, one for each length of a step."""
  found = []
  for size in STEPS:
    ends = [
      gradient([x + sign * size * y for x, y in zip(at, along, strict=True)]) for sign in (1, -1)
    ]
    found.append([(x - y) / (2 * size) for x, y in zip(*ends, strict=True)])
  return found


def in_jax(case: Case, batch: Any, draw: Draw) -> tuple[list[Vector], list[Vector]]:
  """Returns the products, forward over reverse and reverse over reverse, and differences."""
  import jax

  at, structure = jax.tree.flatten(case.params)
  along = [draw(x.shape) for x in at]

  def mean_loss(params: list[jax.Array]) -> jax.Array:
    loss = case.loss(structure.unflatten(params), batch)
    return loss['summed'] / loss['n_valid_examples']

  gradient = jax.jit(jax.grad(mean_loss))

  @jax.jit
  def products(params: Any, along: Any) -> Any:
    _, forward = jax.jvp(jax.grad(mean_loss), (params,), (along,))
    _, transpose = jax.vjp(jax.grad(mean_loss), params)
    return forward, transpose(along)[0]

  return products(at, along), differences(gradient, at, along)


def in_torch(case: Case, batch: Any, draw: Draw) -> tuple[list[Vector], list[Vector]]:
  """Returns the Hessian-vector product by two backward passes, and differences."""
  import torch

  params = list(case.params.parameters())
  at = [parameter.detach().clone() for parameter in params]

  def gradient(values: Any, **options: Any) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
      for parameter, value in zip(params, values, strict=True):
        parameter.copy_(value)
    loss = case.loss(case.params, batch)
    mean = loss['summed'] / loss['n_valid_examples']
    return torch.autograd.grad(mean, params, **options)

  along = [torch.tensor(draw(x.shape)) for x in at]
  first = gradient(at, create_graph=True)
  product = torch.autograd.grad(first, params, along, materialize_grads=True)
  return [product], differences(gradient, at, along)


WAYS = {'jax': in_jax, 'pytorch': in_torch}
LAYERS = {'jax': 'jax', 'pytorch': 'torch'}


def _cases() -> list[Any]:
  """The smallest workload of each model; long where a deep program compiles long."""
  cases = []
  for case in training_loss.parameters(lambda one: (one.task, type(one.model))):
    definition, framework = case.values[0]
    depths = [getattr(definition.model, name, 1) for name in ('num_layers', 'depth', 'stage_sizes')]
    is_deep = framework == 'jax' and depths != [1, 1, 1]
    marks = [pytest.mark.long] if is_deep else case.marks
    cases.append(pytest.param(*case.values, id=case.id, marks=marks))
  return cases


@pytest.mark.parametrize('case', _cases())
def test_hessian_vector_products_are_differences_of_gradients(case):
  definition, framework = case
  with training_loss.in_float64(framework):
    case = training_loss.begin(definition, framework)
    layers = importlib.import_module(f'algorithmic_efficiency.layers.{LAYERS[framework]}')
    with layers.plain_kernels():
      random = np.random.default_rng(0)
      batch = case.backend.place(case.batch(0))
      products, expected = WAYS[framework](case, batch, lambda shape: random.normal(size=shape))
    products, (expected, other) = (
      [flat(case, vector) for vector in vectors] for vectors in (products, expected)
    )
  assert distance(other, expected) < TOLERANCE, 'a step crosses a kink; choose another batch'
  for product in products:
    assert product.dtype == np.float64
    assert distance(product, expected) < TOLERANCE


def flat(case: Case, vector: Any) -> np.ndarray:
  return np.concatenate([np.ravel(case.on_host(x)) for x in vector])


def distance(x: np.ndarray, y: np.ndarray) -> float:
  return float(np.linalg.norm(x - y) / np.linalg.norm(y))
