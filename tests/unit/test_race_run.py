"""Races of fake trials: what runs, what goes on, what is told, and what is left alone."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_race
import pytest

from algorithmic_efficiency import api, errors
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race import state
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.launch import local, pool, trial_folder
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launch.slots import Slot
from algorithmic_efficiency.results import measurements, race_files, trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord
from algorithmic_efficiency.trial import messages


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(local, 'WORKER', fake_race.WORKER)


def run(
  folder: Path, scripts: Mapping[str, Any], *, retry_failed: bool = False, **changes: Any
) -> race_run.RaceResult:
  asked = fake_race.race(folder, scripts, **changes)
  return race_run.run(asked, retry_failed=retry_failed, quiet=True)


def record(path: Path) -> TrialRecord:
  found = trial_record.read_trial(path)
  assert found is not None
  return found


def sessions(folder: Path, trial: Path) -> int:
  return sum(session.trial == trial for session in fake_race.sessions(folder))


class TestFailures:
  def test_each_is_an_outcome_with_its_cause_and_the_others_go_on(self, tmp_path):
    scripts = {name: {'then': name} for name in ('finish', 'crash', 'oom', 'kill', 'mistake')}
    result = run(tmp_path, scripts, studies=1, workers=2)
    told = {
      config.submission: (outcome.status, outcome.stop_reason, outcome.reason)
      for config, outcome in zip(result.configs, result.outcomes, strict=True)
    }
    assert told['finish'] == ('finished', 'budget_spent', '')
    assert told['crash'] == ('failed', 'failed', 'ValueError: as the script says')
    assert told['oom'] == ('failed', 'out_of_memory', 'MemoryError: as the script says')
    assert told['kill'][:2] == ('failed', 'out_of_memory')
    assert 'was killed (SIGKILL)' in told['kill'][2]
    assert told['mistake'] == ('failed', 'failed', 'A mistake that can be mended.')
    for config in result.configs:
      found = record(config.path)
      assert (found.status, found.stop_reason, found.reason) == told[config.submission]

  def test_a_folder_that_cannot_be_had_is_one_too(self, tmp_path, monkeypatch):
    configs = expand(fake_race.race(tmp_path, {'a': {}}))
    with trial_folder.TrialFolder(configs[0].path):
      outcomes = pool.run([pool.PooledTrial(config=config) for config in configs], slots=[Slot()])
    assert [outcome.status for outcome in outcomes] == ['failed', 'finished']
    assert 'Another process is running a trial' in outcomes[0].reason
    assert trial_record.read_trial(configs[0].path) is None


FORGED = [
  *('{"kind": "row"}', '[' * 100_000),
  '{"kind": "ended", "status": "finished", "stop_reason": "x", "reason": 1, "wall_sec": 1e999}',
]


class TestForged:
  @pytest.mark.parametrize('line', FORGED)
  def test_a_message_of_another_form_makes_its_trial_invalid_and_the_race_goes_on(
    self, line, tmp_path
  ):
    """Regression: it ended the launcher with a traceback, and every repetition of the command."""
    scripts = {'a': {'forges': f'{line}\n', 'then': 'hang'}, 'b': {}}
    for sessions_of_a, retry_failed in ((1, False), (1, False), (2, True)):
      result = run(tmp_path, scripts, studies=1, retry_failed=retry_failed)
      assert [outcome.status for outcome in result.outcomes] == ['invalid', 'finished']
      assert 'Only the harness may write there.' in result.outcomes[0].reason
      invalid, finished = result.configs
      assert record(invalid.path).reason == result.outcomes[0].reason
      assert sessions(tmp_path, invalid.path) == sessions_of_a
      assert sessions(tmp_path, finished.path) == 1

  @pytest.mark.parametrize('text', ['[1]', '[' * 100_000])
  @pytest.mark.parametrize('name', ['trial.json', 'measurements.jsonl'])
  def test_a_damaged_file_does_not_end_the_race(self, name, text, tmp_path):
    scripts = {'a': {'damage': [name, text], 'then': 'kill'}, 'b': {}}
    for _ in range(2):
      result = run(tmp_path, scripts, studies=1)
      assert [outcome.status for outcome in result.outcomes] == ['failed', 'finished']
      assert record(result.configs[0].path).status == 'failed'


class TestAgain:
  def test_what_is_done_is_skipped_and_what_is_new_runs(self, tmp_path):
    first = run(tmp_path, {'a': {}, 'b': {}})
    again = run(tmp_path, {'a': {}, 'b': {}, 'c': {}}, studies=3)
    assert [outcome.status for outcome in again.outcomes] == ['finished'] * 9
    assert all(sessions(tmp_path, config.path) == 1 for config in again.configs)
    assert {config.path for config in first.configs} < {config.path for config in again.configs}

  def test_what_failed_by_its_own_fault_waits_for_the_word(self, tmp_path):
    scripts = {'a': {'then': 'crash'}, 'b': {'then': 'kill'}, 'c': {'then': 'mistake'}}
    run(tmp_path, scripts, studies=1)
    again = run(tmp_path, scripts, studies=1)
    assert [sessions(tmp_path, config.path) for config in again.configs] == [1, 2, 1]
    assert [outcome.status for outcome in again.outcomes] == ['failed'] * 3
    assert again.outcomes[0].reason == 'ValueError: as the script says'
    assert again.num_left_failed == 2
    retried = run(tmp_path, {name: {} for name in scripts}, studies=1, retry_failed=True)
    assert [outcome.status for outcome in retried.outcomes] == ['finished'] * 3
    assert retried.num_left_failed == 0

  def test_one_that_runs_out_of_memory_is_given_up_after_the_second_time(self, tmp_path):
    scripts = {'a': {'then': 'oom'}, 'b': {'then': 'kill'}}
    for number, left in ((1, 0), (2, 0), (2, 2)):
      found = run(tmp_path, scripts, studies=1)
      assert [sessions(tmp_path, config.path) for config in found.configs] == [number] * 2
      assert {outcome.stop_reason for outcome in found.outcomes} == {'out_of_memory'}
      assert found.num_left_failed == left
    assert found.outcomes[0].reason == 'MemoryError: as the script says'
    run(tmp_path, {name: {} for name in scripts}, studies=1, retry_failed=True)
    assert {record(config.path).num_out_of_memory for config in found.configs} == {0}

  def test_only_what_came_in_a_row_and_on_one_host_counts(self, tmp_path):
    scripts = {'a': {'then': 'oom'}}
    [config] = run(tmp_path, scripts, studies=1).configs
    elsewhere = {'host_hash': 'of another host'}
    dataclasses.replace(record(config.path), environment=elsewhere).write(config.path)
    run(tmp_path, scripts, studies=1)
    assert record(config.path).num_out_of_memory == 1
    dataclasses.replace(record(config.path), status='running', num_out_of_memory=0).write(
      config.path
    )
    run(tmp_path, scripts, studies=1)
    assert record(config.path).num_out_of_memory == 1

  def test_an_invalid_trial_waits_for_the_word_and_begins_anew(self, tmp_path):
    [config, *_] = run(tmp_path, {'a': {'rows': 5}}).configs
    dataclasses.replace(record(config.path), status='invalid').write(config.path)
    again = run(tmp_path, {'a': {'rows': 3}})
    assert (again.outcomes[0].status, again.num_left_failed) == ('invalid', 1)
    assert sessions(tmp_path, config.path) == 1
    retried = run(tmp_path, {'a': {'rows': 3}}, retry_failed=True)
    assert (retried.outcomes[0].status, retried.num_left_failed) == ('finished', 0)
    assert len(measurements.read(config.path).evals) == 3  # none of the rows that were there

  def test_what_was_cut_off_goes_on_after_its_last_row(self, tmp_path):
    [config, *_] = run(tmp_path, {'a': {'rows': 2}}).configs
    dataclasses.replace(record(config.path), status='running', stop_reason=None).write(config.path)
    run(tmp_path, {'a': {'rows': 5}})
    steps = [row['global_step'] for row in measurements.read(config.path).evals]
    assert steps == [1, 2, 3, 4, 5]
    assert sessions(tmp_path, config.path) == 2

  def test_overwrite_replaces_everything(self, tmp_path):
    first = run(tmp_path, {'a': {}}, seed=1)
    second = run(tmp_path, {'a': {}}, seed=2, overwrite=True)
    assert {record(config.path).seeds['seed'] for config in second.configs} == {2}
    assert [config.path for config in first.configs] == [config.path for config in second.configs]


def test_from_python(tmp_path):
  entries = fake_race.race(tmp_path, {'a': {}, 'b': {'then': 'crash'}}).entries
  found = api.bench(
    'quick',
    submissions=[entry.submission for entry in entries],
    frameworks=['jax'],
    workloads=('quick_vision',),
    ruleset='self',
    studies=1,
    smoke=True,
    experiment_dir=str(tmp_path / 'runs'),
  )
  assert [trial.record.status for trial in found] == ['finished', 'failed']
  assert list(found[0].rows()['global_step']) == [1, 2, 3]


@pytest.mark.parametrize('changes', [{'submissions': 'adamw'}, {'frameworks': 'jax'}])
def test_a_text_where_a_list_must_be(changes):
  """Regression: the letters of the text were taken for names."""
  names = {'submissions': ['adamw'], 'frameworks': ['jax'], **changes}
  with pytest.raises(
    errors.UserError, match=r"must be a list of names; it is the text '(adamw|jax)'"
  ):
    api.bench('quick', **names)


def test_the_trials_of_a_folder_in_order(tmp_path):
  for name in ('trial_10', 'trial_9', '.trial_1'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'trial.json').write_text('{}')
  assert [trial.folder.name for trial in api.trials(tmp_path)] == ['trial_9', 'trial_10']
  with pytest.raises(errors.UserError, match=r'Trials are read from a folder; .*nowhere is none'):
    api.trials(tmp_path / 'nowhere')


class TestLocks:
  def test_two_races_at_once_in_one_folder(self, tmp_path):
    runs = tmp_path / 'runs'
    runs.mkdir()
    with (
      trial_folder.lock(runs, 'taken'),
      pytest.raises(errors.UserError, match='Another race is running in'),
    ):
      run(tmp_path, {'a': {}})
    assert [path.name for path in runs.iterdir()] == ['.lock']

  def test_a_trial_that_somebody_runs_by_itself(self, tmp_path):
    [_, config] = expand(fake_race.race(tmp_path, {'a': {}}))
    with (
      trial_folder.TrialFolder(config.path),
      pytest.raises(errors.UserError, match='Another process is running a trial'),
    ):
      run(tmp_path, {'a': {}})
    assert [path.parent for path in tmp_path.rglob(trial_record.TRIAL_FILE)] == []

  def test_a_folder_that_cannot_be_made(self, tmp_path):
    (tmp_path / 'runs').write_text('a file')
    with pytest.raises(errors.UserError, match='--experiment_dir must be a directory'):
      run(tmp_path, {'a': {}})


class TestData:
  def test_a_set_that_is_not_prepared_is_missed_before_anything_starts(self, tmp_path):
    changes = {'suite': 'lite', 'workloads': ('mnist_standardized',), 'smoke': False}
    with pytest.raises(errors.UserError, match='data set mnist is not prepared'):
      run(tmp_path, {'a': {}}, data_dir=str(tmp_path), **changes)
    assert not (tmp_path / 'runs').exists()


class TestPool:
  def test_a_trial_a_place_at_a_time_each_on_its_own_cpus(self, tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
      pytest.skip('there is one CPU')
    result = run(tmp_path, {'a': {'row_sec': 0.01}}, studies=6, workers=2)
    seen = {session.cpus for session in fake_race.sessions(tmp_path)}
    share = len(cpus) // 2
    assert seen == {tuple(cpus[:share]), tuple(cpus[share : 2 * share])}
    devices = record(result.configs[0].path).environment['devices']
    assert devices['num_threads'] == share

  def test_no_more_run_at_once_than_there_are_places(self):
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def job(slot: Slot, tell: Callable, canceled: threading.Event) -> Outcome:
      with lock:
        running.append(1)
        most.append(len(running))
      canceled.wait(0.005)
      with lock:
        running.pop()
      return Outcome(folder=Path(), status='finished', stop_reason='', reason='')

    pool.run([job] * 20, slots=[Slot()] * 3)
    assert max(most) == 3

  def test_outcomes_come_in_the_order_of_the_jobs(self):
    def job(index: int) -> pool.Job:
      def work(slot: Slot, tell: Callable, canceled: threading.Event) -> Outcome:
        canceled.wait(0.02 / (index + 1))
        return Outcome(folder=Path(str(index)), status='finished', stop_reason='', reason='')

      return work

    outcomes = pool.run([job(index) for index in range(8)], slots=[Slot()] * 4)
    assert [outcome.folder.name for outcome in outcomes] == [str(index) for index in range(8)]

  def test_an_interrupt_ends_the_trials_which_say_so(self, tmp_path):
    configs = expand(fake_race.race(tmp_path, {'a': {'then': 'hang'}}, studies=3))

    def interrupt(event: pool.Event) -> None:
      if event.kind == 'message' and isinstance(event.message, messages.Row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
      pool.run(
        [pool.PooledTrial(config=config) for config in configs], slots=[Slot()], on_event=interrupt
      )
    found = record(configs[0].path)
    assert (found.status, found.stop_reason) == ('failed', 'interrupted')
    assert trial_record.read_trial(configs[1].path) is None

  def test_an_error_of_ours_is_raised_and_not_carried_on_with(self):
    def job(slot: Slot, tell: Callable, canceled: threading.Event) -> Outcome:
      raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
      pool.run([job] * 3, slots=[Slot()])


def test_the_order_of_starts_is_interleaved(tmp_path):
  started = []
  configs = expand(fake_race.race(tmp_path, {'a': {}, 'b': {}}, studies=2))

  def take(event: pool.Event) -> None:
    if event.kind == 'started':
      started.append((configs[event.index].study, configs[event.index].submission))

  pool.run([pool.PooledTrial(config=config) for config in configs], slots=[Slot()], on_event=take)
  assert started == [(1, 'a'), (1, 'b'), (2, 'a'), (2, 'b')]


def test_steps_are_timed_for_the_submissions_of_a_study_that_are_due(tmp_path):
  given = fake_race.race(tmp_path, {'a': {}, 'b': {}}, smoke=False)
  configs = expand(given)
  done = next(one for one in configs if (one.submission, one.study) == ('b', 1))
  done.path.mkdir(parents=True)
  dataclasses.replace(done.record(), status='finished').write(done.path)
  jobs, _ = race_run._jobs(given, state.scan(configs), retry_failed=False, running=())
  due = [one.job.to_run for one in jobs if not one.is_trial]
  assert due == [{'a'}, {'a', 'b'}]


class TestSelection:
  def selection(self, folder: Path, *workloads: str | None) -> tuple[str, ...] | None:
    for index, names in enumerate(workloads):
      chosen = None if names is None else tuple(names.split())
      run(folder, {f'entry_{index}': {}}, studies=1, workloads=chosen)
    found = race_files.read_selection(folder / 'runs')
    assert found is not None and found.suite == 'quick'
    return found.workloads

  def test_a_race_writes_down_its_workloads(self, tmp_path):
    assert self.selection(tmp_path, 'quick_vision') == ('quick_vision',)

  def test_a_late_entry_keeps_those_of_the_race(self, tmp_path):
    found = self.selection(tmp_path, 'quick_vision', 'quick_lm', 'quick_vision')
    assert found == ('quick_vision', 'quick_lm')

  def test_all_workloads_stay_all(self, tmp_path):
    assert self.selection(tmp_path, 'quick_vision', None, 'quick_lm') is None
