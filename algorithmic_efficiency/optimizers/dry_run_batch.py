"""The data of a dry run: a linear regression."""

from __future__ import annotations

import numpy as np

NUM_STEPS = 3
STEP_HINT = 8


def batch(num_examples: int = 16) -> dict[str, np.ndarray]:
  """Returns float32 `inputs` [num_examples, 6] and `targets` [num_examples, 3], linear in them."""
  random = np.random.default_rng(0)
  inputs = random.normal(size=(num_examples, 6)).astype(np.float32)
  return {'inputs': inputs, 'targets': inputs[:, :3] - inputs[:, 3:]}
