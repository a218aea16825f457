"""What single optimizers require, and which are refused, by import name.

This module imports no framework; the optimizer's package does. `optimizers.torch` and
`optimizers.jax` build training steps from its results.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from algorithmic_efficiency import errors
from algorithmic_efficiency.optimizers import arguments
from algorithmic_efficiency.spec import ParameterRole

MATRIX_ROLES = (ParameterRole.HIDDEN_MATRIX, ParameterRole.CONVOLUTION, ParameterRole.EXPERT)
"""What an optimizer that takes matrices alone is given; embeddings and heads go to another."""

_RATE = re.compile(r'(.*_)?(lr|learning_rate)')


@dataclass(frozen=True, kw_only=True)
class Needs:
  """The special requirements of an optimizer.

  Attributes:
    step: 'closure' evaluates the loss several times; 'two_passes' needs gradients, then a closure
      for further gradients; 'matrices' trains only hidden matrices.
    takes_schedule: True if its learning rate may be a function of the step, although its signature
      does not say so.
    passes_on: hyperparameter that is itself an optimizer and receives all unknown arguments.
    refused: why it cannot run here, and what to do.
  """

  step: Literal['gradients', 'closure', 'two_passes', 'matrices'] = 'gradients'
  takes_schedule: bool = False
  passes_on: str = ''
  refused: str = ''


_PER_EXAMPLE = 'it needs a gradient for each example, and a workload gives that of the whole batch'
_CREATE_GRAPH = (
  'it differentiates the gradients again, for which the step would have to keep their graph; write '
  'a submission of your own for it (algoeff new submission)'
)

_GROUPS = (
  'it takes groups of parameters that are marked with use_muon; use torch.optim.Muon, or write a '
  'submission of your own that makes the groups (algoeff new submission)'
)

# By package and name of the class or function. Two kinds are recognized without the table:
# optimizers with `train()` and `eval()`, and optax's schedule-free ones by their state. Every
# optimizer of optax may use the loss and functions that compute loss and gradient.
NEEDS: Mapping[str, Needs] = {
  'torch.LBFGS': Needs(step='closure'),
  'torch.Muon': Needs(step='matrices'),
  'torch.SparseAdam': Needs(
    refused='it takes sparse gradients, and those of a workload are dense; use torch.optim.Adam'
  ),
  'pytorch_optimizer.SAM': Needs(step='two_passes', passes_on='base_optimizer'),
  'pytorch_optimizer.AdaHessian': Needs(refused=_CREATE_GRAPH),
  'pytorch_optimizer.SophiaH': Needs(refused=_CREATE_GRAPH),
  'pytorch_optimizer.MuonBase': Needs(refused=_GROUPS),  # Muon and those that derive from it
  'optax.muon': Needs(step='matrices'),
  'optax.schedule_free_adamw': Needs(takes_schedule=True),
  'optax.schedule_free_sgd': Needs(takes_schedule=True),
  'optax.schedule_free': Needs(takes_schedule=True),
  'optax.dpsgd': Needs(refused=_PER_EXAMPLE),
  'optax.differentially_private_aggregate': Needs(refused=_PER_EXAMPLE),
}


@functools.cache
def needs_of(optimizer: Callable[..., Any]) -> Needs:
  """Returns the requirements of a class or function: from the table, else from its `step`."""
  for kind in inspect.getmro(optimizer) if inspect.isclass(optimizer) else (optimizer,):
    found = NEEDS.get(f'{kind.__module__.partition(".")[0]}.{kind.__name__}')
    if found is not None:
      return found
  step = getattr(optimizer, 'step', None)
  closure = inspect.signature(step).parameters.get('closure') if callable(step) else None
  if closure is not None and closure.default is closure.empty:
    return Needs(step='closure')
  return Needs()


def bound(
  optimizer: Callable[..., Any], name: str, hyperparameters: Mapping[str, Any], *, given: int = 0
) -> dict[str, Any]:
  """Returns the keyword arguments of an optimizer, checked against its signature.

  Args:
    given: number of first parameters that the caller supplies.

  Raises:
    UserError: a hyperparameter is unknown, missing or of the wrong type.
  """
  passes_on = needs_of(optimizer).passes_on
  if not passes_on:
    return arguments.bind(optimizer, name, hyperparameters, given=given)
  own = inspect.signature(optimizer).parameters
  kept = {key: value for key, value in hyperparameters.items() if key in own}
  result = arguments.bind(optimizer, name, kept, given=given)
  others = {key: value for key, value in hyperparameters.items() if key not in own}
  inner = result[passes_on]
  return result | arguments.bind(inner, str(hyperparameters[passes_on]), others, given=given)


def rates(optimizer: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, float]:
  """Returns the learning rates among the parameters of an optimizer, given or by default."""
  found = {}
  for key, parameter in inspect.signature(optimizer).parameters.items():
    value = given.get(key, parameter.default)
    if _RATE.fullmatch(key) and isinstance(value, (int, float)) and not isinstance(value, bool):
      found[key] = value
  return found


def takes_schedule(optimizer: Callable[..., Any], key: str) -> bool:
  """Returns True if a learning rate may be a function of the step."""
  words = arguments.annotation_words(inspect.signature(optimizer).parameters[key])
  return needs_of(optimizer).takes_schedule or any(
    word == 'Callable' or word.endswith('Schedule') for word in words
  )


def no_matrices_error(name: str) -> errors.UserError:
  """Returns the error for an optimizer of matrices on a model without hidden matrices."""
  return errors.UserError(
    f'{name} trains hidden matrices and convolutions, and this model has none; choose another '
    'optimizer.'
  )


def needs_more_error(name: str, problem: Exception) -> errors.UserError:
  """Returns the error for an optimizer that fails on the list of a model's parameters.

  Args:
    problem: what it raised when it was created.
  """
  text = f'{type(problem).__name__}: {problem}'.strip().splitlines()[0].rstrip('.')
  return errors.UserError(
    f'{name} cannot be created from the list of parameters of a model ({text}). If it needs groups '
    'of parameters, write a submission that makes them: algoeff new submission. Else name another '
    'optimizer.'
  )


def not_an_optimizer_error(name: str, found: str) -> errors.UserError:
  """Returns the error for an import name that is no optimizer.

  Args:
    name: the import name.
    found: what it is, as the end of a sentence.
  """
  return errors.UserError(
    'An optimizer must be a class with the interface of torch.optim.Optimizer, or a function that '
    f'returns an optax GradientTransformation; {name} {found}.'
  )
