"""RULES.md and README.md have the figures of the definitions."""

from __future__ import annotations

import pytest
import rules_figures


@pytest.mark.parametrize('page', rules_figures.TABLES)
def test_the_tables_of_a_page_are_up_to_date(page: str):
  text = (rules_figures.ROOT / page).read_text()
  assert rules_figures.updated(page, text) == text, 'run `make rules`'


@pytest.mark.parametrize(
  ('page', 'figure', 'other'),
  [('RULES.md', '| 5 x 5 |', '| 6 x 5 |'), ('README.md', '`quick_vision`', '`quick_audio`')],
)
def test_every_figure_is_replaced(page: str, figure: str, other: str):
  text = (rules_figures.ROOT / page).read_text()
  start = text.index('<!-- ')
  stale = text[:start] + text[start:].replace(figure, other)
  assert stale != text
  assert rules_figures.updated(page, stale) == text
