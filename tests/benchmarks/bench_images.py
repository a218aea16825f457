"""What images cost: decoders, the pipelines of ImageNet and CIFAR-10, and what accelerators need.

Commands: `python tests/benchmarks/bench_images.py [decoders] [pipeline] [workers] [cifar]`; without
arguments, all parts.

- decoders: time to decode a photograph of 500x375 pixels with each library that is installed, and
  the largest difference of a pixel to Pillow's.
- pipeline: images a second on one core, decoded and augmented to 224x224, as training draws them:
  ResNet, ViT (with RandAugment and mixup) and evaluation. Beside each is its recipe: the same
  operations in Pillow, as torchvision calls them, then PyTorch's for normalization and batches.
  They alternate in short bursts, so that drift of the machine hits all alike. Then the number of
  cores that keep an accelerator busy.
- workers: images a second with one and two worker processes. The machine must be quiet.
- cifar: images a second of CIFAR-10's training stream, cropped and flipped, on one core.

The photographs are parts of the two that scikit-learn ships, or smooth noise if it is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import Splits, WorkloadDefinition
from algorithmic_efficiency.data import records, streams
from workloads.vision import photographs_data, pixels, small_photographs_data
from workloads.vision.photographs import SmallPhotographs

HEIGHT, WIDTH, QUALITY = 375, 500, 96
NUM_PHOTOGRAPHS = 32
BATCH_SIZE = 32
NUM_BURSTS = 10
BATCHES_PER_BURST = 4
NUM_WORKER_BATCHES = 40
CIFAR_BATCH_SIZE = 128
# AlgoPerf's ResNet-50: seconds of a step of 1,024 images on 4 A100.
STEP_SEC, STEP_IMAGES, NUM_ACCELERATORS = 0.26, 1024, 4


def main() -> None:
  registry.pin_own_packages()
  torch.set_num_threads(1)
  parts = {'decoders': _decoders, 'pipeline': _pipeline, 'workers': _workers, 'cifar': _cifar}
  for name in sys.argv[1:] or parts:
    parts[name]()


def _photographs() -> list[bytes]:
  """JPEG files of 500x375 pixels: parts of photographs, some mirrored."""
  random = np.random.default_rng(0)
  wholes = list(_wholes(random))
  found = []
  for index in range(NUM_PHOTOGRAPHS):
    whole = wholes[index % len(wholes)]
    left = int(random.integers(whole.width - WIDTH + 1))
    top = int(random.integers(whole.height - HEIGHT + 1))
    part = whole.crop((left, top, left + WIDTH, top + HEIGHT))
    if index % 4 > 1:
      part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    part.save(file, 'JPEG', quality=QUALITY, subsampling='4:2:0')
    found.append(file.getvalue())
  return found


def _wholes(random: np.random.Generator) -> Iterator[Image.Image]:
  if importlib.util.find_spec('sklearn') is not None:
    from sklearn.datasets import load_sample_images

    for image in load_sample_images().images:
      yield Image.fromarray(image)
    return
  for _ in range(2):
    coarse = Image.fromarray(random.integers(256, size=(48, 64, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)).astype(float)
    noisy = smooth + random.normal(0, 8, smooth.shape)
    yield Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


# Decoders.


def _decoders() -> None:
  photographs = _photographs()
  size = statistics.mean(map(len, photographs)) / 1e3
  print(f'decoders, photographs of {WIDTH}x{HEIGHT} pixels, {size:.0f} kB each')
  expected = [_with_pillow(photograph) for photograph in photographs]
  for name, decode in _known_decoders().items():
    difference = max(
      int(np.abs(np.asarray(decode(one)).astype(int) - wanted).max())
      for one, wanted in zip(photographs, expected, strict=True)
    )
    seconds = min(_cpu_time(decode, photographs) for _ in range(NUM_BURSTS)) / len(photographs)
    print(f'  {name:<22} {seconds * 1e3:.2f} ms, largest difference {difference}')


def _cpu_time(decode: Callable[[bytes], Any], photographs: list[bytes]) -> float:
  start = time.process_time()
  for photograph in photographs:
    decode(photograph)
  return time.process_time() - start


def _with_pillow(photograph: bytes) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(photograph)).convert('RGB'))


def _known_decoders() -> dict[str, Callable[[bytes], Any]]:
  found: dict[str, Callable[[bytes], Any]] = {'Pillow': _with_pillow}
  found['OpenCV'] = lambda one: pixels.decode(np.frombuffer(one, np.uint8))
  with contextlib.suppress(ImportError):
    import simplejpeg

    found['simplejpeg'] = lambda one: simplejpeg.decode_jpeg(one, 'RGB')
  with contextlib.suppress(ImportError):
    import imagecodecs

    found['imagecodecs'] = imagecodecs.jpeg8_decode
  with contextlib.suppress(ImportError):
    import kornia_rs

    found['kornia-rs'] = kornia_rs.io.ImageDecoder().decode
  with contextlib.suppress(ImportError, RuntimeError):
    import turbojpeg

    library = turbojpeg.TurboJPEG()
    found['PyTurboJPEG'] = lambda one: library.decode(one, pixel_format=turbojpeg.TJPF_RGB)
  return found


# The pipeline of ImageNet.


def _imagenet(name: str) -> WorkloadDefinition:
  return dataclasses.replace(
    registry.workload(name),
    splits=Splits(
      train=NUM_PHOTOGRAPHS,
      eval_train=NUM_PHOTOGRAPHS,
      validation=NUM_PHOTOGRAPHS,
      test=NUM_PHOTOGRAPHS,
    ),
  )


def _write_imagenet(root: Path) -> None:
  photographs = _photographs()
  about = photographs_data.about(_imagenet('imagenet_resnet'))
  out = records.Writer(root, dataset=root.name, about=about, inputs='generated', key='')
  number = len(photographs)
  for split in ('train', 'validation', 'test'):
    images = (np.frombuffer(one, np.uint8) for one in photographs)
    out.ragged(f'{split}/images', images, dtype=np.uint8)
    sizes = np.tile(np.array([HEIGHT, WIDTH], np.int32), (number, 1))
    out.array(f'{split}/sizes', [sizes], shape=(number, 2), dtype=np.int32)
    targets = np.arange(number, dtype=np.int32)
    out.array(f'{split}/targets', [targets], shape=(number,), dtype=np.int32)
  out.finish()


def _train_stream(name: str, root: Path, num_workers: int = 0) -> streams.TrainStream:
  definition = _imagenet(name)
  return streams.train_stream(
    photographs_data, definition, root, BATCH_SIZE, seed=0, num_workers=num_workers
  )


def _pipeline() -> None:
  with tempfile.TemporaryDirectory() as folder, _one_core():
    root = Path(folder) / 'imagenet'
    _write_imagenet(root)
    resnet, vit = _imagenet('imagenet_resnet'), _imagenet('imagenet_vit')
    pairs: dict[str, tuple[Iterator[Any], Iterator[Any]]] = {
      'ResNet': (_train_stream('imagenet_resnet', root), _recipe(resnet, root)),
      'ViT': (_train_stream('imagenet_vit', root), _recipe(vit, root)),
      'evaluation': (_evaluation(resnet, root), _evaluation_recipe(resnet, root)),
    }
    for pair in pairs.values():
      for stream in pair:
        _images_per_sec(stream)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
    for _ in range(NUM_BURSTS):
      for name, (ours, recipe) in pairs.items():
        seen[name].append((_images_per_sec(ours), _images_per_sec(recipe)))
  print('images a second on one core, 500x375 to 224x224, and with the recipe of torchvision:')
  for name, speeds in seen.items():
    ours, recipe = (statistics.median(one) for one in zip(*speeds, strict=True))
    ratio = statistics.median(one / other for one, other in speeds)
    print(f'  {name:<12} {ours:,.0f}, {recipe:,.0f}, ratio {ratio:.2f}')
  needed = STEP_IMAGES / STEP_SEC / NUM_ACCELERATORS
  cores = [needed / statistics.median(one) for one in zip(*seen['ResNet'], strict=True)]
  print(
    f'an A100 takes {needed:,.0f} images a second of ResNet-50; cores that feed it: '
    f'{cores[0]:.1f}, with the recipe {cores[1]:.1f}'
  )


def _evaluation(definition: WorkloadDefinition, root: Path) -> Iterator[Any]:
  while True:
    yield from streams.eval_stream(photographs_data, definition, root, 'validation', BATCH_SIZE)


def _recipe(definition: WorkloadDefinition, root: Path) -> Iterator[Any]:
  """What torchvision does to a training batch, by its own parts: Pillow and PyTorch."""
  data = definition.data
  random = np.random.default_rng(0)
  draws = SimpleNamespace(integer=lambda stop: int(random.integers(stop)))
  augmented = _randaugment_twin().augmented
  for photographs, labels in _encoded_batches(root):
    batch = []
    for photograph in photographs:
      image = Image.open(io.BytesIO(photograph)).convert('RGB')
      image = image.crop(_random_box(random)).resize((224, 224), Image.Resampling.BILINEAR)
      if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      image = augmented(image, data.randaugment_layers, data.randaugment_magnitude, draws)
      batch.append(_normalized(definition, image))
    inputs, targets = torch.stack(batch), torch.from_numpy(labels)
    if data.mixup_alpha:
      weight = random.beta(data.mixup_alpha, data.mixup_alpha)
      targets = torch.nn.functional.one_hot(targets, data.num_classes).float()
      inputs, targets = (weight * x + (1 - weight) * x.roll(1, 0) for x in (inputs, targets))
    yield {'inputs': inputs, 'targets': targets}


def _evaluation_recipe(definition: WorkloadDefinition, root: Path) -> Iterator[Any]:
  """What torchvision does to a batch of evaluation."""
  scale = definition.data.resize_size / min(HEIGHT, WIDTH)
  width, height = round(WIDTH * scale), round(HEIGHT * scale)
  left, top = (width - 224) // 2, (height - 224) // 2
  for photographs, labels in _encoded_batches(root):
    batch = []
    for photograph in photographs:
      image = Image.open(io.BytesIO(photograph)).convert('RGB')
      image = image.resize((width, height), Image.Resampling.BILINEAR)
      image = image.crop((left, top, left + 224, top + 224))
      batch.append(_normalized(definition, image))
    yield {'inputs': torch.stack(batch), 'targets': torch.from_numpy(labels)}


def _encoded_batches(root: Path) -> Iterator[tuple[list[bytes], np.ndarray]]:
  photographs = [bytes(one) for one in records.open_prepared(root).field('train/images')]
  random = np.random.default_rng(0)
  while True:
    numbers = random.integers(len(photographs), size=BATCH_SIZE)
    yield [photographs[index] for index in numbers], numbers


def _normalized(definition: WorkloadDefinition, image: Image.Image) -> torch.Tensor:
  mean = torch.tensor(definition.train_mean).view(-1, 1, 1) / 255
  stddev = torch.tensor(definition.train_stddev).view(-1, 1, 1) / 255
  planes = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
  return planes.to(torch.float32).div(255).sub_(mean).div_(stddev)


def _randaugment_twin() -> ModuleType:
  """Imports RandAugment in Pillow, which the tests compare ours with."""
  sys.path.append(str(Path(__file__).resolve().parents[1] / 'unit'))
  import randaugment_twin

  return randaugment_twin


def _random_box(random: np.random.Generator) -> tuple[int, int, int, int]:
  while True:
    area = HEIGHT * WIDTH * random.uniform(0.08, 1)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if width <= WIDTH and height <= HEIGHT:
      left, top = random.integers(WIDTH - width + 1), random.integers(HEIGHT - height + 1)
      return left, top, left + width, top + height


def _images_per_sec(stream: Iterator[Any], num_batches: int = BATCHES_PER_BURST) -> float:
  start, number = time.process_time(), 0
  for _ in range(num_batches):
    number += len(next(stream)['inputs'])
  return number / (time.process_time() - start)


# Workers.


def _workers() -> None:
  with tempfile.TemporaryDirectory() as folder:
    root = Path(folder) / 'imagenet'
    _write_imagenet(root)
    speeds = {number: _speed_of_workers(root, number) for number in (1, 2)}
  shown = ', '.join(f'{number} workers {speed:,.0f}' for number, speed in speeds.items())
  print(f'images a second in wall time: {shown}, ratio {speeds[2] / speeds[1]:.2f}')


def _speed_of_workers(root: Path, num_workers: int) -> float:
  with contextlib.closing(_train_stream('imagenet_resnet', root, num_workers)) as stream:
    for _ in range(2 * num_workers + 2):  # those that are made ahead
      next(stream)
    start = time.perf_counter()
    for _ in range(NUM_WORKER_BATCHES):
      next(stream)
    return NUM_WORKER_BATCHES * BATCH_SIZE / (time.perf_counter() - start)


# CIFAR-10.


def _cifar() -> None:
  base = registry.workload('cifar')
  data = SmallPhotographs(batch_sha1s=())
  definition = dataclasses.replace(base, data=data)
  with tempfile.TemporaryDirectory() as folder, _one_core():
    root = Path(folder) / 'cifar10'
    about = small_photographs_data.about(definition)
    out = records.Writer(root, dataset=root.name, about=about, inputs='generated', key='')
    number = definition.splits.train
    shape = (number, *data.image_shape)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    out.array('train/inputs', [images], shape=shape, dtype=np.uint8)
    labels = np.zeros(number, np.int32)
    out.array('train/targets', [labels], shape=(number,), dtype=np.int32)
    out.file('batch_sha1s.json', b'[]')
    out.finish()
    stream = streams.train_stream(
      small_photographs_data, definition, root, CIFAR_BATCH_SIZE, seed=0
    )
    _images_per_sec(stream)
    speeds = [_images_per_sec(stream, num_batches=100) for _ in range(NUM_BURSTS)]
  print(
    f'CIFAR-10, batches of {CIFAR_BATCH_SIZE}: {statistics.median(speeds):,.0f} images a second'
  )


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
  allowed = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(allowed)})
  try:
    yield
  finally:
    os.sched_setaffinity(0, allowed)


if __name__ == '__main__':
  main()
