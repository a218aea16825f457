"""Crops, resampling, RandAugment and mixup against plain twins in Pillow and numpy."""

from __future__ import annotations

import collections
import importlib.util
import itertools
import math

import numpy as np
import pytest

if importlib.util.find_spec('cv2') is None or importlib.util.find_spec('PIL') is None:
  pytest.skip('OpenCV or Pillow is not installed', allow_module_level=True)

import randaugment_twin
import small_imagenet
from PIL import Image

from algorithmic_efficiency.data.random_numbers import ExampleRandom
from workloads.vision import photographs_data, pixels, randaugment, resampling
from workloads.vision.photographs import Photographs

AREA, ASPECT = Photographs().crop_area, Photographs().crop_aspect


def picture(height, width, seed=0):
  return small_imagenet.picture(np.random.default_rng(seed), height, width)


def noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


# Crops.


@pytest.mark.parametrize('size', [(375, 500), (500, 375), (60, 60), (90, 20)])
def test_random_crops_lie_within_and_have_the_areas_and_shapes_that_are_allowed(size):
  height, width = size
  boxes = [resampling.random_box(ExampleRandom(seed), *size, AREA, ASPECT) for seed in range(500)]
  areas = np.array([box.height * box.width for box in boxes]) / (height * width)
  ratios = np.array([box.width / box.height for box in boxes])
  for box in boxes:
    assert box.top >= 0 and box.left >= 0
    assert box.top + box.height <= height and box.left + box.width <= width
  rounding = 1.5 / min(min(box[2:]) for box in boxes)
  assert areas.min() > AREA[0] * (1 - 2 * rounding) and areas.max() <= 1
  assert ratios.min() > ASPECT[0] * (1 - rounding) and ratios.max() < ASPECT[1] * (1 + rounding)
  assert len(set(boxes)) > 400


def test_areas_of_crops_are_uniform_and_positions_too():
  """In a square with aspect 1 every crop is accepted, so that nothing skews the area."""
  boxes = [
    resampling.random_box(ExampleRandom(7 * seed), 1000, 1000, AREA, (1.0, 1.0))
    for seed in range(4000)
  ]
  areas = np.sort([box.height * box.width / 1e6 for box in boxes])
  expected = np.linspace(*AREA, len(areas))
  assert np.abs(areas - expected).max() < 0.03  # the bound of Kolmogorov and Smirnov at 1e-3
  small = [box for box in boxes if box.height < 900]
  places = np.sort([box.top / (1000 - box.height) for box in small])
  assert np.abs(places - np.linspace(0, 1, len(places))).max() < 0.04


@pytest.mark.parametrize(
  ('size', 'expected'), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))]
)
def test_extreme_shapes_fall_back_to_the_center(size, expected):
  box = resampling.random_box(ExampleRandom(0), *size, (0.9, 1.0), ASPECT)
  assert box == expected


def test_the_center_is_what_resizing_and_cropping_leave():
  assert resampling.center_box(375, 500, 224, 256) == (24, 86, 328, 328)
  assert resampling.center_box(256, 256, 224, 256) == (16, 16, 224, 224)
  assert resampling.center_box(1, 1, 224, 256) == (0, 0, 1, 1)


# Resampling.


def by_pillow(image, size):
  resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def rms(one, other):
  return math.sqrt(np.square(one.astype(float) - other.astype(float)).mean())


def test_an_image_of_the_right_size_stays():
  image = noise(64, 64)
  np.testing.assert_array_equal(resampling.resized(image, 64), image)


@pytest.mark.parametrize('size', [(40, 50), (70, 60), (90, 90), (128, 100), (160, 170)])
def test_resizing_is_close_to_pillow_for_pictures(size):
  image = picture(*size)
  assert rms(resampling.resized(image, 64), by_pillow(image, 64)) < 1.6


