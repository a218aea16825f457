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
import torch_toy
from jax_toy import NUM_CLASSES, NUM_FEATURES

from algorithmic_efficiency.backends._torch_workload import TorchWorkload
from algorithmic_efficiency.training import torch as training
from algorithmic_efficiency.training.options import StepOptions
from tests.unit import training_toys as toys

NUM_STEPS = 5
BALANCE = {'balance': 2.0}
# Options of the ranks' training, and of the training alone that has the same outcome.
CASES = [({}, {}), ({'micro_batches': 2}, {}), (BALANCE, BALANCE)]
RNG = np.array([1, 2], np.int32)


def train(rank=0, world_size=1, balance=0.0, **options):
  """The parameters after some steps, and the losses; the ranks' parts have different weights."""
  # Neither clipped nor divided by its own size, so that the size of the gradient shows.
  point = type(toys.POINT)(**{**vars(toys.POINT), 'grad_clip': None, **options})
  module = toys.submission('external', 'nesterov', 'pytorch')
  workload = toys.TorchWorkload(step_hint=NUM_STEPS, balance=balance)
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


def task_losses(rank=0, world_size=1):
  """Losses by task over all ranks, and the gradient of each to a weight that all ranks have."""
  definition = torch_toy.definition(task_names=('a', 'b', 'none'))
  workload = TorchWorkload(
    definition, torch_toy.task(), torch_toy.BUDGET, device=torch.device('cpu')
  )
  rows = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
  batch = {name: torch.tensor(value)[rows] for name, value in torch_toy.batch(16, 0, 13).items()}
  task = (torch.arange(16) % 2)[rows]
  weight = torch.ones(NUM_FEATURES, NUM_CLASSES, requires_grad=True)
  weight.data[0, 0] = 2.0
  losses = workload.task_losses(batch['targets'], batch['inputs'] @ weight, batch['weights'], task)
  gradients = [
    torch.autograd.grad(summed, weight, retain_graph=True)[0] for summed in losses['summed']
  ]
  gradients = torch.stack(gradients)
  if world_size > 1:  # averaged, as DistributedDataParallel does
    distributed.all_reduce(gradients)
    gradients /= world_size
  return {**losses, 'gradients': gradients}


def train_frozen(rank=0, world_size=1):
  """The state of a module after three steps; its first layer is frozen."""
  definition = torch_toy.definition(frozen_params={'pytorch': ('dense',)}, dropout_rate=0.0)
  workload = TorchWorkload(
    definition,
    torch_toy.task(),
    torch_toy.BUDGET,
    device=torch.device('cpu'),
    world_size=world_size,
  )
  model, _ = workload.init_model_fn(RNG)
  workload.remember_frozen(model, None)
  optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
  state = training.start(model, optimizer, lambda step: 1.0, StepOptions())
  for step in range(3):
    rows = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
    batch = {name: torch.tensor(value)[rows] for name, value in torch_toy.batch(16, step).items()}
    training.train_step(workload, model, batch, RNG, state, StepOptions(), step)
  workload.check_frozen(model, None)
  return {name.removeprefix('module.'): value for name, value in model.state_dict().items()}


def main(rank, world_size, store):
  torch.set_num_threads(1)
  distributed.init_process_group(
    'gloo', init_method=f'file://{store}', rank=rank, world_size=world_size
  )
  found = [train(rank, world_size, **options) for options, _ in CASES]
  by_task = task_losses(rank, world_size)
  frozen = train_frozen(rank, world_size)
  distributed.destroy_process_group()
  for (options, expected_options), (params, loss) in zip(CASES, found, strict=True):
    expected, expected_loss = train(**expected_options)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6, err_msg=str(options))
    for name, value in params.items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
  torch.testing.assert_close(frozen, train_frozen())
  torch.testing.assert_close(by_task, task_losses())
  assert by_task['n_valid_examples'].tolist() == [7, 6, 0]


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
