"""One rank of the batch norm test: normalises its rows and writes what came of it."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from algorithmic_efficiency.layers import torch as layers


def main(rank: int, world_size: int, folder: str) -> None:
  torch.set_num_threads(1)
  dist.init_process_group(
    'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
  )
  case = torch.load(f'{folder}/case.pt')
  norm = layers.BatchNorm2d(case['x'].shape[1], dtype=torch.float64)
  norm.load_state_dict(case['state'])
  rows = slice(*case['bounds'][rank : rank + 2])
  x = case['x'][rows].requires_grad_()
  y = norm(x)
  (y * case['cotangent'][rows]).sum().backward()
  result = {
    'y': y.detach(),
    'x_gradient': x.grad,
    'weight_gradient': norm.weight.grad,
    'state': norm.state_dict(),
  }
  torch.save(result, f'{folder}/rank_{rank}.pt')
  dist.barrier()
  dist.destroy_process_group()


if __name__ == '__main__':
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
