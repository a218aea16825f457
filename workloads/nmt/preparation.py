"""Fills a prepared set with pairs of sentences as tokens."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.data import records, tfds
from algorithmic_efficiency.data.prepare import Progress, Source

from . import places, vocabulary
from .data_records import ParallelText
from .noise import Noise
from .text_files import Line, Pair, TextError, TextFolder
from .vocabulary import Vocabulary

SETTINGS = 'settings.json'
HELD_OUT = ('validation', 'test')
_BLOCK = 8192  # pairs that are encoded at a time
_TRAIN, _HELD = 'train', 'heldout'  # builders of TensorFlow Datasets, by their names in definitions


class Text(Protocol):
  """Parallel text by split.

  Attributes:
    is_shuffled: True if the pairs of all corpora are mixed already.
  """

  folder: Path
  is_shuffled: bool

  def pairs(self, split: str) -> Iterator[Pair]: ...

  def lines(self, name: str) -> Iterator[Line]: ...


def settings(data: ParallelText) -> dict[str, object]:
  """Returns what a prepared set depends on, as JSON has it; it is stored in `settings.json`.

  A definition that accepts any text has no `text_sha256`.
  """
  of_text = {'text_sha256': data.text_sha256} if data.text_sha256 else {}
  return {
    **of_text,
    'source_language': data.source_language,
    'target_language': data.target_language,
    'max_length': data.max_length,
    'noise_rate': data.noise_rate,
    'noise_seed': data.noise_seed if data.noise_rate else 0,
    'train_source': data.train_source,
  }


def fill(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> None:
  """Writes vocabulary, tokens and raw references; see `parallel_text_data.prepare`."""
  text = _text(definition, source, out, progress)
  try:
    if definition.data.text_sha256:
      _check_text(text, definition)
    found = _vocabulary(definition, text, out, progress)
    for split in (*_held_out(definition), 'train'):
      _write(definition, split, text, found, out, progress)
  except TextError:
    out.discard()
    raise
  content = json.dumps(settings(definition.data), indent=2)
  out.file(SETTINGS, f'{content}\n'.encode())


def _held_out(definition: WorkloadDefinition) -> list[str]:
  """Returns the held-out splits of a set; there may be no test split."""
  return [split for split in HELD_OUT if getattr(definition.splits, split) is not None]


def _write(
  definition: WorkloadDefinition,
  split: str,
  text: Text,
  found: Vocabulary,
  out: records.Writer,
  progress: Progress,
) -> None:
  """Writes the fields of a split, unless all are complete from an earlier attempt."""
  data = definition.data
  names = ['inputs', 'targets', *(['target_text'] if split in HELD_OUT else [])]
  if all(out.has(f'{split}/{name}') for name in names):
    return
  pairs = _Complete(text, split, data)
  encoded = _Encoded(definition, split, found, progress)
  if split == 'train' and data.noise_rate:
    encoded.read(Noise.of(data, lambda: _Complete(text, split, data)).replaced(pairs))
  else:
    encoded.read(pairs)
  _check_number(definition, split, encoded.num_pairs, pairs)
  out.leave_out(f'{split}/inputs', 'pairs with an empty sentence', pairs.num_left_out)
  out.leave_out(
    f'{split}/inputs',
    f'pairs with a sentence of more than {data.max_length} tokens',
    encoded.num_left_out,
  )
  for name, side in zip(names, (encoded.inputs, encoded.targets, encoded.texts), strict=False):
    dtype = np.dtype(np.uint8) if name == 'target_text' else found.dtype
    out.ragged(f'{split}/{name}', side, dtype=dtype)


def _check_number(definition: WorkloadDefinition, split: str, found: int, pairs: _Complete) -> None:
  """
  Raises:
    TextError: there are more or fewer pairs than the definition has.
  """
  expected = getattr(definition.splits, split)
  may_have_more = split == 'train' and definition.data.nested_subset
  if found == expected or (may_have_more and found > expected):
    return
  first, number = pairs.first_left_out, pairs.num_left_out
  empty = f'{number:,} more have one, the first in {first}. ' if number else ''
  raise TextError(
    f'{definition.name} needs {expected:,} pairs in its {split} split; the text has {found:,} '
    f'without an empty sentence. {empty}Give the whole text, or define a workload of your own, '
    'with its own data set and splits.'
  )


def _text(
  definition: WorkloadDefinition, source: Source, out: records.Writer, progress: Progress
) -> Text:
  """
  Raises:
    UserError: the source has another form.
  """
  data, names = definition.data, places.names(definition.dataset)
  if source is None:
    return TextFolder(places.fetched(definition.dataset, out, progress), data, names)
  builders = definition.tfds or {}
  if isinstance(builders, str) or (builders and builders.keys() != {_TRAIN, _HELD}):
    raise errors.UserError(
      f'{definition.name} must name two builders of TensorFlow Datasets, {_TRAIN!r} and {_HELD!r}, '
      f'in its `tfds`; it has {builders!r}.'
    )
  if isinstance(source, tfds.Builders):
    return _BuiltText(source, data, progress)
  assert isinstance(source, Path), 'there are no named sources'
  if not source.is_dir():
    raise errors.UserError(f'--source must be a folder; {source} is a file.')
  if any((source / name.partition('/')[0]).is_dir() for name in builders.values()):
    return _BuiltText(tfds.Builders(builders, source), data, progress)
  return TextFolder(source, data, names)


class _BuiltText:
  """Text that TensorFlow Datasets has prepared, such as a folder that AlgoPerf has filled."""

  is_shuffled = True

  def __init__(self, builders: tfds.Builders, data: ParallelText, progress: Progress):
    self._builders = builders
    self._languages = (data.source_language, data.target_language)
    self._progress = progress

  def __str__(self) -> str:
    return str(self.folder)

  @property
  def folder(self) -> Path:
    """The data folder of the library, above builder, configuration and version."""
    return self._builders[_TRAIN].folder.parents[2]

  def pairs(self, split: str) -> Iterator[Pair]:
    builder = self._builders[_TRAIN if split == 'train' else _HELD]
    found = builder.texts(split, self._languages, self._progress)
    try:
      for number, (source, target) in enumerate(found, 1):
        yield Pair(source, target, builder.folder / split, number)
    except errors.UserError as error:
      raise TextError(str(error)) from None

  def lines(self, name: str) -> Iterator[Line]:
    raise errors.UserError(
      f'train_source needs text files in --source, one of them {name}; {self.folder} has the data '
      'of TensorFlow Datasets, in another order.'
    )


class _Complete:
  """The pairs of a split without those that have an empty sentence, as in TensorFlow Datasets.

  A sentence of blanks is not empty.

  Attributes:
    num_left_out: pairs without a sentence among those that were read.
    first_left_out: where the first of them is.
  """

  def __init__(self, text: Text, split: str, data: ParallelText):
    self._text = text
    self._split = split
    self._train_source = data.train_source if split == 'train' else ''
    self.num_left_out = 0
    self.first_left_out = ''

  def __iter__(self) -> Iterator[Pair]:
    pairs = self._text.pairs(self._split)
    if name := self._train_source:
      pairs = _with_source(pairs, self._text.lines(name), self._text.folder / name)
    for pair in pairs:
      if pair.source and pair.target:
        yield pair
      else:
        self.num_left_out += 1
        self.first_left_out = self.first_left_out or pair.where


def _with_source(pairs: Iterable[Pair], lines: Iterator[Line], path: Path) -> Iterator[Pair]:
  """Yields pairs with other source sentences.

  Raises:
    TextError: there are not as many.
  """
  number = 0
  for number, (pair, line) in enumerate(itertools.zip_longest(pairs, lines), 1):
    if pair is None or line is None:
      raise TextError(
        f'{path} must have a line for each pair of training; it has '
        f'{"more" if pair is None else f"{number - 1}"}, and there are '
        f'{number - 1 if pair is None else "more"} pairs.'
      )
    yield pair._replace(source=line.text, path=path, line=line.number)


def _check_text(text: Text, definition: WorkloadDefinition) -> None:
  """
  Raises:
    TextError: it is not the text that the target is defined on.
  """
  data, digest = definition.data, hashlib.sha256()
  for split in ('train', *_held_out(definition)):
    for pair in text.pairs(split):
      digest.update(f'{pair.source}\t{pair.target}\n'.encode())
  if digest.hexdigest() != data.text_sha256:
    raise TextError(
      f'The target is defined on text with the SHA-256 {data.text_sha256[:12]}; that in {text} has '
      f'{digest.hexdigest()[:12]}. Give the original files, or make another workload of yours.'
    )


def _vocabulary(
  definition: WorkloadDefinition, text: Text, out: records.Writer, progress: Progress
) -> Vocabulary:
  """Returns the vocabulary of the set; first copies or trains one if it has none yet."""
  data, path = definition.data, out.folder / vocabulary.FILE
  if out.has(vocabulary.FILE):
    return Vocabulary(path.read_bytes(), path, data)
  if data.vocabulary == 'shipped':
    found = vocabulary.shipped(definition.dataset, data)
  else:
    given = vocabulary.find(text.folder, data)
    if given is None:
      progress('train the vocabulary', 0, None)
    found = given or _trained(text, data)
  out.file(vocabulary.FILE, found.content)
  return found


def _trained(text: Text, data: ParallelText) -> Vocabulary:
  """Trains a vocabulary on pairs of all corpora, mixed, as AlgoPerf does."""
  pairs = _Complete(text, 'train', data)
  sample = vocabulary.first_pairs(pairs) if text.is_shuffled else vocabulary.shuffled_pairs(pairs)
  return vocabulary.trained(sample, text.folder, data)


class _Block(NamedTuple):
  """The tokens of some sentences, one after the other, and the length of each."""

  tokens: np.ndarray
  lengths: np.ndarray


@dataclass
class _Side:
  """The sentences of one language, in blocks that are larger than arrays of single sentences."""

  blocks: list[_Block]

  def add(self, sentences: list[np.ndarray], dtype: np.dtype) -> None:
    tokens = np.concatenate([np.empty(0, dtype), *sentences])
    self.blocks.append(_Block(tokens, np.array([len(one) for one in sentences], np.int64)))

  def __iter__(self) -> Iterator[np.ndarray]:
    for tokens, lengths in self.blocks:
      yield from np.split(tokens, np.cumsum(lengths)[:-1])


class _Encoded:
  """The pairs of a split as tokens; a pair with a sentence that is too long is left out, empty.

  Attributes:
    num_pairs, num_left_out: pairs that were read, and those of them that are left out.
    inputs, targets, texts: the tokens of both sides, and the targets of held-out pairs in UTF-8.
  """

  def __init__(
    self, definition: WorkloadDefinition, split: str, found: Vocabulary, progress: Progress
  ):
    self._definition = definition
    self._split = split
    self._vocabulary = found
    self._progress = progress
    self.num_pairs = 0
    self.num_left_out = 0
    self.inputs, self.targets, self.texts = _Side([]), _Side([]), _Side([])

  def read(self, pairs: Iterable[Pair]) -> None:
    """
    Raises:
      TextError: a sentence is too long, or most are.
    """
    data = self._definition.data
    expected = getattr(self._definition.splits, self._split)
    for block in _blocks(pairs):
      self._add(block)
      self._progress(f'encode {self._split}', self.num_pairs, expected)
    if self.num_left_out * 2 > self.num_pairs:
      raise TextError(
        f'Most sentences of the {self._split} text must have at most {data.max_length} tokens; '
        f'{self.num_left_out:,} of {self.num_pairs:,} pairs have a longer one. Divide the text '
        'into sentences, one a line.'
      )

  def _add(self, block: list[Pair]) -> None:
    data, dtype = self._definition.data, self._vocabulary.dtype
    sides = [self._vocabulary.encode([pair[side] for pair in block]) for side in (0, 1)]
    for place, pair in enumerate(block):
      longest = max(len(side[place]) for side in sides)
      if longest > data.max_length:
        self._leave_out(pair, longest)
        for side in sides:
          side[place] = np.empty(0, dtype)
    self.num_pairs += len(block)
    for side, sentences in zip((self.inputs, self.targets), sides, strict=True):
      side.add(sentences, dtype)
    if self._split in HELD_OUT:
      encoded = [np.frombuffer(pair.target.encode(), np.uint8) for pair in block]
      self.texts.add(encoded, np.dtype(np.uint8))

  def _leave_out(self, pair: Pair, longest: int) -> None:
    """
    Raises:
      TextError: each pair of the split must count.
    """
    data = self._definition.data
    if self._split in HELD_OUT and data.long_pairs == 'refused':
      raise TextError(
        f'{pair.where}: a sentence of the {self._split} text must have at most {data.max_length} '
        f'tokens; one of this pair has {longest}. Divide it, or raise max_length in a workload of '
        'your own.'
      )
    self.num_left_out += 1


def _blocks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
  iterator = iter(pairs)
  while block := list(itertools.islice(iterator, _BLOCK)):
    yield block
