"""Writes the outcomes of published logs: python -m scoring.published LOGS SUITE RULESET."""

from __future__ import annotations

import sys

from scoring.load import load
from scoring.published import COLUMNS, file_of
from scoring.rules import resolve
from scoring.time_to_target import outcomes


def main() -> None:
  logs, suite, ruleset = sys.argv[1:]
  rules = resolve(suite, ruleset=ruleset)  # type: ignore[arg-type]
  table = outcomes(load(logs), rules)
  texts = sorted(set(table.hyperparameters) - {''})
  index = {text: position for position, text in enumerate(texts)}
  table['point'] = [index.get(text, -1) for text in table.hyperparameters]
  points = '[\n' + ',\n'.join(texts) + '\n]\n'
  file_of(suite, ruleset).with_suffix('.json').write_text(points)
  table[list(COLUMNS)].to_csv(file_of(suite, ruleset), index=False)


if __name__ == '__main__':
  main()
