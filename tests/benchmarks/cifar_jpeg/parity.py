"""The map between the parameters of both."""

from workloads.vision.res_net_parity import to_jax, to_torch

__all__ = ['to_jax', 'to_torch']
