"""From evaluations to times: when each trial reached its target, and what each study counts as.

An *outcome* is a row for each trial. A *cell* is one submission on one workload: its studies, each
with its trials in the order in which the rules prefer them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from algorithmic_efficiency.benchmark.definition import Target, WorkloadDefinition
from scoring.layout import natural
from scoring.notes import PARTLY_READ
from scoring.rules import ScoringRules
from scoring.runs import KEYS, Runs, TrialFiles

if TYPE_CHECKING:
  import pandas as pd

_FACTS = (
  *(*KEYS, 'path', 'status', 'suite', 'ruleset', 'stop_reason', 'host', 'machine', 'seed'),
  *('step_sec', 'batch_size', 'hyperparameters', 'definition_hash', 'suite_hash', 'entry'),
  'submission_hash',
)


def outcomes(frame: pd.DataFrame, rules: ScoringRules) -> pd.DataFrame:
  """Returns a row for each trial of the scored workloads.

  Columns, NaN or empty where unknown:

  - `submission`, `study`, `workload`, `framework`, `trial`: the keys of the trial.
  - `status`: 'reached', 'not_reached', or why the trial is not scored.
  - `row`, `step`, `submission_time_sec`: of the first evaluation that reaches the target.
  - `best`, `best_submission_time_sec`: the best value on validation, and its first time.
  - `step_sec`: mean seconds of a step; for logs without a record, the median over evaluations.
  - `total_step`, `total_submission_time_sec`, `eval_sec`, `logging_sec`: the whole trial.
  - the facts of `TrialFiles`.
  """
  import pandas as pd

  definitions = rules.members
  trials, codes = _trials(frame, definitions)
  order = np.lexsort((frame['row'].to_numpy(), codes))
  order = order[codes[order] >= 0]
  codes = codes[order]
  values = {
    name: frame[name].to_numpy()[order]
    for name in ('row', 'global_step', 'submission_time_sec', 'charged_steps', 'eval_sec')
  }
  values['logging_sec'] = frame['logging_sec'].to_numpy()[order]
  values['validation'] = frame['validation'].to_numpy()[order]
  values['step'] = np.where(
    np.isnan(values['charged_steps']), values['global_step'], values['charged_steps']
  )
  first = np.searchsorted(codes, np.arange(len(trials)), 'left')
  last = np.searchsorted(codes, np.arange(len(trials)), 'right') - 1
  filled = last >= first

  targets = [definitions[name].target for name in trials.workload]
  signed, is_hit = _judged_values(values['validation'], codes, targets)
  hits = np.flatnonzero(is_hit)
  hit = np.full(len(trials), -1)
  hit[codes[hits][::-1]] = hits[::-1]  # the first of each trial is written last
  trials['status'] = _judged(trials, rules)
  complete = (trials.status == 'ok').to_numpy()
  scored = complete | trials.status.isin(PARTLY_READ).to_numpy()
  hit[~scored] = -1

  def at(index: np.ndarray, name: str) -> np.ndarray:
    found = np.full(len(trials), np.nan)
    found[index >= 0] = values[name][index[index >= 0]]
    return found

  best = _first_best(signed, codes, first, last)
  end = np.where(filled, last, -1)
  table = trials.assign(
    status=np.where(hit >= 0, 'reached', np.where(complete, 'not_reached', trials.status)),
    row=at(hit, 'row'),
    step=at(hit, 'step'),
    submission_time_sec=at(hit, 'submission_time_sec'),
    best=at(best, 'validation'),
    best_submission_time_sec=at(best, 'submission_time_sec'),
    total_step=at(end, 'step'),
    total_submission_time_sec=at(end, 'submission_time_sec'),
    eval_sec=at(end, 'eval_sec'),
    logging_sec=at(end, 'logging_sec'),
    num_rows=np.where(filled, last - first + 1, 0),
  )
  measured = _median_step_time(values['step'], values['submission_time_sec'], codes, len(trials))
  own = pd.to_numeric(table['step_sec']).to_numpy(dtype=float)
  table['step_sec'] = np.where(np.isnan(own), measured, own)
  return table


def _judged_values(
  values: np.ndarray, codes: np.ndarray, targets: Sequence[Target]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns validation values as 'the larger the better', and whether each reaches its target.

  A value that the metric cannot have becomes NaN.

  Args:
    values: [row], validation values.
    codes: [row], positions in `targets` of the trials that the values are of.
  """
  signed, is_hit = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
  for target in set(targets):
    mine = np.array([other is target or other == target for other in targets])[codes]
    found = values[mine]
    sign = 1.0 if target.direction == 'max' else -1.0
    signed[mine] = np.where(target.is_possible(found), sign * found, np.nan)
    is_hit[mine] = target.reached_on_validation(found)
  return signed, is_hit


