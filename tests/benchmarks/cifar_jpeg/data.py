"""The images of `workloads.vision`."""

from workloads.vision.small_photographs_data import about, fake_batch, loader, prepare

__all__ = ['about', 'fake_batch', 'loader', 'prepare']
