"""How logits are cut: not at all where they are small, and never into very many chunks."""

from __future__ import annotations

import pytest

from algorithmic_efficiency.layers.chunks import chunk_length


@pytest.mark.parametrize(
  ('batch_size', 'length', 'vocab_size', 'expected'),
  [
    (64, 64, 39, 64),  # 0.6 MiB
    (16, 64, 16_384, 64),  # 64 MiB
    (16, 64, 16_385, 32),
    (4, 1024, 50_257, 79),  # 785 MiB, in 13 chunks
    (64, 1024, 50_257, 64),  # 12 GiB, in 16
    (4096, 3, 50_257, 1),
    (0, 64, 39, 64),
    (64, 0, 39, 0),
  ],
)
def test_length_of_a_chunk(batch_size, length, vocab_size, expected):
  sizes = {'batch_size': batch_size, 'length': length, 'vocab_size': vocab_size}
  assert chunk_length(**sizes, itemsize=4, num_arrays=2) == expected


def test_wider_numbers_and_more_arrays_make_more_chunks():
  sizes = {'batch_size': 16, 'length': 64, 'vocab_size': 16_384}
  assert chunk_length(**sizes, itemsize=8, num_arrays=2) == 32
  assert chunk_length(**sizes, itemsize=8, num_arrays=1) == 64
