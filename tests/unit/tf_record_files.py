"""Data sets that TensorFlow Datasets has prepared as array_record, written again as TFRecord files.

The library writes that format with TensorFlow only, and AlgoPerf's data have it.
"""

from __future__ import annotations

import struct
from pathlib import Path


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