@pytest.mark.parametrize('size', [70, 90, 110, 128, 150, 170])
def test_fine_patterns_are_filtered_as_pillow_does(size):
  """White noise would be kept by interpolation alone, as another coarse pattern."""
  image = noise(size, size)
  ours = resampling.resized(image, 64).astype(float).std()
  theirs = by_pillow(image, 64).astype(float).std()
  assert abs(ours / theirs - 1) < 0.1


def test_resizing_has_no_direction():
  image = noise(150, 110)
  flipped = resampling.resized(image[::-1, ::-1], 64)[::-1, ::-1]
  assert np.abs(flipped.astype(int) - resampling.resized(image, 64)).max() <= 1


def test_a_crop_does_not_see_what_lies_around_it():
  image = noise(100, 100)
  inside = np.ascontiguousarray(image[10:90, 20:80])
  np.testing.assert_array_equal(
    resampling.resized(image[10:90, 20:80], 32), resampling.resized(inside, 32)
  )


@pytest.mark.parametrize('reduction', [2, 4, 8])
@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_large_images_are_decoded_smaller_and_stay_where_they_are(reduction, form):
  size = 24
  height, width = 3 * reduction * size + 5, 3 * reduction * size - 3
  image = picture(height, width)
  content = small_imagenet.encoded(Image.fromarray(image), form)
  encoded = np.frombuffer(content, np.uint8)
  box = resampling.Box(
    reduction * size // 3, reduction * size // 2, int(1.5 * reduction * size), 2 * reduction * size
  )
  seen = []
  decode = pixels.decode

  def noting(encoded, *, reduction=1):
    seen.append(reduction)
    return decode(encoded, reduction=reduction)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pixels, 'decode', noting)
    found = resampling.decoded_crop(encoded, height, width, box, size)
  assert seen == [reduction]
  top, left = box.top, box.left
  expected = by_pillow(decode(encoded)[top : top + box.height, left : left + box.width], size)
  moved = by_pillow(
    decode(encoded)[top : top + box.height, left + reduction : left + reduction + box.width], size
  )
  assert rms(found, expected) < 1.0 < 4.0 < rms(found, moved)


def test_an_image_of_another_size_than_noted_is_refused():
  content = small_imagenet.encoded(Image.fromarray(picture(40, 40)))
  with pytest.raises(pixels.BadImage, match='when prepared'):
    resampling.decoded_crop(
      np.frombuffer(content, np.uint8), 40, 50, resampling.Box(0, 0, 40, 40), 32
    )


# RandAugment.


IMAGES = {
  'picture': picture(120, 130),
  'noise': noise(120, 130),
  'dark': picture(120, 130) // 4 + 3,
  'flat': np.full((120, 130, 3), (7, 130, 255), np.uint8),
}


class Draws:
  """Random numbers that are given: signs, or the row and the column of a center."""

  def __init__(self, *numbers):
    self._numbers = list(numbers)

  def integer(self, stop):
    assert self._numbers[0] < stop
    return self._numbers.pop(0)


def rotation(amount, height, width):
  x, y = width / 2, height / 2
  cosine, sine = math.cos(math.radians(30 * amount)), math.sin(math.radians(30 * amount))
  return [cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y]


# By operation: the coordinates that a pixel is taken from, as a matrix times (x, y, 1).
PLACES = {
  'rotate': rotation,
  'shear_x': lambda amount, height, width: ([1, 0.3 * amount, 0], [0, 1, 0]),
  'shear_y': lambda amount, height, width: ([1, 0, 0], [0.3 * amount, 1, 0]),
}


def ties(name, amount, height, width):
  """Where a pixel is taken from a border between two, which fixed precision decides.

  OpenCV has coordinates of 10 bits behind the point, Pillow of 16. Returns bool [height, width].
  """
  y, x = np.mgrid[:height, :width] + 0.5
  places = [a * x + b * y + c for a, b, c in PLACES[name](amount, height, width)]
  return np.any([np.abs(place - np.round(place)) < 2**-10 for place in places], axis=0)


