"""What optimizers are tried out on before a trial starts."""

from __future__ import annotations

import numpy as np

NUM_STEPS = 3
STEP_HINT = 8


def batch(num_examples: int = 16) -> dict[str, np.ndarray]:
  """`inputs` [batch, 6] and `targets` [batch, 3], which a linear function gives."""
  random = np.random.default_rng(0)
  inputs = random.normal(size=(num_examples, 6)).astype(np.float32)
  return {'inputs': inputs, 'targets': inputs[:, :3] - inputs[:, 3:]}
