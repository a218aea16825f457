"""The residual network of `workloads.vision` in flax."""

from workloads.vision.res_net_jax import build, eval_step, forward, loss

__all__ = ['build', 'eval_step', 'forward', 'loss']
