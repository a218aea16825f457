"""SentencePiece models: found, checked, trained and applied."""

from __future__ import annotations

import functools
import hashlib
import heapq
import importlib.util
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.data import random_numbers

from .data_records import BOS_ID, EOS_ID, PADDING_ID, ParallelText
from .text_files import Pair

FILE = 'sentencepiece.model'  # its name in a prepared set
ALGOPERF_FILE = 'wmt_sentencepiece_model'  # its name in a folder that AlgoPerf has filled
_FOLDER = Path(__file__).parent
_TRAINING_BYTES = 10**7  # of the text on which AlgoPerf trains its model
_BLOCK_PAIRS = 8192  # whose hashes are computed at a time
_SEED = 0

# How the model of this folder was trained: no normalization, and bytes for unknown characters, so
# that decoding the tokens of a text gives the text.
SHIPPED_OPTIONS = {
  'model_type': 'bpe',
  'normalization_rule_name': 'identity',
  'byte_fallback': True,
  'pad_id': PADDING_ID,
  'bos_id': BOS_ID,
  'eos_id': EOS_ID,
  'unk_id': 3,
}
# How AlgoPerf trains a model: padding has the number of unknown pieces.
GIVEN_OPTIONS = {'model_type': 'unigram', 'unk_id': PADDING_ID, 'bos_id': BOS_ID, 'eos_id': EOS_ID}


class Vocabulary:
  """A SentencePiece model, with the numbers of tokens that it gives.

  Args:
    content: content of its file.
    where: file or folder that it comes from, for messages.
    data: size and hash that it must have.

  Raises:
    UserError: SentencePiece is not installed, the content is no model of it, or the model has
      another size, hash or end of a sentence.
  """

  def __init__(self, content: bytes, where: Path, data: ParallelText):
    self.content = content
    self._processor = _processor(content, where)
    _check(self._processor, content, where, data)
    self._dtype = np.dtype(np.uint16 if data.vocab_size <= 1 << 16 else np.uint32)

  @property
  def dtype(self) -> np.dtype[Any]:
    """The smallest type that holds every token number."""
    return self._dtype

  def encode(self, sentences: Sequence[str]) -> list[np.ndarray]:
    """Returns the tokens of sentences, each with its end."""
    found = self._processor.encode(list(sentences), add_eos=True)
    return [np.array(one, self._dtype) for one in found]

  def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
    """Returns the texts of token numbers; the end of a sentence has no text."""
    return self._processor.decode([[int(token) for token in row] for row in rows])


def shipped(dataset: str, data: ParallelText) -> Vocabulary:
  """Returns the vocabulary that this folder has for a data set.

  Raises:
    UserError: there is none, or as `Vocabulary`.
  """
  path = _FOLDER / f'{dataset}.model'
  return Vocabulary(_read(path), path, data)


@functools.lru_cache(maxsize=4)
def of_set(root: Path, sha256: str, data: ParallelText) -> Vocabulary:
  """Returns the vocabulary of a prepared set whose manifest states its hash."""
  return Vocabulary(_read(root / FILE), root / FILE, data)


def find(folder: Path, data: ParallelText) -> Vocabulary | None:
  """Returns the vocabulary that lies in a folder of raw files; None if there is none.

  Raises:
    UserError: as `Vocabulary`.
  """
  for name in (FILE, ALGOPERF_FILE):
    if (folder / name).is_file():
      return Vocabulary(_read(folder / name), folder / name, data)
  return None


def trained(pairs: Iterable[Pair], where: Path | str, data: ParallelText) -> Vocabulary:
  """Trains a vocabulary as AlgoPerf does, except that it takes one thread.

  The result of training depends on the number of threads.

  Args:
    pairs: sentences of both languages; see `first_pairs` and `shuffled_pairs`.
    where: where they come from, for messages.

  Raises:
    UserError: the text has too few pieces, or as `Vocabulary`.
  """
  sentences = (side for pair in pairs for side in (pair.source, pair.target))
  content = train(sentences, where, data.vocab_size, GIVEN_OPTIONS)
  return Vocabulary(content, Path(FILE), data)


