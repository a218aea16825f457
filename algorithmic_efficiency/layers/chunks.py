"""Size of the chunks of the token loss over a large vocabulary, the same in both frameworks."""

from __future__ import annotations

# Largest size in bytes of all arrays of a chunk that are held at once, unless that would make more
# than the largest number of chunks.
_WORK_BYTES = 128 * 2**20
# More chunks save little memory, and each one reads and writes the gradient of the kernel.
_MAX_NUM_CHUNKS = 16


def chunk_length(
  *, batch_size: int, length: int, vocab_size: int, itemsize: int, num_arrays: int
) -> int:
  """Returns the number of positions of a chunk of logits [batch, length, vocab].

  Chunks divide the length and never the batch, which may be sharded over devices.

  Args:
    batch_size: examples of a batch.
    length: positions of an example.
    vocab_size: tokens of the vocabulary.
    itemsize: bytes of one logit.
    num_arrays: arrays of the size of a chunk's logits that the framework holds at once.
  """
  num_bytes = batch_size * length * vocab_size * itemsize * num_arrays
  num_chunks = min(-(-num_bytes // _WORK_BYTES), _MAX_NUM_CHUNKS)
  return -(-length // max(num_chunks, 1))
