"""The residual network of `workloads.vision` in PyTorch."""

from workloads.vision.res_net_torch import build, eval_step, forward, loss

__all__ = ['build', 'eval_step', 'forward', 'loss']
