"""The data of ImageNet."""

from workloads.vision.photographs_data import (
  about,
  collate,
  fake_batch,
  mix_batch,
  prepare,
  source,
  transform,
)

__all__ = ['about', 'collate', 'fake_batch', 'mix_batch', 'prepare', 'source', 'transform']
