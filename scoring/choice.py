"""Which suite and ruleset a set of runs is scored by, if the caller does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from algorithmic_efficiency import errors
from algorithmic_efficiency.suites import SUITES, Ruleset
from scoring.load import Runs

if TYPE_CHECKING:
  import pandas as pd


def suite_and_ruleset(
  frame: pd.DataFrame, suite: str | None, ruleset: Ruleset | None
) -> tuple[str, Ruleset]:
  """What was asked for, else what all runs say.

  Raises:
    UserError: no suite is given and the runs say none or several.
  """
  runs = frame.attrs.get('runs')
  trials = runs.trials if isinstance(runs, Runs) else ()
  suites = sorted({trial.suite for trial in trials if trial.suite})
  if suite is None:
    if len(suites) != 1:
      found = f'several: {", ".join(suites)}' if suites else 'none'
      raise errors.UserError(
        f'The runs do not tell one suite (they say {found}); give it with --suite, one of '
        f'{", ".join(SUITES)}.'
      )
    suite = suites[0]
  if ruleset is None:
    rulesets = {t.ruleset for t in trials if t.ruleset and t.suite == suite}
    ruleset = 'self' if rulesets == {'self'} else 'external'
  return suite, ruleset
