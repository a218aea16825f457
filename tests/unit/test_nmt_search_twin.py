"""Beam search of a trained model against a slow, plain twin, on the sentences of a test split.

The search runs in float32 with caches, the twin in float64 without. So their translations may
differ where two are equally good: such ties are counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import layer_twin as twin
import nmt_batches
import numpy as np
import pytest
import small_translation as small
from nmt_models import EVALUATION, FRAMEWORKS, code, tensors

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import streams

NUM_BEAMS = 4
LEARNING_RATE = 3e-3
TIE = 1e-4  # largest difference of the two best scores of a tie
MAX_SHARE_OF_TIES = 0.005
TIMEOUT_SEC = 3_600  # of a whole split, on a busy machine

Tokens = list[int]
Translations = list[tuple[tuple[int, ...], float]]  # of a sentence, with their scores, best first
Trained = tuple[
  WorkloadDefinition, Any, np.ndarray
]  # with a module, and sources [sentences, width]


def trained(name: str, root: Path, *, num_steps: int, num_sentences: int) -> Trained:
  """A workload, its model after some steps, and sources of its test split."""
  torch = pytest.importorskip('torch')
  definition = registry.workload(name)
  search = replace(definition.model.search, num_beams=NUM_BEAMS)
  definition = replace(definition, model=replace(definition.model, search=search))
  data = registry.module_of(definition, 'data')
  torch.manual_seed(0)
  module = code('pytorch').build(definition)
  optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
  stream = streams.train_stream(data, definition, root, definition.batch_sizes.train, 0)
  for _ in range(num_steps):
    batch = tensors(next(stream))
    logits = code('pytorch').forward(module, batch, **{**EVALUATION, 'train': True})
    loss = code('pytorch').loss(definition, batch['targets'].long(), logits)
    optimizer.zero_grad()
    (loss['summed'] / loss['n_valid_examples']).backward()
    optimizer.step()
  (test,) = streams.eval_stream(data, definition, root, 'test', definition.splits.test)
  return definition, module, test['inputs'][:num_sentences]


def plain(found: Trained) -> list[Translations]:
  """The best translations of each sentence; each step runs the decoder on whole sequences."""
  import torch

  definition, module, sources = found
  wide = code('pytorch').build(definition, dtype=torch.float64)
  wide.load_state_dict(module.state_dict())

  def of_sentence(source: np.ndarray) -> Translations:
    batch = {'inputs': torch.tensor(source[None])}
    encoded = wide.encode(batch)

    def step(token: int, tokens: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
      tokens = (*tokens, int(token))  # the first is the start
      known = torch.tensor([[*tokens[1:], nmt_batches.FIRST]])  # the last is not seen
      hidden = wide.decode(encoded, {**batch, 'targets': known})[0, -1]
      return (wide.shared_embedding.weight @ hidden).log_softmax(0).numpy(), tokens

    return twin.beams(
      step,
      (),
      start=0,
      end=nmt_batches.EOS,
      num_beams=NUM_BEAMS,
      max_length=definition.data.max_length,
      exponent=definition.model.search.length_penalty,
    )

  with torch.no_grad():
    return [of_sentence(source) for source in sources]


def generated(framework: str, found: Trained) -> list[Tokens]:
  """What `generate` gives, without padding."""
  definition, module, sources = found
  run: Mapping[str, Callable[..., np.ndarray]] = {'jax': _in_jax, 'pytorch': _in_torch}
  tokens = run[framework](definition, module, sources)
  return [np.trim_zeros(row, 'b').tolist() for row in tokens]


def _in_torch(definition: WorkloadDefinition, module: Any, sources: np.ndarray) -> np.ndarray:
  import torch

  with torch.no_grad():
    batch = {'inputs': torch.tensor(sources)}
    return code('pytorch').generate(definition, module, batch, is_last=True)['tokens'].numpy()


def _in_jax(definition: WorkloadDefinition, module: Any, sources: np.ndarray) -> np.ndarray:
  import jax
  from flax import linen as nn

  state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
  params, _ = code('parity').to_jax(definition, state)
  generate = functools.partial(code('jax').generate, definition, is_last=True)
  run = jax.jit(
    nn.apply(lambda model, batch: generate(model, batch), code('jax').build(definition))
  )
  return np.asarray(run({'params': params}, {'inputs': sources})['tokens'])


def check(framework: str, found: Trained, expected: list[Translations]) -> None:
  best = [list(translations[0][0]) for translations in expected]
  differing = [
    number
    for number, (one, other) in enumerate(zip(generated(framework, found), best, strict=True))
    if one != other
  ]
  for number in differing:
    (_, first), (_, second), *_ = expected[number]
    assert first - second < TIE, (number, first, second)
  assert len(differing) <= MAX_SHARE_OF_TIES * len(best)
  # They end, and are not all alike.
  assert np.mean([one[-1] == nmt_batches.EOS for one in best]) > 0.9
  assert len(set(map(tuple, best))) > len(best) / 4


@pytest.fixture(scope='module')
def few() -> tuple[Trained, list[Translations]]:
  found = trained('quick_nmt', Path(), num_steps=150, num_sentences=32)
  return found, plain(found)


@pytest.mark.slow
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_some_translations_of_numbers_are_those_of_the_twin(framework, few):
  pytest.importorskip(FRAMEWORKS[framework])
  check(framework, *few)


@pytest.fixture(scope='module')
def numbers() -> tuple[Trained, list[Translations]]:
  found = trained('quick_nmt', Path(), num_steps=400, num_sentences=512)
  return found, plain(found)


@pytest.mark.long
@pytest.mark.timeout(TIMEOUT_SEC)
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_all_translations_of_numbers_are_those_of_the_twin(framework, numbers):
  pytest.importorskip(FRAMEWORKS[framework])
  check(framework, *numbers)


@pytest.fixture(scope='module')
def captions(test_data, tmp_path_factory) -> tuple[Trained, list[Translations]]:
  definition = registry.workload('multi30k')
  prepared = small.prepare(definition, tmp_path_factory.mktemp('data'), test_data / 'multi30k')
  found = trained('multi30k', prepared.root, num_steps=200, num_sentences=200)
  return found, plain(found)


@pytest.mark.long
@pytest.mark.data
@pytest.mark.timeout(TIMEOUT_SEC)
@pytest.mark.parametrize('framework', FRAMEWORKS)
def test_translations_of_captions_are_those_of_the_twin(framework, captions):
  pytest.importorskip(FRAMEWORKS[framework])
  check(framework, *captions)
