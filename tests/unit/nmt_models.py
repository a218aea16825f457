"""The translation model in both frameworks, from the same weights, as functions of numpy arrays."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import nmt_batches
import numpy as np
import pytest

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition

FRAMEWORKS = {'jax': 'jax', 'pytorch': 'torch'}
VARIANTS = ('wmt', 'wmt_post_ln', 'wmt_attention_temp', 'wmt_glu_tanh')
WEIGHTS_SEED = 2  # with which some translations end soon and others do not
EVALUATION = {'train': False, 'use_running_average': True, 'dropout_rate': 0.0}

each_framework = pytest.mark.parametrize('framework', FRAMEWORKS)


def small(name: str = 'wmt', **changes: Any) -> WorkloadDefinition:
  """A workload at smoke size; the changes are those of its model."""
  definition = registry.workload(name).for_smoke()
  return replace(definition, model=replace(definition.model, **changes))


def code(kind: str) -> Any:
  """A module of the task; the test is skipped without its framework."""
  if kind in FRAMEWORKS:
    pytest.importorskip(FRAMEWORKS[kind])
  return registry.module_of(registry.workload('wmt'), kind)


def pairs(definition: WorkloadDefinition, count: int, seed: int = 0) -> list[nmt_batches.Pair]:
  data = definition.data
  sizes = {'vocab_size': data.vocab_size, 'max_length': data.max_length}
  return nmt_batches.pairs(count, seed=seed, **sizes)


def weights(definition: WorkloadDefinition) -> dict[str, np.ndarray]:
  """A PyTorch state dict, away from the beginning, so that all parts are felt and outputs vary."""
  pytest.importorskip('torch')
  random = np.random.default_rng(WEIGHTS_SEED)

  def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if 'embedding' in name:
      return random.normal(size=shape)
    if len(shape) > 1:
      return random.normal(size=shape) * 2 / np.sqrt(shape[1])
    return random.normal(size=shape) * 0.2 + (0 if 'bias' in name else 1)

  shapes = code('pytorch').build(definition).state_dict()
  state = {name: drawn(name, tuple(x.shape)) for name, x in shapes.items()}
  state['shared_embedding.weight'][nmt_batches.EOS] *= 2  # so that it is the likeliest now and then
  return state


@dataclass(frozen=True)
class Model:
  """A model in one framework, in float64."""

  definition: WorkloadDefinition
  framework: str

  def log_probs(self, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Log-probabilities of all tokens at each position of the targets, [batch, length, vocab]."""
    logits = np.asarray(getattr(self, f'_{self.framework}_logits')(batch))
    highest = logits.max(-1, keepdims=True)
    return logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))

  def losses(self, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The cross entropy of each target, [batch, length]; 0 in padding."""
    targets = batch['targets'][..., None]
    of_targets = np.take_along_axis(self.log_probs(batch), targets, -1)[..., 0]
    return -of_targets * batch['weights']

  def generate(self, batch: dict[str, np.ndarray], *, is_last: bool) -> np.ndarray:
    return np.asarray(getattr(self, f'_{self.framework}_generate')(batch, is_last))

  # JAX.

  @functools.cached_property
  def _variables(self) -> Any:
    params, _ = code('parity').to_jax(self.definition, weights(self.definition))
    return {'params': params}

  @functools.cached_property
  def _flax(self) -> Any:
    return code('jax').build(self.definition, dtype=np.float64)

  @functools.cached_property
  def _jitted_logits(self) -> Any:
    import jax
    from flax import linen as nn

    apply = nn.apply(code('jax').forward, self._flax)
    return jax.jit(lambda variables, batch: apply(variables, batch, **EVALUATION))

  def _jax_logits(self, batch: dict[str, np.ndarray]) -> Any:
    import jax

    with jax.enable_x64(True):
      return self._jitted_logits(self._variables, batch)

  def _jax_generate(self, batch: dict[str, np.ndarray], is_last: bool) -> Any:
    import jax
    from flax import linen as nn

    def bound(model: Any, batch: Any) -> Any:
      return code('jax').generate(self.definition, model, batch, is_last=is_last)['tokens']

    with jax.enable_x64(True):
      return jax.jit(nn.apply(bound, self._flax))(self._variables, batch)

  @functools.cached_property
  def _jitted_training_logits(self) -> Any:
    import jax
    from flax import linen as nn

    apply = nn.apply(code('jax').forward, self._flax)

    @jax.jit
    def run(variables: Any, batch: Any, rates: Any) -> Any:
      options = {**EVALUATION, 'train': True, **rates}
      return apply(variables, batch, rngs={'dropout': jax.random.key(0)}, **options)

    return run

  def jax_training_logits(
    self, batch: dict[str, np.ndarray], dropout_rate: float = 0.0, aux_dropout_rate: float = 0.0
  ) -> np.ndarray:
    """Logits with dropout of one seed; see `forward` for the rates."""
    import jax

    rates = {'dropout_rate': dropout_rate, 'aux_dropout_rate': aux_dropout_rate}
    with jax.enable_x64(True):
      return np.asarray(self._jitted_training_logits(self._variables, batch, rates))

  # PyTorch.

  @functools.cached_property
  def module(self) -> Any:
    import torch

    module = code('pytorch').build(self.definition, dtype=torch.float64)
    state = weights(self.definition)
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return module

  def _pytorch_logits(self, batch: dict[str, np.ndarray]) -> Any:
    import torch

    with torch.no_grad():
      return code('pytorch').forward(self.module, tensors(batch), **EVALUATION)

  def pytorch_training_logits(self, batch: dict[str, np.ndarray], **rates: float) -> np.ndarray:
    """See `jax_training_logits`."""
    import torch

    torch.manual_seed(0)
    options = {**EVALUATION, 'train': True, **rates}
    with torch.no_grad():
      return code('pytorch').forward(self.module, tensors(batch), **options).numpy()

  def _pytorch_generate(self, batch: dict[str, np.ndarray], is_last: bool) -> Any:
    import torch

    with torch.no_grad():
      found = code('pytorch').generate(
        self.definition, self.module, tensors(batch), is_last=is_last
      )
    return found['tokens']


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
  import torch

  return {name: torch.tensor(array) for name, array in batch.items()}
