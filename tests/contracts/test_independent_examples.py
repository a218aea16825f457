"""Definitions say truly whether their examples depend on each other in training."""

from __future__ import annotations

import numpy as np
import pytest
import training_loss

from algorithmic_efficiency.data import trees

CLOSE = {'rtol': 1e-9, 'atol': 1e-12}
CASES = training_loss.parameters(lambda one: (one.task, type(one.model)))


@pytest.mark.parametrize('case', CASES)
def test_a_definition_says_whether_examples_are_independent(case):
  """One example then changes the loss of no other, and a batch has the loss of its halves.

  A half has the place of the other one, too, so that all batches have the same size.
  """
  definition, framework = case
  with training_loss.in_float64(framework):
    case = training_loss.begin(definition, framework)
    loss = case.compiled(lambda batch: case.loss(case.params, batch))

    def losses(batch):
      return {name: case.on_host(x) for name, x in loss(case.backend.place(batch)).items()}

    batch = case.batch(0)
    others = trees.map_leaves(lambda x, y: np.concatenate([x, y[:1]]), batch, case.batch(1))
    whole = losses(batch)
    changed = losses(trees.gather(others, np.array([8, *range(1, 8)])))
    halves = [losses(trees.gather(batch, np.tile(rows, 2))) for rows in np.arange(8).reshape(2, 4)]
  assert not np.allclose(whole['per_example'][0], changed['per_example'][0], **CLOSE)
  is_alone = np.allclose(whole['per_example'][1:], changed['per_example'][1:], **CLOSE)
  is_sum = np.allclose(2 * whole['summed'], sum(half['summed'] for half in halves), **CLOSE)
  assert case.definition.independent_examples == (is_alone and is_sum)
