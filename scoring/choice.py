"""Which suite and ruleset a set of runs is scored by, if the caller does not say."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import Ruleset, Suite
from scoring import published
from scoring.axis import Axis
from scoring.runs import Runs, TrialFiles

if TYPE_CHECKING:
  import pandas as pd


def _file(suite: str, trials: Iterable[TrialFiles]) -> str:
  """The file of a suite of the user's own, where the runs say that it lies.

  Raises:
    UserError: it is not there, or holds another suite by now.
  """
  files = sorted({trial.suite_file for trial in trials if trial.suite_file})
  for file in files:
    if os.path.isfile(file) and registry.suite(file).name == suite:
      return file
  place = f' It was {", ".join(files)}, where it is no more.' if files else ''
  raise errors.UserError(
    f'The runs are those of the suite {suite!r}, which is not known here.{place} Give its file '
    'with --suite FILE.toml.'
  )


def raced_workloads(runs: Runs | None, suite: Suite, *, allow_provisional: bool) -> tuple[str, ...]:
  """The workloads of a suite that the races of these runs have chosen, as far as they are scored.

  Returns:
    Names, sorted; empty where a race has chosen none, or was of another suite.
  """
  selections = runs.selections if runs is not None else ()
  names: set[str] = set()
  for one in selections:
    if one is None or one.workloads is None or one.suite != suite.name:
      return ()
    names.update(one.workloads)
  members = registry.members(suite.name)
  return tuple(
    sorted(
      name
      for name in names & members.keys()
      if allow_provisional or not members[name].target.provisional
    )
  )


def raced_axis(runs: Runs | None, suite: Suite) -> Axis | None:
  """The axis that the races of these runs have chosen; None for that of the suite."""
  selections = runs.selections if runs is not None else ()
  plain = [one is not None and one.plain_steps and one.suite == suite.name for one in selections]
  return 'plain_steps' if plain and all(plain) else None


def suite_and_ruleset(
  frame: pd.DataFrame,
  suite: str | None,
  ruleset: Ruleset | None,
  *,
  against: str | None = None,
) -> tuple[str, Ruleset]:
  """The name of what was asked for, which may be a file, else what all runs say.

  Args:
    against: a published set, whose suite counts where none is given.

  Raises:
    UserError: there is no such set, or no suite is given and the runs say none or several.
  """
  if suite is None and against is not None:
    suite = published.suite_of(against)
  runs = frame.attrs.get('runs')
  trials = runs.trials if isinstance(runs, Runs) else ()
  suites = sorted({trial.suite for trial in trials if trial.suite})
  if suite is None:
    if len(suites) != 1:
      found = f'several: {", ".join(suites)}' if suites else 'none'
      raise errors.UserError(
        f'The runs do not tell one suite (they say {found}); give it with --suite, one of '
        f'{", ".join(registry.suites())}.'
      )
    suite = suites[0] if suites[0] in registry.suites() else _file(suites[0], trials)
  suite = registry.suite(suite).name
  if ruleset is None:
    rulesets = {t.ruleset for t in trials if t.ruleset and t.suite == suite}
    ruleset = 'self' if rulesets == {'self'} else 'external'
  return suite, ruleset