def train(
  sentences: Iterator[str], where: Path | str, vocab_size: int, options: dict[str, Any]
) -> bytes:
  """Trains a SentencePiece model and returns the content of its file.

  Raises:
    UserError: SentencePiece is not installed, or the text has too few pieces.
  """
  sentencepiece = _library()
  sentencepiece.set_random_generator_seed(_SEED)
  content = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=sentences,
      model_writer=content,
      vocab_size=vocab_size,
      character_coverage=1.0,
      num_threads=1,
      minloglevel=2,
      **options,
    )
  except RuntimeError as error:
    largest = re.search(r'value <= (\d+)', str(error))
    reason = f'it has at most {largest[1]}' if largest else ' '.join(str(error).split())
    raise errors.UserError(
      f'A vocabulary of {vocab_size:,} pieces cannot be trained on the text of {where}: {reason}. '
      'Give more text, or a smaller vocab_size.'
    ) from None
  return content.getvalue()


def first_pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
  """Yields pairs until they have ten million bytes, as AlgoPerf does."""
  num_bytes = 0
  for pair in pairs:
    yield pair
    num_bytes += _num_bytes(pair)
    if num_bytes >= _TRAINING_BYTES:
      return


def shuffled_pairs(pairs: Iterable[Pair]) -> list[Pair]:
  """Returns the `first_pairs` of all in an order of hashes of their numbers.

  So they come from all corpora, and the sample depends on nothing but the text. It reads the pairs
  once, and keeps no more of them than it returns.
  """
  kept: list[tuple[int, Pair]] = []  # a heap, with the last pair of the order on top
  num_bytes = 0
  numbered = iter(enumerate(pairs))
  while block := list(itertools.islice(numbered, _BLOCK_PAIRS)):
    numbers = np.array([number for number, _ in block])
    hashes = random_numbers.keys(_SEED, np.zeros_like(numbers), numbers).tolist()
    for place, (_, pair) in zip(hashes, block, strict=True):
      if num_bytes >= _TRAINING_BYTES and place > -kept[0][0]:
        continue
      heapq.heappush(kept, (-place, pair))
      num_bytes += _num_bytes(pair)
      while num_bytes - _num_bytes(kept[0][1]) >= _TRAINING_BYTES:
        num_bytes -= _num_bytes(heapq.heappop(kept)[1])
  return [pair for _, pair in sorted(kept, reverse=True)]


def _num_bytes(pair: Pair) -> int:
  """Returns the bytes of both sentences, each with a line break."""
  return len(pair.source.encode()) + len(pair.target.encode()) + 2


def _check(processor: Any, content: bytes, where: Path, data: ParallelText) -> None:
  size = processor.get_piece_size()
  if size != data.vocab_size:
    raise errors.UserError(
      f'{where} must be a SentencePiece model of {data.vocab_size:,} pieces; it has {size:,}.'
    )
  if processor.eos_id() != EOS_ID or PADDING_ID not in (processor.unk_id(), processor.pad_id()):
    raise errors.UserError(
      f'{where} must number the end of a sentence {EOS_ID}, and unknown pieces or padding '
      f'{PADDING_ID}, which are the defaults; it has {processor.eos_id()}, {processor.unk_id()} '
      f'and {processor.pad_id()}.'
    )
  sha256 = hashlib.sha256(content).hexdigest()
  if data.vocabulary_sha256 and sha256 != data.vocabulary_sha256:
    raise errors.UserError(
      f'{where} must be the vocabulary that the target is defined on, with the hash '
      f'{data.vocabulary_sha256[:12]}; its hash is {sha256[:12]}. Restore the original file, or '
      'make another workload of it.'
    )


def _processor(content: bytes, where: Path) -> Any:
  try:
    return _library().SentencePieceProcessor(model_proto=content)
  except (RuntimeError, ValueError) as error:
    reason = ' '.join(str(error).split())
    raise errors.UserError(f'{where} is no SentencePiece model ({reason}).') from None


def _library() -> Any:
  if importlib.util.find_spec('sentencepiece') is None:
    raise errors.UserError(
      'Translation needs sentencepiece, which is not installed: '
      "pip install 'algorithmic-efficiency[text]'"
    )
  import sentencepiece

  return sentencepiece


def _read(path: Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise errors.UserError(f'{path} cannot be read ({error}).') from None
