"""RULES.md has the figures of the definitions."""

from __future__ import annotations

import rules_figures


def test_the_tables_of_the_rules_are_up_to_date():
  text = rules_figures.RULES.read_text()
  assert rules_figures.updated(text) == text, 'run `make rules`'


def test_every_figure_is_replaced():
  text = rules_figures.RULES.read_text()
  assert rules_figures.updated(text.replace('| 5 x 5 |', '| 6 x 5 |')) == text
