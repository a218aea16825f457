"""The rules by which a set of runs is scored: a suite, its members, and what the caller changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.definition import WorkloadDefinition
from algorithmic_efficiency.benchmark.suites import (
  Integral,
  Ruleset,
  Suite,
  Tuning,
)
from scoring.axis import Axis
from scoring.notes import Note


@dataclass(frozen=True, kw_only=True)
class ScoringRules:
  """What a score is computed by; `changes` says in words where it departs from the suite."""

  suite: Suite
  ruleset: Ruleset
  axis: Axis
  integral: Integral
  members: Mapping[str, WorkloadDefinition]  # scored workloads and their held-out variants
  changes: tuple[str, ...]
  notes: tuple[Note, ...]

  @property
  def tuning(self) -> Tuning:
    return self.suite.rules_of(self.ruleset)

  @property
  def base(self) -> tuple[str, ...]:
    return tuple(name for name in self.members if name not in self.base_of)

  @property
  def base_of(self) -> dict[str, str]:
    """The base workload of each held-out one."""
    return {
      name: definition.base
      for name, definition in self.members.items()
      if self.suite.name in definition.suites
      and definition.suites[self.suite.name].role == 'held_out'
    }

  def budget_sec(self, workload: str) -> float | None:
    seconds = registry.budget(self.members[workload], self.suite.name).max_sec
    return None if seconds is None else seconds * self.tuning.budget_factor

  def budget_steps(self, workload: str) -> int | None:
    steps = registry.budget(self.members[workload], self.suite.name).max_steps
    return None if steps is None else int(steps * self.tuning.budget_factor)


def resolve(
  suite_name: str,
  *,
  ruleset: Ruleset = 'external',
  workloads: Sequence[str] | None = None,
  axis: Axis | None = None,
  integral: Integral | None = None,
  allow_provisional: bool = False,
) -> ScoringRules:
  """
  Raises:
    UserError: unknown suite or workload, or a suite of which nothing can be scored.
  """
  suite = registry.suite(suite_name)
  suite.rules_of(ruleset)
  notes: list[Note] = []
  members = _members(suite, allow_provisional, notes)
  changes = []
  if workloads:
    members = _chosen(suite, members, workloads)
    notes = [note for note in notes if note.where in workloads]
    noun = 'workload' if len(set(workloads)) == 1 else 'workloads'
    changes.append(f'only the {noun} {", ".join(sorted(set(workloads)))}')
  if axis is not None and axis != suite.axis:
    changes.append(f'the axis is {_described(axis)}, where the suite races in {suite.axis}')
  if integral is not None and integral != suite.integral:
    changes.append(f'the integral is {integral}, where the suite takes {suite.integral}')
  if any(definition.target.provisional for definition in members.values()):
    changes.append('targets that are provisional are scored: the result means little')
  if not any(d.suites[suite.name].role == 'base' for d in members.values()):
    raise errors.UserError(_nothing_to_score(suite, notes))
  return ScoringRules(
    suite=suite,
    ruleset=ruleset,
    axis=axis or suite.axis,
    integral=integral or suite.integral,
    members=dict(sorted(members.items())),
    changes=tuple(changes),
    notes=tuple(notes),
  )


def _described(axis: Axis) -> str:
  return (
    f'{axis}, on which a step counts as one, whatever it costs' if axis == 'plain_steps' else axis
  )


def _members(
  suite: Suite, allow_provisional: bool, notes: list[Note]
) -> dict[str, WorkloadDefinition]:
  members = {}
  for name, definition in registry.members(suite.name).items():
    if definition.target.provisional and not allow_provisional:
      notes.append(Note('provisional', name))
    elif suite.counts_only_runnable and not registry.is_runnable(definition):
      notes.append(Note('cannot_run', name))
    else:
      members[name] = definition
  return members


def _chosen(
  suite: Suite, members: Mapping[str, WorkloadDefinition], workloads: Sequence[str]
) -> dict[str, WorkloadDefinition]:
  for name in workloads:
    if name not in members:
      raise errors.unknown(f'scored workload of the suite {suite.name}', name, members)
  chosen = {name: members[name] for name in workloads}
  for name, definition in chosen.items():
    if definition.base not in chosen:
      raise errors.UserError(
        f'{name} is a held-out variant and scores only with its base; add {definition.base} to '
        '--workloads.'
      )
  return chosen


def _nothing_to_score(suite: Suite, notes: Sequence[Note]) -> str:
  provisional = [note.where for note in notes if note.kind == 'provisional']
  if provisional:
    return (
      f'A provisional target is never scored, and the suite {suite.name} has no other: '
      f'{", ".join(provisional)}. --allow_provisional scores it all the same, and says so.'
    )
  return f'The suite {suite.name} has no workload that can be scored yet.'
