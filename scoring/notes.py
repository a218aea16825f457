"""What was found in a set of runs and left out of the score: said, never silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A closed set: every irregularity is one of these, with the words that the report uses for it.
KINDS: Mapping[str, str] = {
  'no_data': 'trial or workload folders without evaluations; no trial in them reached a target',
  'damaged': 'damaged evaluation files; each of these trials counts as not reached',
  'missing_column': 'evaluation files without a column that scoring needs; not reached',
  'truncated': 'evaluation files whose last line is cut; scored by the lines before it',
  'damaged_log': 'logs with lines that could not be read; the table beside them was read',
  'altered_table': 'evaluation files that are not what the log says; the log was read',
  'contradiction': 'trials whose files contradict each other; not reached',
  'impossible_metric': 'trials with values that the metric cannot have; those reach nothing',
  'lost_log': 'trials that have lost their measurements.jsonl; the table beside it was read',
  'dangling_link': 'links to what is not there; left out',
  'lost_record': 'trials that have lost their trial.json; not reached',
  'no_record': 'trials without a trial.json, beside others that have one',
  'mixed_submissions': 'folders that hold trials of several submissions',
  'other_name': 'submissions whose trials were recorded under another name',
  'duplicate': 'trials that are there twice, by their seeds; one of each is scored',
  'bad_steps': 'evaluation files with repeated or decreasing steps; not reached',
  'bad_times': 'evaluation files with times that are negative, decrease or are NaN; not reached',
  'invalid_trial': 'trials that the runner marked invalid; not reached',
  'failed_trial': 'trials that failed; scored by the rows that they left',
  'cut_short': 'trials that are not finished or were cut short; scored by the rows that they have',
  'runner_note': 'notes that the runner made on trials',
  'spared': 'trials that deviate from the rules in their evaluations, or that stop at validation',
  'nan_metric': 'trials with values of the metric that are not finite; those reach nothing',
  'single_row': 'trials with a single evaluation',
  'other_suite': 'trials that were run for another suite or ruleset; not reached',
  'altered_suite': 'trials of a suite whose rules have changed since; not reached',
  'altered_workload': 'trials of a workload whose definition has changed since; not reached',
  'smoke': 'smoke runs, which are never scored',
  'stray_trial': 'trial folders that are not inside a workload folder; left out',
  'stray_file': 'files or folders that are no part of the layout; left out',
  'unknown_workload': 'workload folders whose workload is not known; left out',
  'not_in_suite': 'workloads that are not scored in this suite; left out',
  'provisional': 'workloads whose target is provisional; left out',
  'cannot_run': 'workloads of the suite whose code does not exist yet; not counted',
  'absent_workload': 'workloads of the suite that no submission has run; each is a miss',
  'missing_workload': 'workloads that a submission has not run; each is a miss',
  'missing_study': 'studies that were run or planned and are not there; each is a miss',
  'study_count': 'submissions and workloads with another number of studies than the rules say',
  'trial_count': 'studies with another number of trials than the rules say',
  'study_names': 'submissions with folders not called study_<k>, which count as its studies',
  'merged': 'folders of one submission that differ by a time stamp; merged',
  'two_frameworks': 'submissions that ran in both frameworks; scored as two',
  'excluded': 'submissions left out by request',
  'no_hparams': 'trials without readable hyperparameters, or with others than recorded',
  'several_hosts': 'scores from several hosts, which the cost of a step makes comparable',
  'mixed_hosts': 'hosts whose seconds stand side by side, because --mix_hosts was given',
  'step_times': 'hosts and workloads where the step times of the runs are the cost of a step',
  'untimed': 'trials whose steps were not timed; each counts as a step of the baseline',
  'timed_otherwise': 'submissions whose steps took far longer in trials than when they were timed',
  'study_cost': 'studies whose step cost was not measured; the median of the others counts',
  'baseline': 'hosts and frameworks without a step of the baseline; plain steps count',
}

# What is wrong with files that could be read in part: a trial that has not reached its target by
# what was read is not known to have missed it.
PARTLY_READ = ('truncated', 'damaged_log')


@dataclass(frozen=True, order=True)
class Note:
  """One irregularity: its kind, where it is, and what exactly was found."""

  kind: str
  where: str
  detail: str = ''

  def __post_init__(self) -> None:
    if self.kind not in KINDS:
      raise ValueError(f'There is no kind of note {self.kind!r}.')


def counted(notes: Iterable[Note]) -> dict[str, int]:
  """Number of notes by kind, in the order of KINDS."""
  counts = Counter(note.kind for note in notes)
  return {kind: counts[kind] for kind in KINDS if counts[kind]}
