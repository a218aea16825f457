"""One of several gloo ranks that train the toy together, and compare with training alone.

Usage: training_ranks_script.py RANK NUM_RANKS STORE_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.unit import training_toys as toys

NUM_STEPS = 5
RNG = np.array([1, 2], np.int32)


def train(rank=0, world_size=1, **options):
  """The parameters after some steps, and the losses; the ranks' parts have different weights."""
  # Neither clipped nor divided by its own size, so that the size of the gradient shows.
  point = type(toys.POINT)(**{**vars(toys.POINT), 'grad_clip': None, **options})
  module = toys.submission('external', 'nesterov', 'pytorch')
  workload = toys.TorchWorkload(step_hint=NUM_STEPS)
  workload.metrics_logger = toys.Logger()
  model = toys.torch_model(toys.params())
  wrapped = DistributedDataParallel(model) if world_size > 1 else model
  state = module.init_optimizer_state(workload, wrapped, None, point, RNG)
  for step, batch in enumerate(toys.batches(NUM_STEPS)):
    size = len(batch['targets']) // world_size
    rows = {name: value[rank * size : (rank + 1) * size] for name, value in batch.items()}
    module.update_params(
      current_param_container=wrapped,
      model_state=None,
      batch=toys.torch_batch(rows),
      optimizer_state=state,
      **toys.update_arguments(workload, point, step, RNG),
    )
  loss = float(workload.metrics_logger.rows[0][1]['loss'])
  return {name: value.detach().numpy() for name, value in model.named_parameters()}, loss


def main(rank, world_size, store):
  torch.set_num_threads(1)
  distributed.init_process_group(
    'gloo', init_method=f'file://{store}', rank=rank, world_size=world_size
  )
  got = [train(rank, world_size), train(rank, world_size, micro_batches=2)]
  distributed.destroy_process_group()
  expected, expected_loss = train()
  for params, loss in got:
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for name, value in params.items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
