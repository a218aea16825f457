"""Stores the outcomes of logs or of a finished race as a set:

    python -m scoring.published RUNS SET RULESET [SUITE]

SUITE is the suite of the runs; without it, the set has the name of its suite.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from algorithmic_efficiency import errors
from scoring.load import load
from scoring.published import Origin, write
from scoring.rules import resolve
from scoring.runs import Runs
from scoring.time_to_target import outcomes


def main(argv: Sequence[str]) -> int:
  try:
    runs, name, ruleset, *suite = argv
  except ValueError:
    print(__doc__, file=sys.stderr)
    return 2
  try:
    frame = load(runs)
    rules = resolve(*(suite or [name]), ruleset=ruleset)  # type: ignore[arg-type]
    found = frame.attrs.get('runs')
    points = outcomes(frame, rules)
    costs = (
      tuple(one for one in found.costs if one.workload in rules.members)
      if isinstance(found, Runs)
      else ()
    )
    print(write(points, name, ruleset, Origin(suite=rules.suite.name, costs=costs)))
  except errors.UserError as error:
    print(error, file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
