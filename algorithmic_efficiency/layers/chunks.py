"""How the token loss over a large vocabulary is cut, the same in both frameworks."""

from __future__ import annotations

# Logits of fewer bytes are held whole; chunks are no smaller.
_MIN_CHUNK_BYTES = 64 * 2**20
# More chunks save little memory, and each reads and writes the gradient of the kernel once.
_MAX_NUM_CHUNKS = 16


def chunk_length(*, batch_size: int, length: int, vocab_size: int, itemsize: int) -> int:
  """Positions of a chunk; logits are [batch, length, vocab], `itemsize` is the bytes of one.

  Cut is the length, never the batch, which may be spread over devices.
  """
  num_bytes = batch_size * length * vocab_size * itemsize
  num_chunks = min(-(-num_bytes // _MIN_CHUNK_BYTES), _MAX_NUM_CHUNKS)
  return -(-length // max(num_chunks, 1))
