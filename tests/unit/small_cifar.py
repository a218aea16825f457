"""CIFAR-10 in small: the same forms and code, with 72 generated images."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from workloads.vision import cifar_files
from workloads.vision.photographs import SmallPhotographs

SPLITS = Splits(train=50, eval_train=20, validation=10, test=12)
GROUPS = {'train': 60, 'test': 12}
PER_FILE = 12  # five training files of 12 images, and one test file


def arrays(group: str) -> cifar_files.Labelled:
  random = np.random.default_rng(list(GROUPS).index(group))
  number = GROUPS[group]
  images = random.integers(256, size=(number, 32, 32, 3), dtype=np.uint8)
  return cifar_files.Labelled(images, random.integers(10, size=number, dtype=np.int32))


def definition() -> WorkloadDefinition:
  sha1s = tuple(
    hashlib.sha1(cifar_files.binary_form(*arrays(group))).hexdigest() for group in GROUPS
  )
  base = registry.workload('cifar')
  smoke = base.smoke or registry.workload('quick_vision').smoke  # for its data alone
  return dataclasses.replace(
    base, splits=SPLITS, data=SmallPhotographs(batch_sha1s=sha1s), smoke=smoke
  )


def parts() -> dict[str, cifar_files.Labelled]:
  """The images of each file, by its name."""
  found = {}
  for group, names in cifar_files._NAMES.items():
    images, labels = arrays(group)
    for number, name in enumerate(names):
      rows = slice(number * PER_FILE, (number + 1) * PER_FILE)
      found[name] = cifar_files.Labelled(images[rows], labels[rows])
  return found


def pickled(part: cifar_files.Labelled, protocol: int = 2) -> bytes:
  """As Python 2 wrote them: keys are byte strings."""
  planes = np.ascontiguousarray(part.images.transpose(0, 3, 1, 2)).reshape(len(part.images), -1)
  content = {b'batch_label': b'one', b'labels': part.labels.tolist(), b'data': planes}
  return pickle.dumps(content, protocol=protocol)


def files(form: str) -> dict[str, bytes]:
  """The files of a form, by path."""
  if form == 'parquet':
    return parquet()
  if form == 'python':
    return {f'cifar-10-batches-py/{name}': pickled(part) for name, part in parts().items()}
  return {
    f'cifar-10-batches-bin/{name}.bin': cifar_files.binary_form(*part)
    for name, part in parts().items()
  }


def parquet() -> dict[str, bytes]:
  import pyarrow
  import pyarrow.parquet
  from PIL import Image

  found = {}
  for group in GROUPS:
    images, labels = arrays(group)
    rows = []
    for image in images:
      file = io.BytesIO()
      Image.fromarray(image).save(file, 'PNG')
      rows.append({'bytes': file.getvalue(), 'path': None})
    table = pyarrow.table({'img': rows, 'label': labels})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    found[f'{group}-00000-of-00001.parquet'] = file.getvalue()
  return found


def write(folder: Path, form: str) -> Path:
  """Writes the files of a form, or an archive of them: 'python.tar.gz' or 'binary.tar.gz'."""
  folder.mkdir(parents=True)
  if form.endswith('.tar.gz'):
    with tarfile.open(folder / f'cifar-10-{form}', 'w:gz') as archive:
      for name, content in files(form.partition('.')[0]).items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return folder
  for name, content in files(form).items():
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
  return folder