CENTERS = ((0, 0), (60, 65), (119, 3), (30, 129))
# Gray values may differ by one, which a factor from 0.1 to 1.9 makes no larger.
TOLERANCES = {'color': 1, 'contrast': 1}


@pytest.mark.parametrize('name', randaugment.OPERATIONS)
def test_an_operation_is_that_of_pillow_at_every_magnitude(name):
  draws = CENTERS if name == 'cutout' else ((0,), (1,))
  for magnitude, numbers, kind in itertools.product(range(11), draws, IMAGES):
    image, strength = IMAGES[kind], magnitude / 10
    found = randaugment.OPERATIONS[name](image, strength, Draws(*numbers))
    twin = randaugment_twin.OPERATIONS[name](Image.fromarray(image), strength, Draws(*numbers))
    difference = np.abs(found.astype(int) - np.asarray(twin)).max(axis=2)
    if name in PLACES and magnitude < 10:  # that of the workloads has none
      difference[ties(name, (strength, -strength)[numbers[0]], *image.shape[:2])] = 0
    assert found.dtype == np.uint8
    assert difference.max() <= TOLERANCES.get(name, 0), (kind, magnitude, numbers)


def test_operations_one_after_the_other_are_those_of_pillow(monkeypatch):
  """Without the operations that differ by one, which others might make larger."""
  exact = [name for name in randaugment.OPERATIONS if name not in TOLERANCES]
  for module in (randaugment, randaugment_twin):
    operations = {name: module.OPERATIONS[name] for name in exact}
    monkeypatch.setattr(module, 'OPERATIONS', operations)
  for seed in range(100):
    image = picture(64, 48, seed)
    found = randaugment.augmented(image, 3, 10, ExampleRandom(seed))
    twin = randaugment_twin.augmented(Image.fromarray(image), 3, 10, ExampleRandom(seed))
    np.testing.assert_array_equal(found, np.asarray(twin))


def test_the_twin_has_the_same_operations_in_the_same_order():
  assert list(randaugment_twin.OPERATIONS) == list(randaugment.OPERATIONS)


def test_cutout_blanks_a_square_around_a_pixel():
  image = np.zeros((100, 120, 3), np.uint8)
  blank, centers = [], []
  for seed in range(300):
    found = randaugment.OPERATIONS['cutout'](image, 1.0, ExampleRandom(seed))
    where = np.argwhere(found[..., 0] == 128)
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
    assert (found[top : bottom + 1, left : right + 1] == 128).all()
    assert len(where) == (bottom + 1 - top) * (right + 1 - left)
    blank.append((bottom + 1 - top, right + 1 - left))
    centers.append(top == 0 and left == 0)
  heights, widths = zip(*blank, strict=True)
  assert max(heights) == max(widths) == 80 and min(heights) >= 40
  assert any(centers) and not image.any(), 'the image itself stays as it is'


def test_operations_at_no_strength_change_little_or_nothing():
  image = picture(60, 60)
  for name in ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'solarize_add'):
    np.testing.assert_array_equal(randaugment.OPERATIONS[name](image, 0.0, Draws(0)), image)


def test_sixteen_operations_have_equal_chances_one_after_the_other(monkeypatch):
  drawn = collections.Counter()
  operations = {
    name: lambda image, strength, random, name=name: drawn.update([name]) or image
    for name in randaugment.OPERATIONS
  }
  monkeypatch.setattr(randaugment, 'OPERATIONS', operations)
  for seed in range(4000):
    randaugment.augmented(noise(2, 2), 2, 10, ExampleRandom(1000 + seed))
  assert len(drawn) == 16 and sum(drawn.values()) == 8000
  chi_squared = sum((number - 500) ** 2 / 500 for number in drawn.values())
  assert chi_squared < 37.7  # of 15 degrees of freedom, at 0.1 %


