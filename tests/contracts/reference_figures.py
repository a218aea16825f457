"""Reads the `reference_figures.json` of a task: what published models of its workloads look like.

It maps the name of a workload to its figures. Each figure may be left out, but for the source.
"""

from __future__ import annotations

import json
from typing import Literal

import msgspec

from algorithmic_efficiency.benchmark.task_folder import Task

FILE = 'reference_figures.json'


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
  """The figures of a workload.

  Attributes:
    source: where they come from.
    num_parameters: number of parameters, tied ones counted once.
    parameters: shape of each parameter by its name, by framework.
    state: shape of each array of the model state by its name, by framework.
  """

  source: str
  num_parameters: int | None = None
  parameters: dict[Literal['jax', 'pytorch'], dict[str, tuple[int, ...]]] = {}
  state: dict[Literal['jax', 'pytorch'], dict[str, tuple[int, ...]]] = {}


def read(task: Task) -> dict[str, Figures]:
  """Returns the figures of the workloads of a task by name; none if it has no such file.

  Raises:
    ValueError: the file names a workload that the task does not have, or has another form.
  """
  path = task.folder / FILE
  if not path.exists():
    return {}
  content = json.loads(path.read_text())
  unknown = sorted(set(content) - set(task.module('definition').WORKLOADS))
  if unknown:
    raise ValueError(f'{path} must name workloads of its task; {unknown[0]!r} is none.')
  return {name: _figures(value, f'{path}, {name}') for name, value in content.items()}


def _figures(value: object, place: str) -> Figures:
  try:
    return msgspec.convert(value, Figures)
  except msgspec.ValidationError as error:
    raise ValueError(f'{place}: {error}') from None
