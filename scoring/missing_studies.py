"""Finds studies of a race that were run or planned and are not there any more.

AlgoPerf takes the median over a fixed number of studies. Without its worst study a submission would
have a better median, so a study that is missing counts as a miss. A race runs the same studies of
all submissions. So a study of a workload that one submission has, and another lacks, is missing.
Records tell of others: costs that were measured in a study, and the trials of the cost estimate.
Runs of one race lie in one folder and have one root seed. Other runs, such as AlgoPerf's logs, may
have different numbers of studies: a note names the studies of whoever has another number than the
rules say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from algorithmic_efficiency.results import race_files
from scoring.layout import STUDY
from scoring.notes import Note
from scoring.runs import TrialFiles

_Cell = tuple[str, str, str]  # submission, workload, framework


@dataclass
class _Race:
  """The recorded trials of one root seed in the folder of a race, by cell."""

  cells: dict[_Cell, list[TrialFiles]] = field(default_factory=dict)

  @property
  def num_trials(self) -> int:
    """The number of trials of a study, as far as it can be seen."""
    return max(_number(one.trial) for trials in self.cells.values() for one in trials)

  def of_workload(self, workload: str) -> Iterator[TrialFiles]:
    for (_, name, _), trials in self.cells.items():
      if name == workload:
        yield from trials


def find(
  trials: Iterable[TrialFiles], race_of: Callable[[str], Path], notes: list[Note]
) -> list[TrialFiles]:
  """Returns a trial without evaluations for each study that is missing, and notes them."""
  races: dict[tuple[Path, int], _Race] = {}
  for one in trials:
    if STUDY.match(one.study) and one.root_seed is not None:
      race = races.setdefault((race_of(one.path), one.root_seed), _Race())
      race.cells.setdefault((one.submission, one.workload, one.framework), []).append(one)
  found = []
  for (folder, _), race in sorted(races.items()):
    recorded = _recorded(folder, race.num_trials)
    for cell, present in race.cells.items():
      missing = _missing(race, cell, present, recorded)
      if missing:
        names = ', '.join(Path(one.path).parts[-3] for one in missing)
        submission, workload, framework = cell
        where = f'{submission}, {workload} ({framework})'
        notes.append(Note('missing_study', where, f'{names} of {folder}'))
        found += missing
  return found


def _missing(
  race: _Race, cell: _Cell, present: list[TrialFiles], recorded: Mapping[_Cell, set[int]]
) -> list[TrialFiles]:
  submission, workload, framework = cell
  there = {_number(one.study) for one in present}
  seeds = {_number(one.study): one.seed for one in race.of_workload(workload)}
  names = {submission, *(one.entry for one in present)}
  expected = set(seeds).union(*(recorded.get((name, workload, framework), ()) for name in names))
  return [
    TrialFiles(
      submission=submission,
      study=f'study_{study}',
      workload=workload,
      framework=framework,
      trial='trial_1',
      path=str(_folder(present[0], study)),
      status='missing_study',
      entry=present[0].entry,
      suite=present[0].suite,
      ruleset=present[0].ruleset,
      host=present[0].host,
      machine=present[0].machine,
      root_seed=present[0].root_seed,
      seed=seeds.get(study),
    )
    for study in sorted(expected - there)
  ]


def _folder(sibling: TrialFiles, study: int) -> Path:
  """Where the first trial of a study would lie, beside a trial of another study."""
  trial = Path(sibling.path)
  return trial.parents[2] / f'study_{study}' / trial.parent.name / 'trial_1'


def _recorded(race: Path, num_trials: int) -> dict[_Cell, set[int]]:
  """The studies of each cell that the records of a race tell of."""
  found: dict[_Cell, set[int]] = {}
  for cost in race_files.read_costs(race):
    found.setdefault((cost.submission, cost.workload, cost.framework), set()).add(cost.study)
  for one in race_files.read_estimate(race):
    cell = (one.submission, one.workload, one.framework)
    found.setdefault(cell, set()).update(range(1, one.num_trials // num_trials + 1))
  return found


def _number(name: str) -> int:
  """The number in the name of a study or a trial."""
  return int(re.findall('[0-9]+', name)[0])
