"""Verifies the package of an entry: what it holds, and, if asked, a trial that runs again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import scoring
from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.entries import archive, checks, manifest, replay, rows, trials
from algorithmic_efficiency.entries.checks import Check, Entry
from algorithmic_efficiency.entries.manifest import CODE, RUNS, Manifest
from algorithmic_efficiency.entries.replay import Replay
from algorithmic_efficiency.entries.verdict import (
  SEVERITIES,
  Finding,
  RefusedError,
  Verdict,
  verdict,
)
from algorithmic_efficiency.launch.trial_folder import scratch
from algorithmic_efficiency.trial.run_options import RunOptions
from scoring import layout
from scoring.rules import resolve

_CHECKS: tuple[Check, ...] = (
  checks.files,
  checks.info,
  checks.code,
  checks.rules,
  checks.complete,
  checks.follow_from_root,
  checks.of_the_space,
  rows.scheduled,
  rows.add_up,
  rows.as_rows_reach,
  checks.alike,
)


@dataclass(frozen=True, kw_only=True)
class Verification:
  """The flags of `algoeff verify`, as a record.

  Attributes:
    suite: None takes the one that the package names.
    seed: the root seed that was drawn for the entry; None if none was.
    replay_steps: number of steps that a trial runs again; None runs nothing.
    trial: the trial that runs again, such as `study_1/<workload>_jax/trial_1`; None draws one.
    options, devices: of the trials that run again.
  """

  package: Path
  suite: str | None = None
  seed: int | None = None
  replay_steps: int | None = None
  trial: str | None = None
  options: RunOptions = field(default_factory=RunOptions)
  devices: Devices = field(default_factory=Devices)


@dataclass(frozen=True, kw_only=True)
class Report:
  """The result of a verification.

  Attributes:
    sha256: hash of the package.
    manifest: None if the package was refused before it could be read.
    checked: the checks that were made.
    replay: None if no trial ran again.
  """

  package: Path
  sha256: str
  manifest: Manifest | None
  num_trials: int
  checked: tuple[str, ...]
  findings: tuple[Finding, ...]
  replay: Replay | None = None

  @property
  def verdict(self) -> Verdict:
    return verdict(self.findings)

  def of(self, check: str) -> list[Finding]:
    """What a check found, the worst first."""
    found = [one for one in self.findings if one.check == check]
    return sorted(found, key=lambda one: -SEVERITIES.index(one.severity))


def verify(asked: Verification, *, quiet: bool = False) -> Report:
  """Verifies a package. Nothing of it runs unless all other checks let it pass.

  Raises:
    UserError: there is no such package, suite or trial, or this machine cannot run the trial.
  """
  with scratch() as folder:
    home = folder / 'entry'
    home.mkdir()
    report = Report(
      package=asked.package,
      sha256=_hash(asked.package),
      manifest=None,
      num_trials=0,
      checked=('archive',),
      findings=(),
    )
    try:
      report = _unpacked(asked, home, report)
      report, entry = _checked(asked, home, report)
    except RefusedError as error:
      checked = dict.fromkeys((*report.checked, error.finding.check))
      report = dataclasses.replace(report, checked=tuple(checked), findings=(error.finding,))
    else:
      if asked.replay_steps is not None:
        report = _replayed(asked, entry, folder / 'replay', report, quiet=quiet)
    return dataclasses.replace(report, findings=tuple(_told(report.findings, home)))


def _hash(package: Path) -> str:
  try:
    return archive.hash_of_file(package)
  except OSError as error:
    raise errors.UserError(f'{package} could not be read: {error.strerror}.') from None


def _told(findings: Sequence[Finding], home: Path) -> Iterator[Finding]:
  """The findings with paths as they are in the package."""
  for one in findings:
    where, text = (part.replace(f'{home}/', '') for part in (one.where, one.text))
    yield dataclasses.replace(one, where=where, text=text)


def _unpacked(asked: Verification, home: Path, report: Report) -> Report:
  """Unpacks the files and holds them against the manifest.

  Raises:
    RefusedError: the package is none that `algoeff pack` makes.
  """
  found = archive.unpack(asked.package, home)
  stated = manifest.read(home)
  manifest.check(stated, found)
  return dataclasses.replace(report, manifest=stated, checked=(*report.checked, 'hashes'))


def _checked(asked: Verification, home: Path, report: Report) -> tuple[Report, Entry]:
  """Makes all checks of what the files say.

  Raises:
    RefusedError: something is so damaged that the other checks have nothing to look at.
  """
  assert report.manifest is not None
  entry = _entry(asked, home, report.manifest)
  findings: list[Finding] = []
  for check in _CHECKS:
    with _refusing(check.name):
      findings += check.findings(entry)
  report = dataclasses.replace(
    report,
    num_trials=len(entry.trials),
    checked=(*report.checked, *(check.name for check in _CHECKS)),
    findings=tuple(findings),
  )
  return report, entry


def _entry(asked: Verification, home: Path, stated: Manifest) -> Entry:
  suite = registry.suite(asked.suite or stated.suite)
  if suite.name != stated.suite:
    text = f'It is an entry for the suite {stated.suite}, not {suite.name}.'
    raise RefusedError('rules', manifest.FILE, text)
  rules = resolve(suite.name, ruleset=stated.ruleset)
  with _refusing('points'):
    space = trials.space_of(stated.ruleset, home / CODE)
  with _refusing('files'):
    notes = scoring.load(home / RUNS).attrs['runs'].notes
    found = trials.found_in(home / RUNS, stated.submission)
    read = tuple(map(trials.read, found))
  if len(found) != len(layout.find_trials(home / RUNS)[0]):
    text = f'It holds runs of others than {stated.submission}.'
    raise RefusedError('files', RUNS, text)
  return Entry(
    folder=home,
    manifest=stated,
    rules=trials.Rules(scoring=rules, space=space),
    trials=read,
    notes=notes,
    seed=asked.seed,
  )


@contextlib.contextmanager
def _refusing(check: str) -> Iterator[None]:
  """In the block, what would be the user's mistake is the fault of the package."""
  try:
    yield
  except errors.UserError as error:
    raise RefusedError(check, 'package', str(error)) from None


def _replayed(
  asked: Verification, entry: Entry, folder: Path, report: Report, *, quiet: bool
) -> Report:
  """Runs a trial again, unless the package is refused as it is."""
  assert asked.replay_steps is not None
  if report.verdict == 'refused':
    text = 'Nothing was run, as the package is refused without it.'
    finding = Finding(check='replay', severity='note', where='package', text=text)
    return dataclasses.replace(report, findings=(*report.findings, finding))
  found, findings = replay.run(
    entry,
    folder,
    steps=asked.replay_steps,
    trial=asked.trial,
    options=asked.options,
    devices=asked.devices,
    quiet=quiet,
  )
  return dataclasses.replace(
    report,
    checked=(*report.checked, 'replay'),
    findings=(*report.findings, *findings),
    replay=found,
  )
