"""Says how a package that is imported, and not found, gets installed."""

from __future__ import annotations

import re
import sys

# Distributions whose name is not that of the package.
DISTRIBUTIONS = {
  'absl': 'absl-py',
  'gin': 'gin-config',
  'haiku': 'dm-haiku',
  'sklearn': 'scikit-learn',
  'tensorflow_datasets': 'tensorflow-datasets',
  'yaml': 'pyyaml',
}
# The extra that installs a package, of those that submissions import.
EXTRAS = {
  **dict.fromkeys(('chex', 'flax', 'jax', 'jraph', 'optax'), 'jax'),
  'torch': 'torch',
  'sklearn': 'quick',
  'tensorflow_datasets': 'data',
  'sentencepiece': 'text',
}
_NAME = re.compile(r'[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?')  # of a distribution, by PEP 508


def install_command(package: str) -> str:
  """Returns the command that installs a package, by its top-level import name."""
  if package in EXTRAS:
    return f"pip install 'algorithmic-efficiency[{EXTRAS[package]}]'"
  return f'pip install {DISTRIBUTIONS.get(package, package)}'


def why_not_installable(package: str) -> str:
  """Returns why nothing can be installed for a top-level import name, as a clause; else ''."""
  if package in sys.stdlib_module_names:
    return 'which is a part of Python that this one lacks'
  if not _NAME.fullmatch(DISTRIBUTIONS.get(package, package)):
    return 'which can be the name of no package'
  return ''
