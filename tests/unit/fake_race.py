"""Races of trials that train nothing (`fake_worker`), started here or in a process of their own:
`python fake_race.py FIELDS`, the fields of `entries` as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_worker import SESSIONS_FILE

from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission
from algorithmic_efficiency.launch import local
from algorithmic_efficiency.launch.session import interrupted_when_terminated
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.trial.run_options import with_options

WORKER = (sys.executable, '-P', str(Path(__file__).with_name('fake_worker.py')))


def race(folder: Path, scripts: Mapping[str, Mapping[str, Any]], **changes: Any) -> Race:
  """A race of fake submissions, by name; `folder` gets their files, and the runs in `runs/`."""
  entries = []
  for name, script in scripts.items():
    file = folder / f'{name}.py'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(script))
    entries.append(RaceSubmission(submission=str(file)))
  fields: dict[str, Any] = {
    'suite': 'quick',
    'entries': tuple(entries),
    'frameworks': ('jax',),
    'workloads': ('quick_vision',),
    'ruleset': 'self',
    'studies': 2,
    'seed': 1,
    'smoke': True,
    'experiment_dir': str(folder / 'runs'),
    **changes,
  }
  if 'slurm' in changes:
    given = changes['slurm']
    fields['slurm'] = SlurmOptions(**given | {'sbatch': tuple(given.get('sbatch', ()))})
  return with_options(Race, fields)


@dataclass(frozen=True)
class Session:
  """A process of a trial that was started."""

  pid: int
  cpus: tuple[int, ...]
  trial: Path


def sessions(folder: Path) -> list[Session]:
  """The processes of the trials of a race in `folder`, in the order of their starts."""
  path = folder / SESSIONS_FILE
  lines = path.read_text().splitlines() if path.exists() else []
  found = []
  for pid, cpus, trial in (line.split(' ', 2) for line in lines):
    found.append(Session(int(pid), tuple(map(int, cpus.split(','))), Path(trial)))
  return found


def main(folder: str, scripts: str, changes: str) -> int:
  local.WORKER = WORKER
  asked = race(Path(folder), json.loads(scripts), **json.loads(changes))
  with interrupted_when_terminated():
    result = race_run.run(asked, quiet='slurm' not in json.loads(changes))
  return int(any(outcome.status != 'finished' for outcome in result.outcomes))


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
