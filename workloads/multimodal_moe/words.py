"""The words of questions about digits, and of their answers."""

from __future__ import annotations

START, END = '<start>', '<end>'

NUMBERS = (
  *('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'),
  *('eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen'),
)
ORDINALS = ('first', 'second', 'third')

WORDS = (
  *(START, END),
  *NUMBERS,
  *ORDINALS,
  *('and', 'equals', 'is', 'larger', 'matches', 'no', 'plus', 'reads', 'than', 'yes'),
)
