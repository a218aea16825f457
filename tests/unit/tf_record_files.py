"""Data sets that TensorFlow Datasets prepares as array_record, and writes again as TFRecord files.

The library writes TFRecord files with TensorFlow only, and AlgoPerf's data have that format.
"""

from __future__ import annotations

import importlib.util
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def prepared(builders: str, folder: Path) -> Path:
  """Runs a script that prepares data sets in the folder it is given; returns that folder.

  Tests are skipped where the library or the format is not installed.
  """
  for name in ('tensorflow_datasets', 'array_record'):
    if importlib.util.find_spec(name) is None:
      pytest.skip(f'{name} is not installed')
  script = folder / 'write.py'
  script.write_text(textwrap.dedent(builders))
  path = ':'.join(part for part in sys.path if part)
  subprocess.run(
    [sys.executable, script, folder / 'data'],
    check=True,
    capture_output=True,
    env={'PYTHONPATH': path, 'HOME': str(folder)},
    timeout=300,
  )
  return folder / 'data'


def as_tf_records(source: Path, target: Path) -> Path:
  """Writes the data of a version, a folder, in the format tfrecord, and returns its folder."""
  from array_record.python import array_record_module

  target.mkdir(parents=True)
  for path in source.iterdir():
    name = path.name.replace('array_record', 'tfrecord')
    if name == path.name:
      text = path.read_text().replace('array_record', 'tfrecord')
      (target / name).write_text(text)
      continue
    with (target / name).open('wb') as file:
      for content in array_record_module.ArrayRecordReader(str(path)).read_all():
        file.write(struct.pack('<QI', len(content), 0) + content + bytes(4))
  return target
