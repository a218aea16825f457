"""Image classification: every workload and variant of this task."""

from __future__ import annotations

from .imagenet import WORKLOADS as _IMAGENET

WORKLOADS = {**_IMAGENET}
