"""The data records of this task: what a prepared set holds, and the form of its batches.

A sentence is a sequence of token numbers that ends with `EOS_ID`. As in AlgoPerf, the numbers are
those of a SentencePiece model with its defaults, and 0 is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PADDING_ID = 0  # in AlgoPerf's models also unknown pieces: both count as padding there
BOS_ID = 1  # unused: a decoder starts with padding
EOS_ID = 2
FIRST_PIECE_ID = 3


@dataclass(frozen=True, kw_only=True)
class ParallelText:
  """Pairs of sentences in two languages: packed in training, one pair a row in evaluation.

  Attributes:
    source_language: code of the language to translate from, such as 'de'.
    target_language: code of the language to translate to.
    vocab_size: pieces of the SentencePiece model, which both languages share.
    max_length: most tokens of a sentence, its end included. A pair with a longer sentence is left
      out of training.
    row_length: tokens of a packed row; None if they are `max_length`.
    bucket: evaluation batches have lengths that are multiples of it, or `max_length`; None for
      `max_length` alone.
    vocabulary: 'given' is a SentencePiece model of the source, or one that `prepare` trains;
      'shipped' is the file `<dataset>.model` of this folder.
    vocabulary_sha256: SHA-256 of the model's file; empty accepts any model of the right size.
    long_pairs: 'refused' or 'left_out' of evaluation, where a sentence has more than `max_length`
      tokens. AlgoPerf leaves them out.
    text_sha256: SHA-256 of the text of all splits; empty accepts any text.
    nested_subset: True if the training split is the first `splits.train` of the prepared pairs in
      an order of hashes. A smaller subset is then a part of each larger one.
    noise_rate: share of the words of training targets that are replaced by other words, at random.
    noise_seed: seed of these replacements.
    train_source: name of a file of `--source` whose sentences replace those of the training source,
      such as back-translations; empty for none.

  Raises:
    ValueError: a length or rate is out of range.
  """

  source_language: str
  target_language: str
  vocab_size: int
  max_length: int
  row_length: int | None = None
  bucket: int | None = None
  vocabulary: Literal['given', 'shipped'] = 'given'
  vocabulary_sha256: str = ''
  long_pairs: Literal['refused', 'left_out'] = 'refused'
  text_sha256: str = ''
  nested_subset: bool = False
  noise_rate: float = 0.0
  noise_seed: int = 0
  train_source: str = ''

  def __post_init__(self) -> None:
    check_lengths(self)
    if not 0 <= self.noise_rate <= 1:
      raise ValueError(f'noise_rate must be between 0 and 1; it is {self.noise_rate}.')


@dataclass(frozen=True, kw_only=True)
class SpelledNumbers:
  """English numbers, ordinals, dates and times in words, and the same in German: generated.

  Attributes:
    vocab_size: size of the table of pieces, a closed set.
    max_length: most tokens of a phrase, its end included.
    row_length: tokens of a packed row; None if they are `max_length`.
    bucket: as in `ParallelText`.
    seed: seed of the phrases.
    sha256: SHA-256 of the phrases of all splits; empty accepts any.

  Raises:
    ValueError: a length is out of range.
  """

  vocab_size: int
  max_length: int
  row_length: int | None = None
  bucket: int | None = None
  seed: int = 0
  sha256: str = ''

  def __post_init__(self) -> None:
    check_lengths(self)


def packed_length(data: ParallelText | SpelledNumbers) -> int:
  """Returns the number of tokens of a packed row."""
  return data.max_length if data.row_length is None else data.row_length


def bucket_lengths(data: ParallelText | SpelledNumbers) -> tuple[int, ...]:
  """Returns the lengths that evaluation batches can have, ascending; the last is `max_length`."""
  if data.bucket is None:
    return (data.max_length,)
  return (*range(data.bucket, data.max_length, data.bucket), data.max_length)


def check_lengths(data: ParallelText | SpelledNumbers) -> None:
  """Checks the sizes of a record.

  Raises:
    ValueError: one is out of range.
  """
  if data.vocab_size <= FIRST_PIECE_ID:
    raise ValueError(f'vocab_size must be more than {FIRST_PIECE_ID}; it is {data.vocab_size}.')
  if data.max_length < 2:
    raise ValueError(f'max_length must be at least 2; it is {data.max_length}.')
  if packed_length(data) < data.max_length:
    raise ValueError(
      f'A packed row must hold a sentence of {data.max_length} tokens; row_length is '
      f'{data.row_length}.'
    )
  if data.bucket is not None and data.bucket < 1:
    raise ValueError(f'bucket must be at least 1; it is {data.bucket}.')
