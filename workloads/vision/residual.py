"""The convolutions of a residual network, as both frameworks build them."""

from __future__ import annotations

from dataclasses import dataclass

from .imagenet import ResNet

# What flax calls the blocks.
JAX_NAMES = {'basic': 'ResNetBlock', 'bottleneck': 'BottleneckResNetBlock'}

# A bottleneck block ends with this many times the channels of its 3x3 convolution.
_EXPANSION = {'basic': 1, 'bottleneck': 4}


@dataclass(frozen=True)
class Conv:
  """A square convolution that is padded so that stride 1 keeps the size of an image.

  Attributes:
    size: height and width of the kernel, which are odd.
  """

  in_channels: int
  out_channels: int
  size: int
  stride: int = 1

  @property
  def padding(self) -> int:
    """Zeros on each side; also with stride 2, where SAME would pad one side alone."""
    return self.size // 2


@dataclass(frozen=True)
class Block:
  """The convolutions of a residual block, and the projection of its input, if it needs one."""

  convs: tuple[Conv, ...]
  projection: Conv | None


def stem(config: ResNet) -> Conv:
  """Returns the first convolution, of images with three channels."""
  size, stride = {'imagenet': (7, 2), 'small': (3, 1)}[config.stem]
  return Conv(3, config.num_filters, size, stride)


def stages(config: ResNet) -> list[list[Block]]:
  """Returns the blocks by stage; the first block of each but the first stage halves the image."""
  found: list[list[Block]] = []
  in_channels = config.num_filters
  for index, num_blocks in enumerate(config.stage_sizes):
    channels = config.num_filters * 2**index
    out_channels = channels * _EXPANSION[config.block]
    found.append([])
    for number in range(num_blocks):
      stride = 2 if index > 0 and number == 0 else 1
      has_projection = stride > 1 or in_channels != out_channels
      projection = Conv(in_channels, out_channels, 1, stride) if has_projection else None
      found[-1].append(Block(_convs(config.block, in_channels, channels, stride), projection))
      in_channels = out_channels
  return found


def out_channels(config: ResNet) -> int:
  """Returns the channels of the last stage."""
  return config.num_filters * 2 ** (len(config.stage_sizes) - 1) * _EXPANSION[config.block]


def _convs(kind: str, in_channels: int, channels: int, stride: int) -> tuple[Conv, ...]:
  if kind == 'basic':
    return Conv(in_channels, channels, 3, stride), Conv(channels, channels, 3)
  return (
    Conv(in_channels, channels, 1),
    Conv(channels, channels, 3, stride),
    Conv(channels, channels * _EXPANSION[kind], 1),
  )
