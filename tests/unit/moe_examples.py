"""Definitions of multimodal questions for tests, and a plain reference of their batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithmic_efficiency.benchmark.definition import (
  BatchSizes,
  Budget,
  Probe,
  Smoke,
  Splits,
  Target,
  WorkloadDefinition,
)
from algorithmic_efficiency.spec import LossType
from workloads.multimodal_moe import words
from workloads.multimodal_moe.data_records import AUDIO, IMAGE, TEXT, DigitQuestions


@dataclass(frozen=True, kw_only=True)
class NoModel:
  capacity_factor: float | None = None


def definition(data: Any = None, splits: Splits | None = None, **changes: Any) -> Any:
  """A definition with this data record, by default that of images of digits."""
  data = DigitQuestions() if data is None else data
  settings = {
    'name': 'questions',
    'task': 'multimodal_moe',
    'summary': 'Questions',
    'dataset': 'digit_questions',
    'bundled': True,
    'model': NoModel(),
    'data': data,
    'loss_type': LossType.SOFTMAX_CROSS_ENTROPY,
    'metrics': ('accuracy', 'loss'),
    'target': Target(metric='accuracy', direction='max', validation=0.9, provisional=True),
    'suites': {'quick': Budget(step_hint=100, max_steps=100)},
    'splits': splits or Splits(train=1_200, eval_train=60, validation=120, test=121),
    'batch_sizes': BatchSizes(train=8, eval=16),
    'smoke': Smoke(model=NoModel()),
    'task_names': data.kinds,
    'probes': {'held_out_pairs': Probe(num_examples=60, metrics=('accuracy',), summary='Sums')},
  }
  return WorkloadDefinition(**{**settings, **changes})


def plain_rows(form: Any, examples: list[Any]) -> dict[str, np.ndarray]:
  """The batch of some rows, written position by position."""
  shape = (len(examples), form.row_length)
  batch = {
    name: np.zeros(shape, np.int32)
    for name in ('inputs', 'modality', 'targets', 'task', 'segments', 'positions')
  }
  batch['weights'] = np.zeros(shape, np.float32)
  batch['patches'] = np.zeros((*shape, form.patch_dim), np.uint8)
  batch['patch_positions'] = np.zeros((*shape, 2), np.int32)
  if form.has_audio:
    batch['frames'] = np.zeros((*shape, form.frames_dim), np.float32)
  for row, example in enumerate(examples):
    place = 0
    for number, one in enumerate(example.get('questions', (example,)), 1):
      text, patches = list(one['text']), list(one.get('patches', ()))
      frames, patch = list(one.get('frames', ())), 0
      length = len(one['modality'])
      answer = list(one['text'][-int(one['num_targets']) :])
      for position, modality in enumerate(one['modality']):
        at = (row, place)
        batch['modality'][at], batch['task'][at] = modality, one['task']
        batch['segments'][at], batch['positions'][at] = number, position
        if modality == TEXT:
          batch['inputs'][at] = text.pop(0)
        elif modality == IMAGE:
          batch['patches'][at] = patches.pop(0)
          batch['patch_positions'][at] = divmod(patch % form.num_patches, form.patches_per_side)
          patch += 1
        elif modality == AUDIO:
          batch['frames'][at] = frames.pop(0)
        if position >= length - int(one['num_targets']):
          batch['targets'][at], batch['weights'][at] = answer.pop(0), 1
        place += 1
      assert len(text) == 1 and not (patches or frames or answer)
  return batch


def spoken(tokens: Any) -> list[str]:
  return [words.WORDS[token] for token in tokens]
