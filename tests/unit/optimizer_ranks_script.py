"""One of two gloo ranks that train the toy with optimizers of torch, and compare with one alone.

Usage: optimizer_ranks_script.py RANK STORE_FILE NAME...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import optimizer_toys

from algorithmic_efficiency.optimizers import torch as torch_optimizers
from tests.unit import training_toys as toys

NUM_STEPS = 3  # LBFGS makes much of rounding, and more with every step
NUM_RANKS = 2


def train(name, rank=0, world_size=1):
  """The parameters after some steps; the ranks' parts have different weights."""
  workload = optimizer_toys.with_roles(toys.TorchWorkload(NUM_STEPS), outputs_first=False)
  model = toys.torch_model(toys.params())
  wrapped = DistributedDataParallel(model) if world_size > 1 else model
  settings = optimizer_toys.settings(name, optimizer_toys.TORCH[name])
  state = torch_optimizers.start(workload, wrapped, settings)
  for step, batch in enumerate(toys.batches(NUM_STEPS)):
    size = len(batch['targets']) // world_size
    rows = {key: value[rank * size : (rank + 1) * size] for key, value in batch.items()}
    torch_optimizers.update_params(
      current_param_container=wrapped,
      model_state=None,
      batch=toys.torch_batch(rows),
      optimizer_state=state,
      **toys.update_arguments(workload, None, step, np.array([step, 2], np.int32)),
    )
  return {key: value.detach().numpy() for key, value in model.named_parameters()}


def main(rank, store, names):
  torch.set_num_threads(1)
  distributed.init_process_group(
    'gloo', init_method=f'file://{store}', rank=rank, world_size=NUM_RANKS
  )
  got = {name: train(name, rank, NUM_RANKS) for name in names}
  distributed.destroy_process_group()
  for name in names:
    expected = train(name)
    for key, value in got[name].items():
      np.testing.assert_allclose(value, expected[key], rtol=1e-3, atol=1e-4, err_msg=name)


main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