def _judged(trials: pd.DataFrame, rules: ScoringRules) -> pd.Series:
  """The status of each trial; one run by other rules or on another workload is not scored."""
  prints = {name: definition.content_hash() for name, definition in rules.members.items()}
  suites = ('', rules.suite.rules_hash(rules.ruleset))
  judgements = {
    'other_suite': ~trials.suite.isin(('', rules.suite.name))
    | ~trials.ruleset.isin(('', rules.ruleset)),
    'altered_suite': ~trials.suite_hash.isin(suites),
    'altered_workload': (trials.definition_hash != '')
    & (trials.definition_hash != trials.workload.map(prints)),
  }
  status = trials.status
  for name, applies in judgements.items():
    status = status.mask(applies & status.isin(('ok', *PARTLY_READ)), name)
  return status


def _trials(
  frame: pd.DataFrame, definitions: Mapping[str, WorkloadDefinition]
) -> tuple[pd.DataFrame, np.ndarray]:
  """The trials of the given workloads, sorted, and for each row of the frame its trial or -1."""
  import pandas as pd

  runs = frame.attrs.get('runs')
  present = frame.groupby(list(KEYS), observed=True, sort=False).ngroup().to_numpy()
  _, first = np.unique(present, return_index=True)
  keys = [tuple(map(str, row)) for row in frame.iloc[first][list(KEYS)].itertuples(index=False)]
  known = {trial.key: trial for trial in runs.trials} if isinstance(runs, Runs) else {}
  # Trials without rows are in no frame: they belong to it unless the caller took submissions out.
  names = {key[0] for key in keys}
  whole = len(frame) == sum(trial.num_rows for trial in known.values())
  empty = [
    trial.key
    for trial in known.values()
    if trial.num_rows == 0 and (whole or trial.submission in names)
  ]
  wanted = [key for key in [*keys, *empty] if key[2] in definitions]
  wanted.sort(key=lambda key: (key[0], key[2], natural(key[1]), key[3], natural(key[4])))
  position = {key: index for index, key in enumerate(wanted)}
  to_position = np.array([position.get(key, -1) for key in keys], dtype=int)
  facts = [known.get(key) or _unknown_trial(*key) for key in wanted]
  table = pd.DataFrame({name: [getattr(trial, name) for trial in facts] for name in _FACTS})
  return table, to_position[present] if len(frame) else np.zeros(0, dtype=int)


def _unknown_trial(
  submission: str, study: str, workload: str, framework: str, trial: str
) -> TrialFiles:
  """A trial of which nothing but its rows is known."""
  return TrialFiles(
    submission=submission,
    study=study,
    workload=workload,
    framework=framework,
    trial=trial,
    path='',
  )


