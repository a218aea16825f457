"""The files of a scored set of runs, other than the report."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from algorithmic_efficiency import errors
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.results import files, race_files
from scoring import about, cost_errors, planned
from scoring.axis import UNITS
from scoring.leaderboard import Leaderboard
from scoring.notes import KINDS, counted
from scoring.profiles import NUM_POINTS
from scoring.result import Result
from scoring.statistics.resampling import MIN_STUDIES, Intervals
from scoring.statistics.verdicts import Verdict, cannot_decide
from scoring.time_to_target import cells, medians

if TYPE_CHECKING:
  import pandas as pd

BOUNDS = {'exact': '', 'at least': '≥', 'at most': '≤', 'about': '~'}


def folder_of(runs: str | Path, given: str | None) -> Path:
  """The folder of tables and report: as given, else `scores/` in the folder of the runs."""
  return Path(given or Path(runs) / race_files.SCORES_FOLDER).expanduser()


def require_writable(folder: Path, flag: str = '--output_dir') -> None:
  """Tries to make the folder and to write into it, before any work is done; leaves nothing behind.

  Raises:
    UserError: it cannot be written.
  """
  probe = folder / '.writable'
  missing = [place for place in (folder, *folder.parents) if not place.exists()]
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe.write_bytes(b'')
    os.unlink(probe)
  except OSError as error:
    raise errors.UserError(
      f'The results are written to {folder}, which is not possible ({error.strerror}); give '
      f'another place with {flag}.'
    ) from None
  finally:
    for place in missing:
      with contextlib.suppress(OSError):  # not made, or another process writes there by now
        place.rmdir()


def write_tables(result: Leaderboard, folder: Path) -> list[Path]:
  """Every table of a result; returns the files.

  Raises:
    UserError: one of them cannot be written.
  """
  texts = {
    'scores.csv': _csv(result.score_table()),
    'time_to_targets.csv': _csv(result.time_table()),
    'time_to_targets_raw.csv': raw_table(result).to_csv(index=False),
    'performance_profile.csv': _csv(profile_table(result)),
    'leaderboard.json': json.dumps(as_json(result), indent=1, allow_nan=False) + '\n',
    'leaderboard.md': markdown(result),
  }
  for submission, name in summary_files(result.submissions).items():
    texts[name] = summary_table(result, submission).to_csv(index=False)
  folder.mkdir(parents=True, exist_ok=True)
  _remove_stale(folder, keep=texts)
  written = []
  for name, text in texts.items():
    path = folder / name
    with replacing(path) as file:
      file.write(text.encode())
    written.append(path)
  return written


def _remove_stale(folder: Path, keep: Collection[str]) -> None:
  """Removes the summaries of submissions that were scored here before, and are not any more."""
  try:
    before = json.loads((folder / 'leaderboard.json').read_text())
    names = summary_files([row['submission'] for row in before['leaderboard']]).values()
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return  # nothing was scored here, or nothing that can be read
  for name in set(names) - set(keep):
    (folder / Path(name).name).unlink(missing_ok=True)


def summary_files(submissions: Sequence[str]) -> dict[str, str]:
  """The name of each submission's summary: AlgoPerf's, with a number where two would share it.

  Names without a space come first, because theirs are never changed.
  """
  found: dict[str, str] = {}
  for submission in sorted(submissions, key=lambda name: (' ' in name, name)):
    plain = submission.replace(' ', '_')
    names = (plain, *(f'{plain}_{number}' for number in range(2, len(submissions) + 2)))
    taken = {name.casefold() for name in found.values()}  # some file systems know no case
    file = (f'{name}_summary.csv' for name in names)
    found[submission] = next(name for name in file if name.casefold() not in taken)
  return found


def replacing(path: Path) -> AbstractContextManager[BinaryIO]:
  """Opens a file of results; until the block ends, what was there before stays.

  Raises:
    UserError: it cannot be written.
  """
  return files.replacing(path, durable=False, then='score the runs again')


def _csv(table: pd.DataFrame) -> str:
  return table.to_csv()


def profile_table(result: Leaderboard) -> pd.DataFrame:
  """A row a submission, a column a point tau, best first."""
  import pandas as pd

  points = np.linspace(1.0, result.rules.suite.max_ratio, NUM_POINTS)
  order = result.ranking
  index = pd.Index([result.submissions[s] for s in order], name='submission')
  return pd.DataFrame(
    result.profile()[order], index=index, columns=[repr(float(t)) for t in points]
  )


def raw_table(result: Leaderboard) -> pd.DataFrame:
  """A row a submission and workload: the median study in every unit, inf for a miss.

  gradient_evaluations counts batches drawn, where the runs recorded it, and steps otherwise.
  examples are those times the batch size, where it is known. With statistics, low and high are the
  interval of the first of the units; both are empty where there is one study. The coverage is how
  often such intervals hold the truth.
  """
  import pandas as pd

  table = result.outcomes
  names = (list(result.submissions), list(result.workloads))
  miss = {'step': np.inf, 'submission_time_sec': np.inf}
  steps = _medians(table.assign(time=table['step'].fillna(miss['step'])), names)
  seconds = _medians(
    table.assign(time=table['submission_time_sec'].fillna(miss['submission_time_sec'])), names
  )
  batches = table.groupby(['submission', 'workload']).batch_size.max()
  records = []
  for s, submission in enumerate(result.submissions):
    for w, workload in enumerate(result.workloads):
      batch = batches.get((submission, workload))
      if (batch is None or np.isnan(batch)) and result.rules.suite.fixes_batch_size:
        batch = result.rules.members[workload].batch_sizes.train
      known = batch is not None and not np.isnan(batch)
      records.append(
        {
          'submission': submission,
          'workload': workload,
          result.rules.axis: _or_inf(result.times[s, w]),
          'steps': _or_inf(steps[s, w]),
          'raw_seconds': _or_inf(seconds[s, w]),
          'gradient_evaluations': _or_inf(steps[s, w]),
          'examples': _or_inf(steps[s, w]) * batch if known else math.nan,
        }
      )
  found = pd.DataFrame(records)
  if result.statistics is not None:
    absent = (result.cells.num_studies == 0)[..., None]
    bounds = np.where(absent, np.inf, result.statistics.intervals.times)
    found['low'], found['high'] = bounds[..., 0].ravel(), bounds[..., 1].ravel()
    found['coverage'] = result.statistics.intervals.time_coverages.ravel()
  return found


def _medians(table: pd.DataFrame, names: tuple[list[str], list[str]]) -> np.ndarray:
  return medians(cells(table, *names).study_times)


def _or_inf(value: float) -> float:
  return math.inf if math.isnan(value) else float(value)


def summary_table(result: Leaderboard, submission: str) -> pd.DataFrame:
  """A row a trial, under the column names of AlgoPerf's scorer."""
  import pandas as pd

  rows = result.outcomes[result.outcomes.submission == submission]
  members, suite = result.rules.members, result.rules.suite.name
  targets = [members[name].target for name in rows.workload]
  return pd.DataFrame(
    {
      'workload': rows.workload,
      'trial': rows.study + '/' + rows.trial,
      'val target metric name': [f'validation/{target.metric}' for target in targets],
      'val target metric value': [target.validation for target in targets],
      'val target reached': rows.status == 'reached',
      'best metric value on val': rows.best,
      'time to best eval on val (s)': rows.best_submission_time_sec,
      'time to target on val (s)': rows.submission_time_sec.fillna(np.inf),
      'step_time (s)': rows.step_sec,
      'step_hint': [registry.budget(members[name], suite).step_hint for name in rows.workload],
    }
  )


