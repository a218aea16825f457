"""Byte-level vocabularies of byte pairs, as in GPT-2: read, checked, stored and applied.

Two lists make a vocabulary: its tokens, and the pairs of tokens that are merged, in order of
priority. All vocabularies split text into words in the same way, and write bytes as printable
characters in files.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from algorithmic_efficiency import errors

FILE = 'tokenizer.json'
_TWO_FILES = ('vocab.json', 'merges.txt')

# GPT-2's pattern with possessive quantifiers, which find the same words without backtracking.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

# The character of each byte in files, in the order in which GPT-2 numbers bytes.
_CHARACTERS = {
  **{byte: chr(byte) for byte in _PRINTABLE},
  **{byte: chr(0x100 + number) for number, byte in enumerate(_OTHERS)},
}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
BYTE_TOKENS = tuple(bytes([byte]) for byte in _CHARACTERS)


class Required(Protocol):
  """What a definition requires of its vocabulary: the data record of a task has these.

  Attributes:
    vocab_size: number of tokens, including the separator.
    separator: text of the token that ends a document.
    vocabulary_sha256: SHA-256 of the prepared set's `tokenizer.json`; empty accepts any.
  """

  @property
  def vocab_size(self) -> int: ...

  @property
  def separator(self) -> str: ...

  @property
  def vocabulary_sha256(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
  """A byte-level vocabulary.

  Attributes:
    tokens: bytes of each token, by number; the separator has none.
    merges: pairs of tokens to merge, in order of priority.
    separator: name of the token that ends a document.
  """

  tokens: tuple[bytes, ...]
  merges: tuple[tuple[bytes, bytes], ...]
  separator: str

  @property
  def separator_id(self) -> int:
    return self.tokens.index(b'')

  @property
  def dtype(self) -> np.dtype[Any]:
    return token_type(len(self.tokens))

  def num_bytes(self) -> np.ndarray:
    """Bytes of text of each token, float32 [vocab_size]."""
    return np.array([len(token) for token in self.tokens], np.float32)

  def encoder(self) -> Callable[[str], np.ndarray]:
    """Returns a function from a document to its tokens, of the vocabulary's `dtype`.

    The separator comes last. Text that looks like the separator is treated as text.
    """
    import tiktoken

    ranked = [*BYTE_TOKENS, *(left + right for left, right in self.merges)]
    encoding = tiktoken.Encoding(
      name='algoeff',
      pat_str=WORDS,
      mergeable_ranks={token: rank for rank, token in enumerate(ranked)},
      special_tokens={},
    )
    numbers = {token: number for number, token in enumerate(self.tokens)}
    number_of_rank = np.array([numbers[token] for token in [*ranked, b'']], self.dtype)

    def encode(text: str) -> np.ndarray:
      ranks = encoding.encode_ordinary(text)
      ranks.append(len(ranked))
      return number_of_rank[ranks]

    return encode

  def to_json(self) -> bytes:
    """Returns the content of `tokenizer.json`, which the library `tokenizers` can read, too."""
    names = [_name(token) if token else self.separator for token in self.tokens]
    byte_level = {
      'type': 'ByteLevel',
      'add_prefix_space': False,
      'trim_offsets': True,
      'use_regex': True,
    }
    content = {
      'version': '1.0',
      'pre_tokenizer': byte_level,
      'decoder': byte_level,
      'model': {
        'type': 'BPE',
        'vocab': {name: number for number, name in enumerate(names)},
        'merges': [f'{_name(left)} {_name(right)}' for left, right in self.merges],
      },
    }
    return (json.dumps(content, indent=0, ensure_ascii=False) + '\n').encode()


def token_type(vocab_size: int) -> np.dtype[Any]:
  """Returns the smallest type that holds every token number."""
  return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def require(package: str, extra: str, *, what: str = 'text') -> None:
  """Checks that a package is installed with which `what` is prepared.

  Raises:
    UserError: it is not; the message names the extra that installs it.
  """
  if importlib.util.find_spec(package) is None:
    raise errors.UserError(
      f'Preparing {what} needs {package}, which is not installed: '
      f"pip install 'algorithmic-efficiency[{extra}]'"
    )


def of_merges(merges: Sequence[tuple[bytes, bytes]], separator: str) -> Vocabulary:
  """Returns the vocabulary of the 256 bytes, one token for each merge, and the separator."""
  tokens = (*BYTE_TOKENS, *(left + right for left, right in merges), b'')
  return Vocabulary(tokens=tokens, merges=tuple(merges), separator=separator)


def find(folder: Path, data: Required) -> Vocabulary:
  """Reads the vocabulary from a folder's `tokenizer.json`, else from `vocab.json` and `merges.txt`.

  Raises:
    UserError: there is none, or it does not have the form or size that the definition requires.
  """
  both = [folder / name for name in _TWO_FILES]
  if (folder / FILE).is_file():
    return load(folder / FILE, data)
  missing = [path.name for path in both if not path.is_file()]
  if missing:
    raise errors.UserError(
      f'--source must hold the files of the tokenizer beside those of the text, {FILE} or '
      f'{" and ".join(_TWO_FILES)}; {folder} has no {FILE} and no {" and no ".join(missing)}.'
    )
  lines = _read(both[1]).splitlines()
  merges = [line for line in lines if line and not line.startswith('#version')]
  return _checked(both[0], both[1], _parse(both[0]), merges, data)


def load(path: Path, data: Required) -> Vocabulary:
  """Reads the vocabulary from a `tokenizer.json`.

  Raises:
    UserError: it cannot be read, or does not have the form or size that the definition requires.
  """
  content = _parse(path)
  model = content.get('model')
  if not isinstance(model, dict) or model.get('type', 'BPE') != 'BPE':
    raise errors.UserError(
      f'{path} must hold a model of byte pairs (type BPE); it holds '
      f'{model.get("type") if isinstance(model, dict) else "no model"}.'
    )
  added = content.get('added_tokens') or []
  try:
    names = {**model['vocab'], **{token['content']: token['id'] for token in added}}
    merges = model['merges']
  except (KeyError, TypeError) as error:
    raise errors.UserError(
      f'{path} is not a tokenizer file: its vocabulary, merges or added tokens cannot be read '
      f'({error!r}).'
    ) from None
  return _checked(path, path, names, merges, data)


def check_sha256(found: str, where: Path, data: Required) -> None:
  """Compares the hash of a `tokenizer.json` with the definition.

  Raises:
    UserError: the definition requires another vocabulary.
  """
  if data.vocabulary_sha256 and found != data.vocabulary_sha256:
    raise errors.UserError(
      f'The vocabulary of {where} must be the one that the target is defined on, with the hash '
      f'{data.vocabulary_sha256[:12]}; its hash is {found[:12]}. Give the original files, or '
      'define a workload of your own.'
    )


def _checked(
  path: Path, merges_path: Path, names: Mapping[str, Any], merges: Iterable[Any], data: Required
) -> Vocabulary:
  if len(names) != data.vocab_size:
    raise errors.UserError(
      f'{path} must hold the {data.vocab_size:,} tokens of the definition; it holds {len(names):,}.'
    )
  if data.separator not in names:
    raise errors.UserError(
      f'{path} must hold the token {data.separator!r}, which ends a document; it does not.'
    )
  by_number = {number: name for name, number in names.items()}
  if set(by_number) != set(range(len(names))):
    raise errors.UserError(f'The tokens of {path} must be numbered from 0 to {len(names) - 1:,}.')
  ordered = [by_number[number] for number in range(len(names))]
  tokens = tuple(b'' if name == data.separator else _token(path, name) for name in ordered)
  pairs = tuple(_pair(merges_path, merge) for merge in merges)
  made = {left + right for left, right in pairs}
  if {*BYTE_TOKENS, *made, b''} != set(tokens) or len(made) != len(pairs):
    raise errors.UserError(
      f'The tokens of {path} must be the 256 bytes, one token for each merge of {merges_path}, and '
      f'{data.separator!r}; there are {len(pairs):,} merges for {len(tokens):,} tokens.'
    )
  return Vocabulary(tokens=tokens, merges=pairs, separator=data.separator)


def _pair(path: Path, merge: Any) -> tuple[bytes, bytes]:
  parts = merge.split(' ') if isinstance(merge, str) else merge
  if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) for p in parts):
    raise errors.UserError(f'The merges of {path} must be pairs of tokens; one is {merge!r}.')
  return _token(path, parts[0]), _token(path, parts[1])


def _name(token: bytes) -> str:
  return ''.join(_CHARACTERS[byte] for byte in token)


def _token(path: Path, name: str) -> bytes:
  try:
    return bytes(_BYTES[character] for character in name)
  except KeyError:
    raise errors.UserError(
      f'{path} is not byte-level, as GPT-2 is: its token {name!r} stands for no bytes.'
    ) from None


def _parse(path: Path) -> dict[str, Any]:
  try:
    content = json.loads(_read(path))
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON ({error}).') from None
  if not isinstance(content, dict):
    raise errors.UserError(f'{path} must hold a JSON object; it holds a {type(content).__name__}.')
  return content


def _read(path: Path) -> str:
  try:
    return path.read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f'{path} cannot be read ({error}).') from None
