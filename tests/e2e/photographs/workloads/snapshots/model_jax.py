"""The small convolutional net of the digits."""

from workloads.vision.model_jax import build, eval_step, forward, loss

__all__ = ['build', 'eval_step', 'forward', 'loss']
