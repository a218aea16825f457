"""ImageNet in small: the same folders, archives and code, with generated images of odd kinds."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from workloads.vision import image_files
from workloads.vision.photographs import Photographs

CLASSES = image_files.classes(5)
SPLITS = Splits(train=30, eval_train=10, validation=10, test=10)
FOLDERS = {
  'train': 'train',
  'validation': 'val',
  'test': 'imagenetv2-matched-frequency-format-val',
}


def definition(data: Photographs | None = None, splits: Splits = SPLITS) -> WorkloadDefinition:
  """ImageNet's workload at the size of these images."""
  data = data or Photographs(image_size=32, resize_size=36, num_classes=len(CLASSES))
  base = registry.workload('imagenet_resnet')
  smoke = base.smoke or registry.workload('quick_vision').smoke  # for its data alone
  return dataclasses.replace(base, data=data, splits=splits, smoke=smoke)


def picture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
  """A smooth image with some noise, as JPEG is made for: uint8 [height, width, 3]."""
  coarse = random.integers(256, size=(4, 4, 3), dtype=np.uint8)
  smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
  noise = random.normal(0, 6, smooth.shape)
  return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, form: str = 'JPEG', **options: object) -> bytes:
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def kinds(random: np.random.Generator) -> dict[str, bytes]:
  """Images of each odd kind that can be used."""
  rgb = Image.fromarray(picture(random, 60, 80))
  exif = Image.Exif()
  exif[0x0112] = 6  # rotated by 90 degrees
  gray16 = Image.fromarray(random.integers(1 << 16, size=(50, 40), dtype=np.uint16))
  return {
    'plain': encoded(rgb, quality=90),
    'progressive': encoded(rgb, progressive=True),
    'gray': encoded(rgb.convert('L')),
    'cmyk': encoded(rgb.convert('CMYK')),
    'rotated': encoded(rgb, exif=exif),
    'bad exif': encoded(rgb, exif=b'Exif\0\0II*\0\x08\0\0\0\x01\0'),
    'more bytes': with_more_bytes(encoded(rgb)),
    'png': encoded(rgb, 'PNG'),
    'palette': encoded(rgb.convert('P'), 'PNG'),
    'alpha': encoded(rgb.convert('RGBA'), 'PNG'),
    '16 bits': encoded(gray16, 'PNG'),
    'one pixel': encoded(rgb.resize((1, 1))),
    'narrow': encoded(rgb.resize((3, 200))),
    'large': encoded(Image.fromarray(picture(random, 300, 420)), quality=85),
  }


def with_more_bytes(jpeg: bytes) -> bytes:
  """A JPEG file with bytes between its last pixel and its end, of which libjpeg warns."""
  return jpeg[:-2] + b'more' + jpeg[-2:]


def bad_kinds(random: np.random.Generator) -> dict[str, bytes]:
  """Images that cannot be used."""
  rgb = Image.fromarray(picture(random, 60, 80))
  good, cmyk = encoded(rgb, quality=95), encoded(rgb.convert('CMYK'), quality=95)
  return {
    'truncated': good[: len(good) // 2],
    'without its end': good[:-2],
    'cut and ended': good[: len(good) // 2] + good[-2:],
    'another marker': good[: len(good) // 2] + b'\xff\xd3' + good[len(good) // 2 :],
    'cut and ended in CMYK': cmyk[: len(cmyk) // 2] + cmyk[-2:],
    'empty': b'',
    'text': b'This is no image.',
    'float': encoded(Image.fromarray(random.random((8, 8), np.float32)), 'TIFF'),
  }


def images(split: str) -> dict[str, bytes]:
  """Files of a split by `<class>/<name>`, sorted; training has the odd kinds, too."""
  random = np.random.default_rng(list(FOLDERS).index(split))
  names = CLASSES if split != 'test' else [str(label) for label in range(len(CLASSES))]
  number = getattr(SPLITS, split)
  odd = list(kinds(random).values()) if split == 'train' else []
  found = {}
  for index in range(number):
    label = index * len(names) // number
    height, width = random.integers(20, 90, size=2)
    content = encoded(Image.fromarray(picture(random, int(height), int(width))))
    if index < len(odd):
      content = odd[index]
    found[f'{names[label]}/{names[label]}_{index:03}.JPEG'] = content
  return found


def write(source: Path) -> Path:
  """Writes the folders of classes."""
  for split, folder in FOLDERS.items():
    for name, content in images(split).items():
      path = source / folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
  return source


def write_archives(source: Path) -> Path:
  """Writes the same images as the official archives."""
  source.mkdir(parents=True)
  by_class: dict[str, dict[str, bytes]] = {}
  for name, content in images('train').items():
    folder, file = name.split('/')
    by_class.setdefault(folder, {})[file] = content
  inner = {f'{name}.tar': tar(files) for name, files in reversed(by_class.items())}
  (source / 'ILSVRC2012_img_train.tar').write_bytes(tar(inner))
  validation = mixed_classes(images('validation'))
  (source / 'ILSVRC2012_img_val.tar').write_bytes(
    tar({f'ILSVRC2012_val_{i:08}.JPEG': c for i, c in enumerate(validation.values(), 1)})
  )
  labels = [CLASSES.index(name.split('/')[0]) for name in validation]
  (source / 'ILSVRC2012_devkit_t12.tar.gz').write_bytes(devkit(labels))
  folder = FOLDERS['test']
  (source / 'imagenetv2-matched-frequency.tar.gz').write_bytes(
    tar({f'{folder}/{name}': content for name, content in images('test').items()}, mode='w:gz')
  )
  return source


def mixed_classes(files: dict[str, bytes]) -> dict[str, bytes]:
  """Images with their classes in turn, as the official validation images are numbered."""
  seen: dict[str, int] = {}
  turns = {}
  for name in files:
    folder = name.split('/')[0]
    turns[name] = seen[folder] = seen.get(folder, -1) + 1
  return {name: files[name] for name in sorted(files, key=turns.__getitem__)}


def tar(files: dict[str, bytes], mode: str = 'w') -> bytes:
  content = io.BytesIO()
  with tarfile.open(fileobj=content, mode=mode) as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return content.getvalue()


def devkit(labels: list[int]) -> bytes:
  """The development kit, which numbers the classes from 1, in an order of its own."""
  ids = {label: len(CLASSES) - label for label in range(len(CLASSES))}
  rows = [(ids[label], CLASSES[label], 'words') for label in range(len(CLASSES))]
  rows.append((1860, 'n00001740', 'a group'))
  kind = [('ILSVRC2012_ID', object), ('WNID', object), ('words', object)]
  meta = io.BytesIO()
  scipy.io.savemat(meta, {'synsets': np.array(rows, dtype=kind)[:, None]})
  truth = ''.join(f'{ids[label]}\n' for label in labels).encode()
  top = 'ILSVRC2012_devkit_t12/data'
  return tar(
    {
      f'{top}/meta.mat': meta.getvalue(),
      f'{top}/ILSVRC2012_validation_ground_truth.txt': truth,
    },
    mode='w:gz',
  )
