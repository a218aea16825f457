"""How PyTorch takes over an array of another framework."""

from torch import from_dlpack as from_dlpack