def test_augmentation_follows_the_random_numbers_and_leaves_its_input():
  image = picture(64, 64)
  before = image.copy()
  results = [randaugment.augmented(image, 2, 10, ExampleRandom(seed)) for seed in range(40)]
  again = [randaugment.augmented(image, 2, 10, ExampleRandom(seed)) for seed in range(40)]
  np.testing.assert_array_equal(results, again)
  np.testing.assert_array_equal(image, before)
  assert len(np.unique(np.stack(results).reshape(40, -1), axis=0)) > 25


# Mixup.


def mixed(alpha=0.2, key=3, number=6):
  random = np.random.default_rng(0)
  definition = small_imagenet.definition(
    Photographs(image_size=8, resize_size=9, num_classes=5, mixup_alpha=alpha)
  )
  rows = {
    'inputs': random.standard_normal((number, 8, 8, 3), np.float32),
    'targets': random.integers(5, size=number, dtype=np.int32),
  }
  original = {name: array.copy() for name, array in rows.items()}
  before = {name: array[-1:].copy() for name, array in rows.items()}
  mix = photographs_data.mix_batch(definition)
  return original, mix(rows, before, ExampleRandom(key))


def test_mixup_is_a_weighted_sum_with_the_batch_rolled_by_one():
  original, found = mixed()
  weight = ExampleRandom(3).generator().beta(0.2, 0.2)
  assert 0.05 < weight < 0.95
  for name, plain in (
    ('inputs', original['inputs'].astype(np.float64)),
    ('targets', np.eye(5)[original['targets']]),
  ):
    expected = weight * plain + (1 - weight) * np.roll(plain, 1, axis=0)
    np.testing.assert_allclose(found[name], expected, atol=1e-6)
    assert found[name].dtype == np.float32
  np.testing.assert_allclose(found['targets'].sum(axis=1), 1, atol=1e-6)


def test_weights_are_of_the_beta_distribution():
  """Most batches of Beta(0.2, 0.2) are hardly mixed: its variance is 1 / (4 * 1.4)."""
  weights = []
  for key in range(2000):
    original, found = mixed(key=key, number=2)
    first, last = original['targets']
    if first != last:
      weights.append(found['targets'][0, first])
  assert abs(np.mean(weights) - 0.5) < 0.04
  assert abs(np.var(weights) - 1 / 5.6) < 0.015


def test_a_record_without_mixup_mixes_nothing():
  assert photographs_data.mix_batch(small_imagenet.definition()) is None


# The transforms of the task.


def whole(layers=0):
  """A record whose random crop is the whole of a square image."""
  return Photographs(
    image_size=32, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), randaugment_layers=layers
  )


def transformed(data, seeds):
  image = picture(32, 32)
  content = small_imagenet.encoded(Image.fromarray(image), 'PNG')
  example = {
    'image': np.frombuffer(content, np.uint8),
    'size': np.array([32, 32]),
    'target': np.int32(3),
  }
  transform = photographs_data.transform(small_imagenet.definition(data), True)
  return image, [transform(example, ExampleRandom(seed))['inputs'] for seed in seeds]


def test_half_of_the_training_images_are_flipped():
  image, found = transformed(whole(), range(400))
  kept = [np.array_equal(one, image) for one in found]
  mirrored = [np.array_equal(one, image[:, ::-1]) for one in found]
  assert all(a != b for a, b in zip(kept, mirrored, strict=True))
  assert abs(np.mean(mirrored) - 0.5) < 0.1  # four standard deviations


@pytest.mark.parametrize('layers', [0, 2])
def test_randaugment_changes_images_if_the_record_asks_for_it(layers):
  image, found = transformed(whole(layers), range(100))
  changed = [
    not np.array_equal(one, image) and not np.array_equal(one, image[:, ::-1]) for one in found
  ]
  # Solarizing changes nothing at full strength; nor does it twice, or inverting twice.
  assert np.mean(changed) > 0.9 if layers else not any(changed)
