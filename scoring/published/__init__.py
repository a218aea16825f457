"""Results that were published, for 'where would I stand?': the outcome of every trial, as data.

Made from the published logs by `python -m scoring.published LOGS SUITE RULESET`, which writes
`<suite>_<ruleset>.csv` and the points of the search spaces, `<suite>_<ruleset>.json`, beside this
file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from scoring.rules import ScoringRules

if TYPE_CHECKING:
  import pandas as pd

_FOLDER = Path(__file__).resolve().parent
COLUMNS = (
  *(
    'submission',
    'workload',
    'framework',
    'study',
    'trial',
    'status',
    'row',
    'step',
    'submission_time_sec',
  ),
  *(
    'best',
    'best_submission_time_sec',
    'step_sec',
    'total_step',
    'total_submission_time_sec',
    'eval_sec',
    'logging_sec',
  ),
  *('num_rows', 'point'),
)


def file_of(suite: str, ruleset: str) -> Path:
  return _FOLDER / f'{suite}_{ruleset}.csv'


def sets() -> list[str]:
  """The suites with published results."""
  return sorted({path.stem.rpartition('_')[0] for path in _FOLDER.glob('*.csv')})


def read(suite: str, ruleset: str) -> pd.DataFrame:
  """The outcomes of a published set, one row a trial.

  Raises:
    UserError: there is none.
  """
  import pandas as pd

  if suite not in sets():
    raise errors.unknown('published set', suite, sets())
  path = file_of(suite, ruleset)
  if not path.is_file():
    raise errors.UserError(f'No results of the {ruleset} ruleset of {suite} ship with the package.')
  # By Python: older pandas read some numbers one bit off, and equal times must stay equal.
  table = pd.read_csv(path, converters={'submission_time_sec': lambda text: float(text or 'nan')})
  points = json.loads(path.with_suffix('.json').read_text())
  texts = [json.dumps(point, sort_keys=True) for point in points]
  hyperparameters = ['' if index < 0 else texts[index] for index in table.pop('point')]
  unknown = dict.fromkeys(('path', 'stop_reason', 'host', 'machine', 'entry'), '')
  table = table.assign(**unknown, suite=suite, ruleset=ruleset)
  return table.assign(seed=None, batch_size=None, hyperparameters=hyperparameters)


def join(
  table: pd.DataFrame, suite: str, rules: ScoringRules
) -> tuple[pd.DataFrame, tuple[str, ...]]:
  """The outcomes with the published ones below them, and the names of the latter.

  Raises:
    UserError: there is no such set, or it was raced on another axis or by other rules.
  """
  import pandas as pd

  if suite not in sets():
    raise errors.unknown('published set', suite, sets())
  if suite != rules.suite.name or rules.axis != rules.suite.axis:
    raise errors.UserError(
      f'Published results stand only beside runs of the same suite and axis; score with '
      f'--suite {suite} on its own axis to compare against it.'
    )
  guests = read(suite, rules.ruleset)
  guests = guests[guests.workload.isin(list(rules.members))]
  own = set(table.submission)
  names = {name: f'{name} (published)' if name in own else name for name in set(guests.submission)}
  guests = guests.assign(submission=guests.submission.map(names))
  return pd.concat([table, guests], ignore_index=True), tuple(sorted(names.values()))
