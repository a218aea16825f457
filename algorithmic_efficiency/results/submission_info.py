"""Reads `submission_info.yml`, which AlgoPerf wants beside a submission.

AlgoPerf's launcher takes framework and ruleset from it, and its leaderboard the other fields.
Trials keep the file's facts in their records, so that a board can show them wherever the runs go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.results import files

FILE = 'submission_info.yml'
REQUIRED = (
  *('submission_name', 'submission_folder', 'authors', 'affiliations'),
  *('ruleset', 'framework', 'description'),
)
_SHOWN = ('authors', 'affiliations', 'framework', 'description', 'version', 'date', 'paper')
_LONGEST = 1_000  # characters of a fact


def read(path: Path) -> Any:
  """The content of the file.

  Raises:
    UserError: it cannot be read, or is no YAML.
  """
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


def facts(folder: Path) -> dict[str, str]:
  """What the file of a submission's folder says for a board, by field.

  A file that is absent or damaged says nothing: `algoeff check` reports it, and no race needs it.
  """
  path = folder / FILE
  if not path.exists():
    return {}
  try:
    content = read(path)
  except errors.UserError:
    return {}
  if not isinstance(content, dict):
    return {}
  found = {name: _text(content.get(name)) for name in _SHOWN}
  return {name: text for name, text in found.items() if text}


def _text(value: Any) -> str:
  """A fact as a line; lists, as of authors, are joined."""
  parts = value if isinstance(value, list) else [value]
  plain = [str(one) for one in parts if one is not None and not isinstance(one, (dict, list, set))]
  return errors.printable(' '.join(', '.join(plain).split()))[:_LONGEST]
