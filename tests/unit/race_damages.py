"""What may happen to the files of a race: each damage takes a path and a source of chance."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path


def flip_bytes(path: Path, rng: random.Random) -> None:
  content = bytearray(path.read_bytes())
  for _ in range(rng.choice([1, 1, 3, 20])):
    if content:
      content[rng.randrange(len(content))] = rng.randrange(256)
  path.write_bytes(content)


def change_a_digit(path: Path, rng: random.Random) -> None:
  """What no parser notices."""
  content = bytearray(path.read_bytes())
  places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
  if places:
    content[rng.choice(places)] = ord(rng.choice('0123456789'))
  path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: rng.randrange(len(content) + 1)])


def cut_lines(path: Path, rng: random.Random) -> None:
  lines = path.read_bytes().splitlines(keepends=True)
  start = rng.choice([0, 0, rng.randrange(len(lines) + 1)])
  path.write_bytes(b''.join(lines[start : start + rng.randrange(len(lines) + 1)]))


def drop_a_line(path: Path, rng: random.Random) -> None:
  lines = path.read_bytes().splitlines(keepends=True)
  if lines:
    del lines[rng.randrange(len(lines))]
  path.write_bytes(b''.join(lines))


def nest(path: Path, rng: random.Random) -> None:
  path.write_text(rng.choice(['[', '{"a":']) * rng.choice([5, 100_000]))


ODD = (None, True, -1, 10**400, 1e308, -0.5, '', 'x', '1_0', [], [1], [[1]], {}, {'a': [1]})


def mistype(path: Path, rng: random.Random) -> None:
  """Another type or value for one field, at any depth."""
  try:
    value = json.loads(
      path.read_text().splitlines()[0] if path.suffix == '.jsonl' else path.read_text()
    )
  except (ValueError, IndexError, RecursionError):
    return cut(path, rng)
  holder = value
  while isinstance(holder, (dict, list)) and holder:
    key = rng.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
    if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.5:
      holder[key] = rng.choice(ODD)
      break
    holder = holder[key]
  rest = path.read_text().splitlines(keepends=True)[1:] if path.suffix == '.jsonl' else []
  path.write_text(json.dumps(value) + '\n' + ''.join(rest))
  return None


def swap(path: Path, rng: random.Random) -> None:
  root = next(
    parent
    for parent in path.parents
    if (parent / 'nadamw').exists() or (parent / 'momentum').exists()
  )
  other = rng.choice(sorted(one for one in root.rglob(path.name) if one.is_file()))
  content = path.read_bytes()
  path.write_bytes(other.read_bytes())
  other.write_bytes(content)


def remove(path: Path, rng: random.Random) -> None:
  path.unlink()


def replace_by_no_file(path: Path, rng: random.Random) -> None:
  path.unlink()
  rng.choice([os.mkfifo, os.mkdir])(path)


def remove_a_folder(path: Path, rng: random.Random) -> None:
  if path.parent.name.startswith('trial'):
    shutil.rmtree(path.parent)


DAMAGES = (
  *(
    flip_bytes,
    change_a_digit,
    change_a_digit,
    cut,
    cut_lines,
    drop_a_line,
    nest,
    mistype,
    mistype,
  ),
  *(swap, swap, remove, replace_by_no_file, remove_a_folder),
)
