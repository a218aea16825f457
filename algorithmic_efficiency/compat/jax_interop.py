"""How JAX takes over an array of another framework."""

from jax.numpy import from_dlpack as from_dlpack