def _number(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None


def _plain(record: Any) -> dict[str, Any]:
  """The fields of a record, null for a number that is unknown."""
  return {
    name: None if isinstance(value, float) and not math.isfinite(value) else value
    for name, value in asdict(record).items()
  }


def as_json(result: Leaderboard) -> dict[str, Any]:
  """Everything of a result that is not a figure; null stands for a miss or an unknown."""
  rules, order, known = result.rules, result.ranking, about.of(result)
  record: dict[str, Any] = {
    'suite': rules.suite.name,
    'ruleset': rules.ruleset,
    'axis': rules.axis,
    'integral': rules.integral,
    'max_ratio': rules.suite.max_ratio,
    'num_studies': rules.tuning.num_studies,
    'num_trials': rules.tuning.num_trials,
    'reference': result.reference,
    'changes': list(rules.changes),
    'workloads': {
      name: {
        'base': rules.base_of.get(name, name),
        'metric': one.target.metric,
        'direction': one.target.direction,
        'target': one.target.validation,
      }
      for name, one in rules.members.items()
    },
    'leaderboard': [
      {
        'rank': result.rank(s),
        'submission': result.submissions[s],
        'published': result.submissions[s] in result.published,
        **{name: fact or None for name, fact in asdict(known[result.submissions[s]]).items()},
        'score': float(result.scores[s]),
        **_interval(result, s),
        'time_to_target': {
          name: _number(result.times[s, w]) for w, name in enumerate(result.workloads)
        },
        'ratio': {name: _number(result.ratios[s, b]) for b, name in enumerate(result.base)},
      }
      for s in order
    ],
    'notes': {
      kind: {
        'meaning': KINDS[kind],
        'count': count,
        'where': [[note.where, note.detail] for note in result.notes if note.kind == kind],
      }
      for kind, count in counted(result.notes).items()
    },
  }
  if result.statistics is not None:
    record.update(_statistics(result))
  return record


def _interval(result: Leaderboard, s: int) -> dict[str, Any]:
  if result.statistics is None:
    return {}
  intervals = result.statistics.intervals
  low, high = map(_number, intervals.scores[s].tolist())
  return {'low': low, 'high': high, 'coverage': _number(intervals.score_coverages[s])}


def _statistics(result: Leaderboard) -> dict[str, Any]:
  statistics, order = result.statistics, result.ranking
  assert statistics is not None
  intervals = statistics.intervals
  return {
    'seed': statistics.seed,
    'intervals': {
      'level': intervals.level,
      'num_resamples': intervals.num_resamples,
      'score_coverage': _number(intervals.score_coverage),
      'time_coverage': _number(intervals.time_coverage),
      'num_simulated': intervals.num_simulated,
      'shared_points': intervals.shared_points,
      'scores': {
        result.submissions[s]: [_number(value) for value in intervals.scores[s]] for s in order
      },
      'time_to_target': {
        result.submissions[s]: {
          name: [_number(value) for value in intervals.times[s, w]]
          for w, name in enumerate(result.workloads)
        }
        for s in order
      },
      'time_to_target_coverage': {
        result.submissions[s]: {
          name: _number(intervals.time_coverages[s, w]) for w, name in enumerate(result.workloads)
        }
        for s in order
      },
    },
    'verdicts': [asdict(verdict) for verdict in statistics.verdicts],
    'tuning_curves': {
      'num_trials': list(statistics.tuning_curves.num_trials),
      'exact': statistics.tuning_curves.exact,
      'scores': {
        result.submissions[s]: [_number(v) for v in statistics.tuning_curves.scores[s]]
        for s in order
      },
    },
    'ledger': [asdict(entry) for entry in statistics.ledger],
    'sensitivity': {
      'sentences': list(statistics.sensitivity.sentences),
      'without': _by_submission(result, statistics.sensitivity.without),
      'cut_offs': _by_submission(result, statistics.sensitivity.cut_offs),
      'base_only': None
      if statistics.sensitivity.base_only is None
      else dict(zip(result.submissions, statistics.sensitivity.base_only.tolist(), strict=True)),
    },
    'speedups': [_plain(entry) for entry in statistics.speedups],
    'costs': [asdict(entry) for entry in statistics.costs],
    'step_costs': [_plain(entry) for entry in statistics.step_costs],
    'forecasts': [asdict(one) | {'error': one.error} for one in planned.forecasts(result)],
  }


def _by_submission(
  result: Leaderboard, choices: dict[Any, np.ndarray]
) -> dict[str, dict[str, float]]:
  return {
    str(choice): dict(zip(result.submissions, scores.tolist(), strict=True))
    for choice, scores in choices.items()
  }


def markdown(result: Leaderboard) -> str:
  """The leaderboard as a table, with what a reader must know below it."""
  rules = result.rules
  lines = [f'# {rules.suite.title}: leaderboard', '', *_markdown_table(leaderboard_rows(result))]
  lines += ['', *(f'{sentence}' for sentence in footnotes(result))]
  left_out = counted(result.notes)
  if left_out:
    lines += ['', '## What was found and left out', '']
    lines += [f'- {KINDS[kind]} ({count})' for kind, count in left_out.items()]
  return '\n'.join(lines) + '\n'


def _markdown_table(rows: Sequence[dict[str, str]]) -> list[str]:
  names = list(rows[0])
  lines = ['| ' + ' | '.join(names) + ' |', '|' + '---|' * len(names)]
  cells = [[value.replace('|', '\\|') for value in row.values()] for row in rows]
  return lines + ['| ' + ' | '.join(line) + ' |' for line in cells]


def leaderboard_rows(result: Leaderboard) -> list[dict[str, str]]:
  """The leaderboard as texts: one record a submission, best first."""
  rows = []
  for place, s in enumerate(result.ranking):
    name = result.submissions[s]
    row = {'#': str(result.rank(s)), 'submission': name, 'score': f'{result.scores[s]:.4f}'}
    if result.statistics is not None:
      intervals = result.statistics.intervals
      low, high = intervals.scores[s]
      row['interval'] = 'one study' if math.isnan(low) else f'{low:.3f} to {high:.3f}'
      row['coverage'] = percent(intervals.score_coverages[s])
      row['vs next'] = against_next(result, place)
    reached = int(np.isfinite(result.ratios[s]).sum())
    row['scored on'] = f'{reached} of {result.columns.num_counted}'
    rows.append(row)
  return rows


def percent(share: float) -> str:
  """A share such as a coverage in words; nothing for an unknown one."""
  return f'{share:.0%}' if math.isfinite(share) else ''


def against_next(result: Leaderboard, place: int) -> str:
  """The verdict of a place of the ranking, from 0, against the next one, with the speed-up."""
  assert result.statistics is not None
  order = result.ranking
  if place + 1 >= len(order):
    return ''
  pair = (result.submissions[order[place]], result.submissions[order[place + 1]])
  verdict = next(v for v in result.statistics.verdicts if (v.a, v.b) == pair)
  if verdict.verdict == 'same':
    return verdict.verdict
  return f'{verdict.verdict} ({BOUNDS[verdict.bound]}{verdict.speedup:.2f})'


def number_of(count: int, one: str, many: str) -> str:
  """A count with its noun, such as '1 study' and '2 studies'."""
  return f'{count} {one if count == 1 else many}'


def footnotes(result: Leaderboard) -> list[str]:
  """What the figures mean, in sentences."""
  rules = result.rules
  hardware = f' on {rules.suite.hardware}' if rules.axis == 'seconds' else ''
  setting = (
    f'Suite {rules.suite.name}, {rules.ruleset} tuning, raced in {UNITS[rules.axis]}{hardware}; '
    f'{rules.integral} integral of the performance profile up to a ratio of '
    f'{rules.suite.max_ratio:g}; a mean over '
    f'{number_of(result.columns.num_counted, "workload", "workloads")}.'
  )
  sentences = [setting, *_about_step_costs(result)]
  sentences += [f'Other than the suite says: {change}.' for change in rules.changes]
  if result.statistics is not None:
    sentences.append(_about_intervals(result.statistics.intervals))
    sentences += _about_verdicts(result)
  return sentences


def _about_verdicts(result: Leaderboard) -> list[str]:
  """What stands beside a verdict, where none is possible, and which stand against the ranking."""
  assert result.statistics is not None
  found = result.statistics.verdicts
  if not found:
    return []
  sentences = [
    'In brackets beside a verdict stands the speed-up: the geometric mean over workloads and '
    "studies of the other's time over its own. Misses and times above the cut-off count as the "
    'cut-off, so that a speed-up may be at least (≥), at most (≤) or about (~) so much.'
  ]
  few = {(one.num_studies, one.num_workloads) for one in found if not one.can_decide}
  sentences += [cannot_decide(*one) for one in sorted(few)]
  return sentences + [text for one in found if (text := against_ranking(result, one))]


def against_ranking(result: Result, verdict: Verdict) -> str:
  """Why a verdict contradicts the ranking, in words; empty if it does not."""
  if verdict.verdict not in ('better', 'worse'):
    return ''
  better, other = (verdict.a, verdict.b)[:: 1 if verdict.verdict == 'better' else -1]
  places = [result.ranking.index(result.submissions.index(name)) for name in (better, other)]
  if places[0] < places[1]:
    return ''
  return (
    f'{better} is better than {other}, which stands above it. The verdict takes the mean over all '
    'studies of the two. The score takes the median study of each workload, beside the fastest of '
    'all submissions.'
  )


def _about_step_costs(result: Leaderboard) -> list[str]:
  """What the weights of steps rest on; nothing on the other axes."""
  if result.rules.axis != 'cost_adjusted_steps':
    return []
  workloads = result.outcomes.groupby('cost_basis').workload.unique()
  means = {
    'rounds': f'timed in turn with the baseline ({race_files.COSTS_FILE})',
    'runs': 'taken from the step times of the runs, which were not timed with the baseline',
    'plain': '1 for all (plain steps), as not every host and framework has a step of the baseline',
  }
  said = [f'{means[name]}: {", ".join(sorted(found))}' for name, found in workloads.items() if name]
  return [f'Cost of a step beside the baseline, {"; ".join(said)}.', *unmeasured_costs(result)]


def unmeasured_costs(result: Result) -> list[str]:
  """On which workloads costs of steps count as surer than they are; nothing if on none."""
  found = cost_errors.not_measured(result)
  if not found:
    return []
  return [
    'In no interval or verdict: errors of these costs that all studies share, on '
    f'{", ".join(found)}. The baseline was not timed against itself there.'
  ]


def _about_intervals(intervals: Intervals) -> str:
  if intervals.num_studies < MIN_STUDIES:
    return 'There are no intervals: one study says nothing of the spread between studies.'
  text = (
    f'Intervals: {intervals.level:.0%} nominal, {intervals.num_resamples} resamples of studies, of '
    f'which there are at most {intervals.num_studies}.'
  )
  if intervals.shared_points:
    text += (
      ' All studies of a submission share the points of its search space, so that intervals say '
      'nothing of another draw of points.'
    )
  if not (math.isfinite(intervals.score_coverage) and math.isfinite(intervals.time_coverage)):
    return text
  return text + (
    f' On simulated sets like this one they hold the true score {intervals.score_coverage:.0%} and '
    f'the true time {intervals.time_coverage:.0%} of the time. The coverage beside an interval is '
    'that of simulated intervals with equally many studies.'
  )
