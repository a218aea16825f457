"""What the workloads on ImageNet and CIFAR-10 feed their models, as data.

`photographs_data.py` and `small_photographs_data.py` beside this file have the code of each record.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Photographs:
  """Encoded photographs of any size, decoded, cropped and normalized when they are drawn.

  In training, a random crop of an image is resized, and flipped in half of the cases (Szegedy et
  al., 2015). In evaluation, the image is resized, and its center is cropped. Either is less the
  definition's `train_mean`, divided by its `train_stddev`, which are of pixels from 0 to 255.

  Attributes:
    image_size: height and width of the model's input, in pixels.
    resize_size: length of the shorter side before the center crop, in pixels.
    num_classes: number of classes; their folders in alphabetical order are the labels from 0 on.
    crop_area: least and largest area of a random crop, as a fraction of the image.
    crop_aspect: least and largest ratio of its width to its height.
    randaugment_layers: operations of RandAugment on each image (Cubuk et al., 2020); 0 for none.
    randaugment_magnitude: their strength, from 0 to 10.
    mixup_alpha: a training batch is mixed with itself, rolled by one image; the weight is from
      Beta(alpha, alpha) (Zhang et al., 2018). Its targets are then probabilities. 0 mixes nothing.
  """

  image_size: int = 224
  resize_size: int = 256
  num_classes: int = 1000
  crop_area: tuple[float, float] = (0.08, 1.0)
  crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
  randaugment_layers: int = 0
  randaugment_magnitude: int = 10
  mixup_alpha: float = 0.0

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of an input."""
    return self.image_size, self.image_size, 3


@dataclass(frozen=True, kw_only=True)
class SmallPhotographs:
  """Photographs of one size, held as pixels, cropped and flipped at random in training.

  A crop is of the size of the image, out of the image with a border of zeros around it (He et al.,
  2016). The last images of the training files are validation. Normalization is that of
  `Photographs`, by figures of pixels from 0 to 255. Those of AlgoPerf are of pixels from 0 to 1, to
  which it scales the pixels first.

  Attributes:
    batch_sha1s: SHA-1 of each 10,000 images in the binary form of CIFAR-10, the training files
      first. A set of other pixels, or in another order, is another data set.
    image_size: height and width, in pixels.
    num_classes: number of classes.
    padding: width of the border on each side, in pixels.
  """

  batch_sha1s: tuple[str, ...]
  image_size: int = 32
  num_classes: int = 10
  padding: int = 4

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of an input."""
    return self.image_size, self.image_size, 3


CIFAR10 = SmallPhotographs(
  batch_sha1s=(
    'aadd24acce27caa71bf4b10992e9e7b2d74c2540',
    'c0ba65cce70568cd57b4e03e9ac8d2a5367c1795',
    '1dd00a74ab1d17a6e7d73e185b69dbf31242f295',
    'aab85764eb3584312d3c7f65fd2fd016e36a258e',
    '26e2849e66a845b7f1e4614ae70f4889ae604628',
    '67eb016db431130d61cd03c7ad570b013799c88c',
  )
)
"""The pixels of A. Krizhevsky's files, in their order."""

CIFAR10_JPEG = SmallPhotographs(
  batch_sha1s=(
    '19152c40eb52759e5c502d439ee226803f5d140c',
    '4468b303c67d96a3a287f6150ea99f6527adebb2',
    'cca7fea6c4701a1c1868258ea1584ebf3f40fb6c',
    '92bdc2aece644bdde4080a9bec174c8293a9f244',
    '098d0c61bb378c0628a1fcbc2953ddc8243ecb08',
    'c502e46bed6327fe470a8b6ebda5e318b2ea1b93',
  )
)
"""Images decoded from a shuffled set that is coded as JPEG: parquet files of 10,000 rows."""
