"""The same in PyTorch."""

import torch


class SignMomentum(torch.optim.Optimizer):
  """Moves every parameter by the learning rate, in the direction of its momentum."""

  def __init__(self, params, lr, momentum=0.9):
    super().__init__(params, {'lr': lr, 'momentum': momentum})

  @torch.no_grad()
  def step(self):
    for group in self.param_groups:
      for param in group['params']:
        if param.grad is None:
          continue
        state = self.state[param]
        if not state:
          state['mean'] = torch.zeros_like(param)
        state['mean'].lerp_(param.grad, 1 - group['momentum'])
        param.sub_(state['mean'].sign(), alpha=group['lr'])
