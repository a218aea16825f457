"""Checks `submission_info.yml`, which AlgoPerf wants beside a submission."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.check_rules import Finding
from algorithmic_efficiency.results import submission_info
from algorithmic_efficiency.results.submission_info import REQUIRED

# Words of which a field must hold one; upper and lower case are the same.
_WORDS = {'ruleset': ('external', 'self'), 'framework': ('jax', 'pytorch')}


def findings(path: Path) -> list[Finding]:
  """What is wrong with the file; nothing if there is none, which our races do not need."""
  if not path.exists():
    return []
  try:
    texts = list(_faults(submission_info.read(path)))
  except errors.UserError as error:
    texts = [str(error)]
  return [Finding(kind='info', text=' '.join(texts), file=str(path), line=1)] if texts else []


def _faults(content: Any) -> Iterator[str]:
  if not isinstance(content, dict):
    yield f'It must give a value to each field; its content is of type {type(content).__name__}.'
    return
  # Other values than these can be too large to be shown.
  plain = {
    name: content[name] for name in REQUIRED if isinstance(content.get(name), (str, int, float))
  }
  missing = [name for name in REQUIRED if not str(plain.get(name, '')).strip()]
  if missing:
    yield f'It lacks the text of {", ".join(missing)}.'
  for name in sorted(_WORDS.keys() - set(missing)):
    if not any(word in str(plain[name]).lower() for word in _WORDS[name]):
      yield f'{name} must be {" or ".join(_WORDS[name])}; it is {errors.shown(plain[name])}.'
