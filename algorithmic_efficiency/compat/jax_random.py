"""The functions of `jax.random` that AlgoPerf's `random_utils` hands on."""

from jax.random import PRNGKey as PRNGKey
from jax.random import fold_in as fold_in
from jax.random import split as split
