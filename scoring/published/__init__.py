"""Results that are stored as data, for 'where would I stand?': the outcome of every trial of a set.

A set is of one suite and ruleset: `<set>_<ruleset>.csv` beside this file has a row for each trial.
`<set>_<ruleset>.json` has the suite, the points of search spaces, and what steps cost. Both are
made from logs or runs by `python -m scoring.published`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import schema
from algorithmic_efficiency.results.race_files import StepCost
from scoring.rules import ScoringRules

if TYPE_CHECKING:
  import pandas as pd

_FOLDER = Path(__file__).resolve().parent
COLUMNS = (
  *('submission', 'workload', 'framework', 'study', 'trial', 'status', 'row', 'step'),
  *('submission_time_sec', 'best', 'best_submission_time_sec', 'step_sec', 'total_step'),
  *('total_submission_time_sec', 'eval_sec', 'logging_sec', 'num_rows', 'point'),
)
FACTS: Mapping[str, Any] = {
  **dict.fromkeys(('stop_reason', 'host', 'machine', 'entry', 'definition_hash'), ''),
  **dict.fromkeys(('suite_hash', 'submission_hash'), ''),
  **dict.fromkeys(('seed', 'batch_size'), None),
}
"""What our own runs say besides, and what stands for it where logs do not say it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
  """What belongs to a set besides its trials.

  Attributes:
    suite: the name of the suite.
    points: the points of search spaces, to which the trials refer by index.
    costs: the costs of steps, as measured in the race; empty for a set that was not raced in them.
  """

  suite: str
  points: tuple[Mapping[str, Any], ...] = ()
  costs: tuple[StepCost, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Joined:
  """Outcomes with those of a set below them.

  Attributes:
    table: a row for each trial.
    guests: the names of the submissions of the set.
    costs: the costs of their steps.
  """

  table: pd.DataFrame
  guests: tuple[str, ...]
  costs: tuple[StepCost, ...]


def file_of(name: str, ruleset: str) -> Path:
  return _FOLDER / f'{name}_{ruleset}.csv'


def sets() -> list[str]:
  """The names of all sets."""
  return sorted({_set_of(path) for path in _FOLDER.glob('*.csv')})


def _set_of(file: Path) -> str:
  return file.stem.rpartition('_')[0]


def suite_of(name: str) -> str:
  """The suite of a set.

  Raises:
    UserError: there is no such set.
  """
  if name not in sets():
    raise errors.unknown('published set', name, sets())
  return _origin(min(_files_of(name))).suite


def _files_of(name: str) -> list[Path]:
  """Those of its rulesets."""
  return [path for path in _FOLDER.glob('*.csv') if _set_of(path) == name]


def _origin(file: Path) -> Origin:
  return schema.convert(json.loads(file.with_suffix('.json').read_text()), Origin)


def write(table: pd.DataFrame, name: str, ruleset: str, origin: Origin) -> Path:
  """Stores the outcomes of a set, and returns the file of its trials.

  Raises:
    UserError: the name is no plain one, or trials are of other definitions or rules than those of
      today.
  """
  if not re.fullmatch('[a-z0-9_]+', name):
    raise errors.UserError(
      f'The name of a set is of small letters, digits and _; it is {errors.shown(name)}.'
    )
  altered = table.status.isin(('other_suite', 'altered_suite', 'altered_workload'))
  if altered.any():
    raise errors.UserError(
      f'A set holds runs by the rules and definitions of today; {table.path[altered].iloc[0]} is '
      f'{table.status[altered].iloc[0].replace("_", " ")}.'
    )
  texts = sorted(set(table.hyperparameters) - {''})
  index = {text: position for position, text in enumerate(texts)}
  table = table.assign(point=[index.get(text, -1) for text in table.hyperparameters])
  known = [fact for fact, unknown in FACTS.items() if not table[fact].isin([unknown, None]).all()]
  path = file_of(name, ruleset)
  table[[*COLUMNS, *known]].to_csv(path, index=False)
  points = ',\n'.join(texts)
  costs = ',\n'.join(json.dumps(dataclasses.asdict(cost)) for cost in origin.costs)
  path.with_suffix('.json').write_text(
    f'{{"suite": {json.dumps(origin.suite)},\n"costs": [\n{costs}\n],\n"points": [\n{points}\n]}}\n'
  )
  return path


def read(name: str, ruleset: str) -> pd.DataFrame:
  """The outcomes of a set, one row a trial.

  The host of a trial has the name of the set in it, so that no run of others is on the same one.

  Raises:
    UserError: there is none.
  """
  import pandas as pd

  suite = suite_of(name)
  path = file_of(name, ruleset)
  if not path.is_file():
    others = [one.stem.removeprefix(f'{name}_') for one in sorted(_files_of(name))]
    raise errors.UserError(
      f'{name} has results of the ruleset {" and ".join(others)}, and none of {ruleset}. Run with '
      f'--ruleset {others[0]} to stand beside them.'
    )
  # By Python: older pandas read some numbers one bit off, and equal times must stay equal.
  table = pd.read_csv(
    path,
    converters={
      'submission_time_sec': lambda text: float(text or 'nan'),
      **{
        fact: str for fact, unknown in FACTS.items() if unknown == ''
      },  # hashes may be digits alone
      'seed': lambda text: int(text) if text else None,
    },
  )
  texts = [json.dumps(point, sort_keys=True) for point in _origin(path).points]
  hyperparameters = ['' if index < 0 else texts[index] for index in table.pop('point')]
  table = table.assign(**{fact: value for fact, value in FACTS.items() if fact not in table})
  table = table.assign(host=[_host(host, name) for host in table.host])
  table = table.assign(path='', suite=suite, ruleset=ruleset)
  return table.assign(hyperparameters=hyperparameters)


def _host(host: str, name: str) -> str:
  return f'{host} of {name}' if host else ''


def join(table: pd.DataFrame, name: str, rules: ScoringRules) -> Joined:
  """The outcomes with those of a set below them.

  Raises:
    UserError: there is no such set, or it was raced on another axis, by other rules, or on other
      definitions.
  """
  import pandas as pd

  suite = suite_of(name)
  is_weighed = rules.suite.axis == 'cost_adjusted_steps'
  axes = (rules.suite.axis, *(['plain_steps'] if is_weighed else []))
  if suite != rules.suite.name or rules.axis not in axes:
    raise errors.UserError(
      f'Published results stand only beside runs of the same suite and axis; score with '
      f'--suite {suite} on its own axis to compare against it.'
    )
  guests = read(name, rules.ruleset)
  guests = guests[guests.workload.isin(list(rules.members))]
  _check_rules(guests, name, rules)
  own = set(table.submission)
  names = {one: f'{one} (published)' if one in own else one for one in set(guests.submission)}
  guests = guests.assign(submission=guests.submission.map(names))
  costs = tuple(
    dataclasses.replace(cost, host=_host(cost.host, name))
    for cost in _origin(file_of(name, rules.ruleset)).costs
  )
  return Joined(
    table=pd.concat([table, guests], ignore_index=True),
    guests=tuple(sorted(names.values())),
    costs=costs,
  )


def _check_rules(guests: pd.DataFrame, name: str, rules: ScoringRules) -> None:
  """Makes sure that the trials of a set were run by the rules and definitions of today.

  Raises:
    UserError: one was not.
  """
  hashes = {one: definition.content_hash() for one, definition in rules.members.items()}
  now = guests.workload.map(hashes)
  altered = guests.workload[(guests.definition_hash != '') & (guests.definition_hash != now)]
  if len(altered):
    raise errors.UserError(
      f'{name} was raced on other definitions of {", ".join(sorted(set(altered)))} than those of '
      'today, so that its times say nothing beside yours. Leave out --against, or name other '
      '--workloads.'
    )
  if not guests.suite_hash.isin(('', rules.suite.rules_hash(rules.ruleset))).all():
    raise errors.UserError(
      f'{name} was raced by other rules of the suite {rules.suite.name} than those of today. Leave '
      'out --against.'
    )


def check_units(table: pd.DataFrame, name: str) -> None:
  """Makes sure that steps of a set and of the runs beside it have their costs in one unit.

  Args:
    table: joined outcomes, with what steps cost.

  Raises:
    UserError: they have none on a workload.
  """
  plain = sorted(set(table.workload[table.cost_basis == 'plain']))
  if plain:
    raise errors.UserError(
      f'The steps of {name} are weighed by those of a baseline, which was not timed beside yours '
      f'on {", ".join(plain)}. Race with `algoeff bench`, which times it, or compare plain steps '
      'with --axis plain_steps.'
    )
