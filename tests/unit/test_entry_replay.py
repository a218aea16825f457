"""What a replay says of packed losses, with runs that are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import entry_runs
import numpy as np
import pytest
from entry_runs import NAME, SUITE

from algorithmic_efficiency import errors
from algorithmic_efficiency.entries.pack import Packing, pack
from algorithmic_efficiency.entries.verify import Report, Verification, verify
from algorithmic_efficiency.launch import session
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.results import csv_table, trial_record
from algorithmic_efficiency.trial import rounding
from algorithmic_efficiency.trial.config import TrialConfig

TRIAL = 'study_2/quick_vision_jax/trial_1'
STEPS = 60

Loss = Callable[[float, int, int], float]  # of the packed loss, the step and the run, from 0


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
  folder = tmp_path_factory.mktemp('entrant')
  code = entry_runs.write_code(folder / NAME)
  entry_runs.write_race(folder / 'race', code)
  pack(Packing(entry=str(code), runs=folder / 'race', output=folder / 'entry.zip'))
  return folder


def replayed(
  home: Path,
  monkeypatch: pytest.MonkeyPatch,
  loss: Loss,
  devices: dict[str, Any] | None = None,
  **changes: Any,
) -> tuple[Report, list[TrialConfig]]:
  """Verifies the entry; its trial runs again with these losses, on a machine with these devices."""
  pytest.importorskip('flax')
  source = home / 'race' / NAME / TRIAL
  table = csv_table.parse((source / 'eval_measurements.csv').read_bytes())
  rows = [dict(zip(table.header, map(float, row), strict=True)) for row in table.rows]
  seen: list[TrialConfig] = []

  def run_trials(configs: list[TrialConfig], *, quiet: bool) -> list[Outcome]:
    seen.extend(configs)
    for number, config in enumerate(configs):
      config.path.mkdir(parents=True)
      again = [row for row in rows if int(row['global_step']) in config.options.eval_steps]
      table = csv_table.CsvTable(config.path / 'eval_measurements.csv')
      for row in again:
        step = int(row['global_step'])
        losses = {name: loss(row[name], step, number) for name in ('validation/loss', 'test/loss')}
        table.append({**row, **losses, 'global_step': step})
      table.close()
      environment = {
        **entry_runs.ENVIRONMENT,
        'devices': devices or entry_runs.ENVIRONMENT['devices'],
      }
      dataclasses.replace(config.record(), environment=environment).write(config.path)
    return [
      Outcome(folder=config.path, status='finished', stop_reason='step_limit', reason='')
      for config in configs
    ]

  monkeypatch.setattr(session, 'run_trials', run_trials)
  fields = {'suite': SUITE, 'replay_steps': STEPS, 'trial': TRIAL, **changes}
  return verify(Verification(package=home / 'entry.zip', **fields), quiet=True), seen


def texts(report: Report) -> list[tuple[str, str]]:
  return [(one.severity, one.text) for one in report.findings if one.check == 'replay']


def honest(value: float, step: int, run: int) -> float:
  """Runs that drift apart by rounding, ten times as far every 15 steps."""
  return value * (1 + 1e-8 * (run - 1.5) * 10 ** (step / 15))


def test_the_trial_runs_as_it_ran_with_its_seeds_and_at_its_rows(
  home: Path, monkeypatch: pytest.MonkeyPatch
):
  _, [plain, *changed] = replayed(home, monkeypatch, lambda value, step, run: value)
  own = trial_record.read_trial(home / 'race' / NAME / TRIAL)
  assert own is not None
  assert plain.seeds == own.seeds and plain.hyperparameters == own.hyperparameters
  assert (plain.study, plain.trial) == (2, 1)
  assert plain.options.eval_steps == (1, 15, 30, 45, 60)
  assert plain.devices.num_threads == 1
  assert plain.rounding_seed is None and [one.rounding_seed for one in changed] == [1, 2, 3]
  assert len({one.folder for one in (plain, *changed)}) == 4
  assert all(one.seeds == plain.seeds for one in changed)


def test_equal_losses_are_said_to_be_equal(home: Path, monkeypatch: pytest.MonkeyPatch):
  report, _ = replayed(home, monkeypatch, lambda value, step, run: value)
  assert texts(report) == [('note', 'It gives the same losses to the last bit, up to step 60.')]
  assert report.verdict == 'accepted' and report.replay is not None and report.replay.is_equal


def test_losses_among_honest_runs_are_accepted(home: Path, monkeypatch: pytest.MonkeyPatch):
  report, _ = replayed(home, monkeypatch, honest)
  assert texts(report) == [('note', 'Its losses lie among those of 4 replays, up to step 60.')]
  assert report.verdict == 'accepted'


def test_late_chaos_is_no_proof(home: Path, monkeypatch: pytest.MonkeyPatch):
  """Where honest runs differ by a tenth, a packed loss that differs by as much is one of them."""

  def chaotic(value: float, step: int, run: int) -> float:
    return value * (1.05 + 0.1 * (run - 1.5)) if step >= 45 else honest(value, step, run)

  report, _ = replayed(home, monkeypatch, chaotic)
  assert report.verdict == 'accepted'


@pytest.mark.parametrize('steps', [(1,), (60,), (1, 15, 30, 45, 60)])
def test_other_losses_are_refused(
  steps: tuple[int, ...], home: Path, monkeypatch: pytest.MonkeyPatch
):
  """Also where only one row was changed, such as the last."""

  def other(value: float, step: int, run: int) -> float:
    return honest(value, step, run) * (1.01 if step in steps else 1)

  report, _ = replayed(home, monkeypatch, other)
  assert report.verdict == 'refused'
  assert all(severity == 'refused' and 'a replay gives' in text for severity, text in texts(report))


def test_other_losses_on_another_machine_are_doubtful(home: Path, monkeypatch: pytest.MonkeyPatch):
  devices = {**entry_runs.ENVIRONMENT['devices'], 'versions': {'jax': '9.9'}}
  report, _ = replayed(home, monkeypatch, lambda value, step, run: 2 * value, devices)
  assert report.verdict == 'doubtful'
  assert all(
    "The machines differ: versions None, here {'jax': '9.9'}" in x for _, x in texts(report)
  )


def test_a_loss_that_is_not_finite_any_more_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch):
  def diverging(value: float, step: int, run: int) -> float:
    return np.nan if step == 60 else honest(value, step, run)

  report, _ = replayed(home, monkeypatch, diverging)
  assert report.verdict == 'refused'


@pytest.mark.parametrize(
  ('changes', 'text'),
  [
    ({'trial': 'study_9/quick_vision_jax/trial_1'}, 'no trial in the package'),
    ({'replay_steps': 0}, '--replay must be at least 1'),
  ],
)
def test_what_cannot_run_is_bad_input(
  changes: dict[str, Any], text: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
  with pytest.raises(errors.UserError, match=text):
    replayed(home, monkeypatch, honest, **changes)


class _Copies:
  """Copies of trees that are plain already."""

  def pack(self, trees):
    return trees

  def overlay(self, fresh, packed, *, fixed=()):
    assert fixed == ('params',)
    return packed


def test_rounding_changes_the_last_bits_alone():
  params = {'a': np.linspace(-3, 3, 1000, dtype=np.float32), 'b': [np.zeros(3), np.arange(3)]}
  changed = rounding.changed(_Copies(), params, 1)  # type: ignore[arg-type]
  ulps = (changed['a'] / params['a'] - 1) / np.finfo(np.float32).eps
  assert changed['a'].dtype == np.float32
  assert 0.8 * rounding.NUM_ULPS < ulps.std() < 1.2 * rounding.NUM_ULPS
  assert not changed['b'][0].any() and (changed['b'][1] == np.arange(3)).all()
  again = rounding.changed(_Copies(), params, 1)['a']  # type: ignore[arg-type]
  assert (changed['a'] == again).all()
  assert (changed['a'] != rounding.changed(_Copies(), params, 2)['a']).any()  # type: ignore[arg-type]
