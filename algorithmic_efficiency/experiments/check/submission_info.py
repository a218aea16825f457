"""Reads `submission_info.yml`, which AlgoPerf wants beside a submission.

AlgoPerf's launcher takes framework and ruleset from it, and its leaderboard the other fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark.check_rules import Finding
from algorithmic_efficiency.results import files

FILE = 'submission_info.yml'
FIELDS = (
  *('submission_name', 'submission_folder', 'authors', 'affiliations'),
  *('ruleset', 'framework', 'description'),
)
# Words of which a field must hold one; upper and lower case are the same.
_WORDS = {'ruleset': ('external', 'self'), 'framework': ('jax', 'pytorch')}


def findings(path: Path) -> list[Finding]:
  """What is wrong with the file; nothing if there is none, which our races do not need."""
  if not path.exists():
    return []
  try:
    texts = list(_faults(_read(path)))
  except errors.UserError as error:
    texts = [str(error)]
  return [Finding(kind='info', text=' '.join(texts), file=str(path), line=1)] if texts else []


def _read(path: Path) -> Any:
  import yaml

  try:
    return yaml.safe_load(files.read_bytes(path))
  except OSError as error:
    raise errors.UserError(f'It cannot be read: {error.strerror}.') from None
  except (yaml.YAMLError, ValueError, RecursionError) as error:
    mark = getattr(error, 'problem_mark', None)
    where = f' (line {mark.line + 1})' if mark else ''
    what = getattr(error, 'problem', None) or str(error) or 'it is nested too deeply'
    raise errors.UserError(f'It is no YAML: {what}{where}.') from None


def _faults(content: Any) -> Iterator[str]:
  if not isinstance(content, dict):
    yield f'It must give a value to each field; its content is of type {type(content).__name__}.'
    return
  # Other values than these can be too large to be shown.
  plain = {
    name: content[name] for name in FIELDS if isinstance(content.get(name), (str, int, float))
  }
  missing = [name for name in FIELDS if not str(plain.get(name, '')).strip()]
  if missing:
    yield f'It lacks the text of {", ".join(missing)}.'
  for name in sorted(_WORDS.keys() - set(missing)):
    if not any(word in str(plain[name]).lower() for word in _WORDS[name]):
      yield f'{name} must be {" or ".join(_WORDS[name])}; it is {errors.shown(plain[name])}.'
