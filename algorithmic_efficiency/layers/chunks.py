"""How the token loss over a large vocabulary is cut, by the same rule in both frameworks."""

from __future__ import annotations

# What takes no more is held whole: bytes of all the arrays of that size which are held at once. A
# chunk takes no more either, unless there would be too many.
_WORK_BYTES = 128 * 2**20
# More chunks save little memory, and each reads and writes the gradient of the kernel once.
_MAX_NUM_CHUNKS = 16


def chunk_length(
  *, batch_size: int, length: int, vocab_size: int, itemsize: int, num_arrays: int
) -> int:
  """Positions of a chunk; logits are [batch, length, vocab], `itemsize` is the bytes of one.

  Cut is the length, never the batch, which may be spread over devices.

  Args:
    num_arrays: how many arrays as large as the logits of a chunk the framework holds at once.
  """
  num_bytes = batch_size * length * vocab_size * itemsize * num_arrays
  num_chunks = min(-(-num_bytes // _WORK_BYTES), _MAX_NUM_CHUNKS)
  return -(-length // max(num_chunks, 1))
