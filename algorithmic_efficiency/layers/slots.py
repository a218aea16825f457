"""Sizes of the arrays in which assignments of tokens to experts are sorted, for both frameworks.

Each expert has a whole number of blocks of slots, so that a block multiplies with one kernel.
"""

from __future__ import annotations

_LEAST_BLOCK, _LARGEST_BLOCK = 32, 128
_BLOCKS_OF_EXPERT = 3  # of a mean load; more blocks read kernels more often, fewer waste slots


def block_size(num_assignments: int, num_experts: int) -> int:
  """Returns a size of blocks that suits the mean load of an expert, a power of two.

  It was the fastest, or within a tenth of it, of 16 to 128 in JAX on a CPU. These were the cases:
  1,536 and 8,192 assignments, 8 and 32 experts, widths of 64 to 96.
  """
  slots = max(num_assignments // num_experts // _BLOCKS_OF_EXPERT, 1)
  return min(max(1 << (slots.bit_length() - 1), _LEAST_BLOCK), _LARGEST_BLOCK)


def num_slots(num_assignments: int, num_experts: int, alignment: int) -> int:
  """Returns the most slots that any assignments need, a multiple of the alignment."""
  num_blocks = (num_assignments + num_experts * (alignment - 1)) // alignment
  return num_blocks * alignment
