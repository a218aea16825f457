"""A few hundred photographs of odd sizes and kinds, from a folder of classes to a trained model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from trials import record, rows, trial_folder
from warm import algoeff

if any(importlib.util.find_spec(name) is None for name in ('cv2', 'PIL', 'simplejpeg')):
  pytest.skip('OpenCV, Pillow or simplejpeg is not installed', allow_module_level=True)

from PIL import Image

from workloads.vision import image_files

TASK = Path(__file__).with_name('photographs') / 'workloads' / 'snapshots'
CLASSES = image_files.classes(4)
NUMBERS = {'train': 240, 'val': 60, 'imagenetv2-matched-frequency-format-val': 40}
FRAMEWORKS = [
  pytest.param('pytorch', 'torch.optim.AdamW', 'lr=0.01', marks=pytest.mark.slow),
  pytest.param('jax', 'optax.adamw', 'learning_rate=0.01', marks=pytest.mark.long),
]


def pattern(label: int, random: np.random.Generator) -> np.ndarray:
  """A bright top, bottom, center or border, which flips leave as they are; any size and color."""
  height, width = random.integers(24, 160, size=2)
  rows, columns = np.mgrid[:height, :width]
  x, y = columns / width - 0.5, rows / height - 0.5
  inner = np.maximum(abs(x), abs(y)) < 0.3
  bright = (y < 0, y > 0, inner, ~inner)[label]
  color = random.uniform(0.6, 1.0, size=3)
  image = np.where(bright, 200, 50)[..., None] * color + random.normal(0, 12, (height, width, 3))
  return image.clip(0, 255).astype(np.uint8)


def save(image: np.ndarray, path: Path, kind: int) -> None:
  """Writes an image as one of eight kinds of file, all of which are named JPEG."""
  rgb = Image.fromarray(image)
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  if kind == 5:
    gray = image.mean(axis=2) * 257
    Image.fromarray(gray.astype(np.uint16)).save(path, 'PNG')
    return
  made, form, options = {
    0: (rgb, 'JPEG', {'quality': 95, 'subsampling': 0}),
    1: (rgb, 'JPEG', {'progressive': True}),
    2: (rgb.convert('L'), 'JPEG', {}),
    3: (rgb.convert('CMYK'), 'JPEG', {}),
    4: (rgb, 'PNG', {}),
    6: (rgb.convert('P'), 'PNG', {}),
    7: (rgb, 'JPEG', {'exif': exif}),
  }[kind]
  made.save(path, form, **options)


def write(source: Path) -> Path:
  random = np.random.default_rng(0)
  for folder, number in NUMBERS.items():
    names = CLASSES if folder in ('train', 'val') else [str(label) for label in range(4)]
    for index in range(number):
      label = index % 4
      path = source / folder / names[label] / f'{index:04}.JPEG'
      path.parent.mkdir(parents=True, exist_ok=True)
      save(pattern(label, random), path, int(random.integers(8)))
  return source


@pytest.mark.parametrize(('framework', 'optimizer', 'rate'), FRAMEWORKS)
def test_a_folder_of_photographs_is_prepared_and_trained_on(framework, optimizer, rate, tmp_path):
  source = write(tmp_path / 'raw')
  bad = source / 'train' / CLASSES[1] / '0005.JPEG'
  bad.write_bytes(bad.read_bytes()[:200])
  where = ('--workload_path', TASK, '--data_dir', tmp_path)
  prepare = ('data', 'prepare', 'snapshots', '--source', source, *where)
  done = algoeff(*prepare, cwd=tmp_path)
  assert done.returncode == 2 and str(bad) in done.stderr
  done = algoeff(*prepare, '--on_bad_image', 'skip', cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  manifest = json.loads((tmp_path / 'snapshots' / 'manifest.json').read_bytes())
  assert manifest['splits'] == {'train': 240, 'validation': 60, 'test': 40}
  assert len(manifest['fields']['train/images']['skipped']) == 1
  done = algoeff('data', 'verify', 'snapshots', *where, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  done = algoeff(
    *('run', '--workload', 'snapshots', '--framework', framework, '--ruleset', 'self'),
    *('--optimizer', optimizer, '--hparam', rate, '--seed', '3', '--num_threads', '1'),
    *('--num_data_workers', '1', '--experiment_dir', tmp_path / 'runs', '--quiet', *where),
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  folder = trial_folder(tmp_path / 'runs')
  assert record(folder).stop_reason in ('budget_spent', 'targets_reached')
  last = rows(folder).evals[-1]
  assert last['validation/num_examples'] == 60 and last['test/num_examples'] == 40
  for split in ('train', 'validation', 'test'):
    assert last[f'{split}/accuracy'] > 0.85  # four classes
