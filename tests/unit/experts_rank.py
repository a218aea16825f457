"""One rank of the test of experts: routes its tokens and writes what came of it."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from algorithmic_efficiency.layers import torch as layers


def run(case, rows: slice) -> dict[str, torch.Tensor]:
  """Output, drops, losses and gradients of a training step on some of the tokens."""
  layer = layers.Experts(case['config'], dim=case['x'].shape[1], dtype=torch.float64)
  layer.load_state_dict(case['state'])
  x = case['x'][rows].detach().requires_grad_()
  out, routes = layer(x, case['is_token'][rows], train=True)
  losses = layers.router_losses([routes])
  ((out * case['cotangent'][rows]).sum() + case['share'] * sum(losses.values())).backward()
  return {
    'out': out.detach(),
    'is_kept': routes.is_kept,
    'losses': torch.stack(list(losses.values())).detach(),
    'of_x': x.grad,
    'of_params': {name: one.grad for name, one in layer.named_parameters()},
  }


def main(rank: int, world_size: int, folder: str) -> None:
  torch.set_num_threads(1)
  dist.init_process_group(
    'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size
  )
  case = torch.load(f'{folder}/case.pt', weights_only=False)
  case['share'] = 1 / world_size  # each rank adds its share of a loss of the global batch
  rows = slice(*case['bounds'][rank : rank + 2])
  torch.save(run(case, rows), f'{folder}/rank_{rank}.pt')
  dist.barrier()
  dist.destroy_process_group()


if __name__ == '__main__':
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
