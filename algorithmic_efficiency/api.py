"""The command line from Python, for notebooks.

from algorithmic_efficiency import api

[trial] = api.run('quick_vision', framework='jax', submission='nadamw', ruleset='self')
trial.rows().plot(x='global_step', y='validation/accuracy')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import measurements, trial_record
from algorithmic_efficiency.trial.options import with_options

if TYPE_CHECKING:
  import pandas as pd


@dataclass(frozen=True)
class Trial:
  """A trial folder: what became of the trial, and its rows."""

  folder: Path

  @property
  def record(self) -> trial_record.TrialRecord:
    """What became of the trial.

    Raises:
      UserError: the folder holds no trial.
    """
    record = trial_record.read_trial(self.folder)
    if record is None:
      raise errors.UserError(f'{self.folder} holds no trial.json.')
    return record

  def rows(self, kind: str = 'evals') -> pd.DataFrame:
    """One row an evaluation ('evals'), or one for each time the submission logged ('metrics')."""
    import pandas as pd

    if kind not in ('evals', 'metrics'):
      raise errors.unknown('kind of rows', kind, ('evals', 'metrics'))
    return pd.DataFrame(getattr(measurements.read(self.folder), kind))


def run(
  workload: str, *, framework: str, submission: str, quiet: bool = True, **options: Any
) -> list[Trial]:
  """Runs a submission on a workload, each trial in a process of its own, and gives the trials.

  Args:
    options: the fields of `request.Request`, such as ruleset, trials, studies, seed or smoke.

  Raises:
    UserError: a mistake of the caller.
  """
  from algorithmic_efficiency.launch import request, session

  registry.pin_own_packages()
  fields = {'workload': workload, 'framework': framework, 'submission': submission, **options}
  asked = with_options(request.Request, fields)
  outcomes = session.run_trials(request.configs(asked), quiet=quiet)
  return [Trial(outcome.folder) for outcome in outcomes]


def bench(
  suite: str,
  *,
  submissions: Sequence[str],
  frameworks: Sequence[str],
  retry_failed: bool = False,
  quiet: bool = True,
  **options: Any,
) -> list[Trial]:
  """Runs a race as `algoeff bench` does, without scoring it, and gives all its trials.

  Args:
    suite: a name, or a TOML file.
    submissions: names, folders or module files; 'NAME=SUBMISSION' is scored as NAME.
    retry_failed: whether trials that failed by their own fault, or are invalid, are run again.
    options: further fields of `experiments.race.race.Race`, such as ruleset, studies or seed.

  Raises:
    UserError: a mistake of the caller; nothing was started.
  """
  from algorithmic_efficiency.experiments.race import race
  from algorithmic_efficiency.experiments.race import run as race_run

  registry.pin_own_packages()
  for name, value in (('submissions', submissions), ('frameworks', frameworks)):
    if isinstance(value, str):  # a list of letters, by its type
      raise errors.UserError(f'{name} must be a list of names; it is the text {value!r}.')
  fields = {
    'suite': suite,
    'entries': tuple(map(race.RaceSubmission.parse, submissions)),
    'frameworks': tuple(frameworks),
    **options,
  }
  asked = with_options(race.Race, fields)
  result = race_run.run(asked, retry_failed=retry_failed, quiet=quiet)
  return [Trial(config.path) for config in result.configs]


def trials(folder: str | Path) -> list[Trial]:
  """Every trial below a folder, in order: trial_10 comes after trial_9.

  Raises:
    UserError: there is no such folder.
  """
  if not Path(folder).is_dir():
    raise errors.UserError(f'Trials are read from a folder; {folder} is none.')
  from scoring.layout import natural

  paths = [path.parent for path in Path(folder).rglob(trial_record.TRIAL_FILE)]
  shown = [path for path in paths if not path.name.startswith('.')]
  return [Trial(path) for path in sorted(shown, key=lambda path: natural(str(path)))]
