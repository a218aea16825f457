"""The result of a verification: what each check found, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal['note', 'unchecked', 'doubtful', 'refused']
Verdict = Literal['accepted', 'doubtful', 'refused']

# A closed set: the checks in their order, and what each one holds.
CHECKS: Mapping[str, str] = {
  'archive': 'names, sizes and kinds of the files in the package',
  'hashes': 'every file is the one that was packed',
  'files': 'records, logs and tables are readable and agree',
  'info': 'submission_info.yml has every field',
  'code': 'the code is the one that ran, and reading it shows no broken rule',
  'rules': 'suite, ruleset, workloads and options are those of this version',
  'trials': 'all trials of the suite are there and finished, none twice',
  'seeds': 'the seeds of trials follow from one root seed',
  'points': 'hyperparameters are points of the search space',
  'rows': 'evaluations follow the first step and the periods, within the budget',
  'times': 'times add up in each row, and to those of the trial',
  'targets': 'trials end at the targets that their rows reach',
  'hosts': 'trials ran on one kind of machine',
  'replay': 'a trial that runs again has the same losses',
}
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # from mild to grave


@dataclass(frozen=True, kw_only=True)
class Finding:
  """One finding of a check.

  Attributes:
    check: name of the check.
    severity: a 'note' changes no verdict. What is 'unchecked' cannot be known from the package.
    where: the file or trial.
    text: what was found, as a sentence.
  """

  check: str
  severity: Severity
  where: str
  text: str

  def __post_init__(self) -> None:
    if self.check not in CHECKS:
      raise ValueError(f'There is no check {self.check!r}.')


class RefusedError(Exception):
  """A package that must not be read any further."""

  def __init__(self, check: str, where: str, text: str):
    super().__init__(f'{where}: {text}')
    self.finding = Finding(check=check, severity='refused', where=where, text=text)


def worst(findings: Sequence[Finding]) -> Severity | None:
  """The worst severity; None without findings."""
  return max((one.severity for one in findings), key=SEVERITIES.index, default=None)


def verdict(findings: Sequence[Finding]) -> Verdict:
  """The verdict that follows from findings."""
  found = worst(findings)
  if found == 'refused':
    return 'refused'
  return 'doubtful' if found in ('unchecked', 'doubtful') else 'accepted'
