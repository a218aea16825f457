"""One rank of the token loss: the gradients of its model as DistributedDataParallel gives them.

Run in a process of its own: python token_loss_rank.py RANK NUM_RANKS FOLDER
"""

from __future__ import annotations

import itertools
import sys

import token_loss_twin as twin
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from algorithmic_efficiency.layers import chunks
from algorithmic_efficiency.layers import torch as layers
from algorithmic_efficiency.layers._torch_logits import LazyLogits

OPTIONS = ('default', 'find_unused_parameters', 'static_graph')


class TiedModel(torch.nn.Module):
  """Predicts from the token before; what it returns holds its own parameter."""

  def __init__(self, one):
    super().__init__()
    self.embed = torch.nn.Parameter(torch.tensor(one.kernel))

  def forward(self, inputs):
    return torch.tanh(self.embed[inputs]), self.embed


def summed_loss(targets, logits, mask):
  return layers.token_loss(targets, logits, mask)['summed']


def with_z_loss(targets, logits, mask):
  return summed_loss(targets, logits, mask) + (logits.logsumexp(dim=-1).square() * mask).sum()


OBJECTIVES = {'loss': summed_loss, 'z_loss': with_z_loss}


def main(rank: int, world_size: int, folder: str) -> None:
  torch.set_num_threads(1)
  dist.init_process_group(
    'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
  )
  one = twin.case(batch_size=4)
  chunks._WORK_BYTES = 2 * 8 * one.logits.size // world_size // 5
  rows = slice(rank * len(one.targets) // world_size, (rank + 1) * len(one.targets) // world_size)
  targets, mask = torch.tensor(one.targets[rows]), torch.tensor(one.mask[rows])
  num_valid = one.mask.sum()
  results = {}
  for (name, objective), option in itertools.product(OBJECTIVES.items(), OPTIONS):
    options = {} if option == 'default' else {option: True}
    model = DistributedDataParallel(TiedModel(one), **options)
    results[name, option] = []
    for _ in range(2):
      model.zero_grad()
      logits = layers.vocab_logits(*model(targets.flip(1)))
      assert isinstance(logits, LazyLogits)
      # The wrapper takes the mean over ranks.
      (objective(targets, logits, mask) * world_size / num_valid).backward()
      results[name, option].append(model.module.embed.grad.clone())
  torch.save(results, f'{folder}/rank_{rank}.pt')
  dist.barrier()
  dist.destroy_process_group()


if __name__ == '__main__':
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
