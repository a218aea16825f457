"""Who made the submissions: what their `submission_info.yml` said, as the trials recorded it."""

from __future__ import annotations

from dataclasses import dataclass

from scoring.result import Result

_SAYS_NOTHING = ('none', 'n/a', '-')  # in a field that AlgoPerf wants filled in


@dataclass(frozen=True, kw_only=True)
class About:
  """What is known of a submission besides its results; unknown facts are empty.

  Attributes:
    source_hash: of the files that ran, see `trial.submission.source_hash`; several where they
      changed between trials.
  """

  authors: str = ''
  affiliations: str = ''
  description: str = ''
  framework: str = ''
  version: str = ''
  date: str = ''
  paper: str = ''
  source_hash: str = ''


def of(result: Result) -> dict[str, About]:
  """The facts on each submission, by name."""
  return {name: _about(result, name) for name in result.submissions}


def _about(result: Result, submission: str) -> About:
  trials = () if result.runs is None else result.runs.trials
  mine = [trial for trial in trials if trial.submission == submission]
  info: dict[str, str] = {}
  for trial in mine:
    info |= trial.submission_info
  told = {name: text for name, text in info.items() if text.lower() not in _SAYS_NOTHING}
  known = {name: told[name] for name in About.__dataclass_fields__ if told.get(name)}
  ran = {
    'framework': ', '.join(sorted({trial.framework for trial in mine})),
    'source_hash': ', '.join(sorted({one.submission_hash for one in mine if one.submission_hash})),
  }
  return About(**known | ran)