def _first_best(
  signed: np.ndarray, codes: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
  """For each trial the index of its first best finite value, -1 without one."""
  found = np.full(len(first), -1)
  finite = np.flatnonzero(np.isfinite(signed))
  order = finite[np.lexsort((finite, -signed[finite], codes[finite]))]
  trials, starts = np.unique(codes[order], return_index=True)
  found[trials] = order[starts]
  return found


def _median_step_time(
  steps: np.ndarray, seconds: np.ndarray, codes: np.ndarray, num_trials: int
) -> np.ndarray:
  """Median over the stretches between evaluations of seconds a step; NaN below two evaluations.

  The first evaluation is after step 1, so that compilation is in no stretch.
  """
  found = np.full(num_trials, np.nan)
  same = codes[1:] == codes[:-1]
  with np.errstate(invalid='ignore', divide='ignore'):
    rates = (np.diff(seconds) / np.diff(steps))[same]
  owners = codes[1:][same]
  good = np.isfinite(rates) & (rates > 0)
  rates, owners = rates[good], owners[good]
  order = np.lexsort((rates, owners))
  rates, owners = rates[order], owners[order]
  trials, starts, counts = np.unique(owners, return_index=True, return_counts=True)
  low, high = starts + (counts - 1) // 2, starts + counts // 2
  found[trials] = (rates[low] + rates[high]) / 2
  return found


@dataclass(frozen=True, kw_only=True)
class Cells:
  """The times of every study and trial, in the axis's unit.

  The trials of a study stand in the order of the rules: the smallest evaluation row, then seconds.
  Misses come after all hits.

  Attributes:
    times: [submission, workload, study, trial]; inf for a miss, NaN where there is no trial.
    num_studies: [submission, workload].
    num_trials: [submission, workload, study].
    studies: names of the studies of a cell.
  """

  submissions: tuple[str, ...]
  workloads: tuple[str, ...]
  times: np.ndarray
  num_studies: np.ndarray
  num_trials: np.ndarray
  studies: Mapping[tuple[str, str], tuple[str, ...]]

  @property
  def study_times(self) -> np.ndarray:
    """[submission, workload, study]: what each study counts as; NaN where there is none."""
    return self.times[..., 0]


def cells(table: pd.DataFrame, submissions: Sequence[str], workloads: Sequence[str]) -> Cells:
  """Gathers outcomes that have a column `time` (the axis's unit) into cells."""
  submission_of = {name: index for index, name in enumerate(submissions)}
  workload_of = {name: index for index, name in enumerate(workloads)}
  members = table[table.submission.isin(submission_of) & table.workload.isin(workload_of)]
  members = members.sort_values(
    ['row', 'submission_time_sec', 'trial'], na_position='last', kind='stable'
  )
  studies: dict[tuple[str, str], list[str]] = {}
  entries: dict[tuple[str, str, str], list[float]] = {}
  names = zip(members.submission, members.workload, members.study, members.time, strict=True)
  for submission, workload, study, time in names:
    found = studies.setdefault((submission, workload), [])
    if study not in found:
      found.append(study)
    entries.setdefault((submission, workload, study), []).append(time)
  for found in studies.values():
    found.sort(key=natural)
  most_studies = max((len(found) for found in studies.values()), default=1)
  most_trials = max((len(found) for found in entries.values()), default=1)
  shape = (len(submissions), len(workloads), most_studies)
  times = np.full((*shape, most_trials), np.nan)
  num_trials = np.zeros(shape, dtype=int)
  for (submission, workload), names_of_studies in studies.items():
    for index, study in enumerate(names_of_studies):
      values = entries[submission, workload, study]
      place = (submission_of[submission], workload_of[workload], index)
      times[(*place, slice(len(values)))] = values
      num_trials[place] = len(values)
  return Cells(
    submissions=tuple(submissions),
    workloads=tuple(workloads),
    times=times,
    num_studies=(num_trials > 0).sum(axis=2),
    num_trials=num_trials,
    studies={key: tuple(found) for key, found in studies.items()},
  )


def medians(study_times: np.ndarray) -> np.ndarray:
  """Median over the last axis, NaN for absent studies; misses (inf) take part.

  With an even number of studies one of whose middle two is a miss, the median is a miss.
  """
  count = np.sum(~np.isnan(study_times), axis=-1)
  ordered = np.sort(study_times, axis=-1)  # NaN last
  low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, -1)[..., 0]
  high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[-1] - 1)[..., None], -1)
  high = high[..., 0]
  middle = np.where(low == high, low, (low + high) / 2)
  return np.where(count == 0, np.nan, middle)
