"""Launchers without a cluster: what is submitted, what is heard, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_race
import pytest

from algorithmic_efficiency import errors
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.experiments.race import run as race_run
from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.experiments.race.time_limit import TimeLimits, time_limits
from algorithmic_efficiency.launch import pool
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.launchers import container, slurm, slurm_files, slurm_queue, slurm_task
from algorithmic_efficiency.launchers.launcher import RaceJob
from algorithmic_efficiency.launchers.slurm import SlurmLauncher
from algorithmic_efficiency.launchers.slurm_files import Array, Ending, Entry, Journal
from algorithmic_efficiency.launchers.slurm_options import SlurmOptions
from algorithmic_efficiency.launchers.slurm_queue import QueuedTask
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.results.race_files import PlannedTrials

BENCH = ['bench', '--suite', 'quick', '--submissions', 'nadamw', '--ruleset', 'self']


def outcome(**changes: Any) -> Outcome:
  fields = {'folder': Path('a'), 'status': 'finished', 'stop_reason': 'budget_spent', 'reason': ''}
  return Outcome(**{**fields, **changes})


def job(name: str = 'a', **changes: Any) -> RaceJob:
  def nothing(*_: object) -> Outcome:
    return outcome()

  return RaceJob(name=name, job=nothing, framework='jax', **changes)


class TestDevices:
  @pytest.mark.parametrize(
    ('options', 'asked', 'framework', 'found'),
    [
      ({}, {}, 'jax', (1, 1)),
      ({}, {'num_threads': 3}, 'pytorch', (1, 3)),
      ({'num_cpus': 8}, {}, 'jax', (1, 8)),
      ({'num_cpus': 8, 'num_gpus': 4}, {}, 'pytorch', (4, 2)),
      ({'num_gpus': 4}, {}, 'jax', (1, None)),
      ({'num_gpus': 4, 'num_nodes': 2}, {}, 'pytorch', (8, None)),
      ({'num_gpus': 4, 'num_nodes': 2}, {}, 'jax', (2, None)),
      ({'num_nodes': 2, 'num_cpus': 6}, {'num_devices': 4}, 'pytorch', (4, 3)),
      ({'num_nodes': 2, 'num_cpus': 6}, {}, 'pytorch', (2, 6)),
    ],
  )
  def test_processes_and_threads_follow_from_what_is_asked_for(
    self, options, asked, framework, found, monkeypatch
  ):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,2')  # of this machine, which do not count
    asked = Devices(**asked)
    launcher = SlurmLauncher(options=SlurmOptions(**options), asked=asked)
    devices = launcher.devices(asked, framework)
    assert (devices.world_size, devices.num_threads) == found

  def test_devices_that_do_not_divide_among_the_nodes(self):
    asked = Devices(num_devices=3)
    launcher = SlurmLauncher(options=SlurmOptions(num_nodes=2), asked=asked)
    for framework in ('jax', 'pytorch'):
      with pytest.raises(errors.UserError, match='must divide evenly among its 2 nodes'):
        launcher.devices(asked, framework)


class TestParameters:
  def parameters(self, tasks: Any = None, **options: Any) -> dict[str, Any]:
    launcher = SlurmLauncher(options=SlurmOptions(**options), asked=Devices(), num_workers=2)
    return launcher._parameters('name', tasks or ((job(),),), 1)

  def test_the_limit_is_that_of_the_longest_task(self):
    tasks = ((job(at_most_sec=60.0), job(at_most_sec=61.0)), (job(at_most_sec=90.0),))
    assert self.parameters(tasks)['time'] == 3
    assert self.parameters(tasks, time_min=7)['time'] == 14

  def test_no_limit_is_made_up_where_one_is_not_known(self):
    assert self.parameters(((job(at_most_sec=60.0),), (job(),)))['time'] is None

  @pytest.mark.parametrize(('minutes', 'sec'), [(1, 15), (6, 90), (600, 90)])
  def test_the_signal_comes_before_the_limit(self, minutes: int, sec: int):
    assert self.parameters(time_min=minutes)['signal_delay_s'] == sec

  def test_further_options_pass_through(self):
    found = self.parameters(sbatch=('qos=high', '--exclusive', 'mem=4G'))
    assert found['additional_parameters'] == {
      'requeue': True, 'qos': 'high', 'exclusive': True, 'mem': '4G',
    }  # fmt: skip
    assert found['array_parallelism'] == 1  # there is one task

  def test_trials_share_a_job_in_their_order_and_timings_have_their_own(self):
    jobs = [job('t', is_trial=False), *map(job, 'abc'), job('u', is_trial=False), *map(job, 'de')]
    names = [''.join(one.name for one in task) for task in slurm._tasks(jobs, 2)]
    assert names == ['t', 'ab', 'c', 'u', 'de']


class TestTimeLimit:
  def test_it_is_twice_the_estimate_and_some_minutes(self, tmp_path):
    [config] = expand(fake_race.race(tmp_path, {'a': {}}, studies=1))
    planned = PlannedTrials(
      submission='a', workload=config.workload, framework='jax', num_trials=1, at_most_sec=100.0,
      expected_sec=50.0, off_clock_sec=0.0, basis='',
    )  # fmt: skip
    race_files.write_estimate(tmp_path / 'runs', [planned])
    assert time_limits(tmp_path / 'runs').of_trial(config) == 800.0
    assert time_limits(tmp_path / 'elsewhere').of_trial(config) is None  # of a budget in steps

  def test_a_budget_in_seconds_says_it(self, tmp_path):
    changes = {'suite': 'algoperf_v05', 'workloads': ('mnist',), 'studies': 1, 'smoke': False}
    try:
      [config, *_] = expand(fake_race.race(tmp_path, {'a': {}}, **changes))
    except errors.UserError:
      pytest.skip('no workload of a suite in seconds can run here')
    assert TimeLimits(estimates={}).of_trial(config) is not None


class TestQueue:
  @pytest.fixture
  def commands(self, tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Puts programs of these names, with these scripts, before all others."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')

    def put(name: str, script: str) -> None:
      (folder / name).write_text(f'#!/bin/sh\n{script}\n')
      (folder / name).chmod(0o755)

    return put

  def test_tasks_of_arrays_and_single_jobs(self, commands):
    lines = ('a|0|12|RUNNING|None', 'a|1|12|PENDING|Resources', 'b|N/A|13|TIMEOUT|TimeLimit')
    commands('squeue', '\n'.join(['cat <<END', *lines, 'END']))
    assert slurm_queue.tasks(['a', 'b']) == {
      ('a', 0): QueuedTask(job_id='12_0', state='RUNNING', reason='None'),
      ('a', 1): QueuedTask(job_id='12_1', state='PENDING', reason='Resources'),
      ('b', 0): QueuedTask(job_id='13', state='TIMEOUT', reason='TimeLimit'),
    }

  @pytest.mark.parametrize(
    ('state', 'reason', 'is_over', 'is_held'),
    [
      ('PENDING', 'Priority', False, False),
      ('PENDING', 'PartitionNodeLimit', False, True),
      ('COMPLETING', 'None', False, False),
      ('REQUEUED', 'None', False, False),
      ('CANCELLED', 'None', True, False),
      ('NODE_FAIL', 'None', True, False),
    ],
  )
  def test_states(self, state, reason, is_over, is_held):
    task = QueuedTask(job_id='1', state=state, reason=reason)
    assert (task.is_over, task.is_held) == (is_over, is_held)

  def test_a_complaint_in_the_words_of_slurm(self, commands):
    commands(
      'squeue', 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1'
    )
    with pytest.raises(slurm_queue.RefusedError, match=r'refuses squeue: .*Unable to contact'):
      slurm_queue.tasks(['a'])

  def test_nothing_is_asked_about_nothing(self, commands):
    commands('squeue', 'exit 1')
    assert slurm_queue.tasks([]) == {}

  def test_the_longest_array(self, commands):
    commands('scontrol', 'echo "MaxArraySize            = 77"')
    assert slurm_queue.max_array_size() == 77


class TestFiles:
  def test_a_journal_goes_on_after_a_cut_line(self, tmp_path):
    path = tmp_path / 'journal'
    path.write_bytes(b'{"event":"started"}\n{"event":"repl')
    assert [one.event for one in slurm_files.read_journal(path).entries] == ['started']
    writer = slurm_files.JournalWriter(path)
    writer.add(Entry(event='ended', job=1, ending=Ending.of(outcome(reason='why'))))
    journal = slurm_files.read_journal(path)
    assert journal.ending(1) == outcome(reason='why') and journal.ending(0) is None
    assert journal.has('started', 0) and not journal.has('started', 1)

  @pytest.mark.parametrize(
    ('stops', 'number'),
    [((), 0), ((False,), 1), ((True,), 0), ((False, True, False, False), 2)],
  )
  def test_stops_without_progress_are_counted(self, stops, number):
    entries = tuple(Entry(event='stopped', has_advanced=one) for one in stops)
    assert Journal(entries=entries).num_idle_stops == number

  def test_damage_is_told(self, tmp_path):
    slurm_files.append_array(tmp_path, Array(name='a', tasks=(('x',),)))
    assert slurm_files.read_arrays(tmp_path) == (Array(name='a', tasks=(('x',),)),)
    (tmp_path / 'arrays.jsonl').write_text('[]\n')
    with pytest.raises(errors.UserError, match=r'arrays\.jsonl is damaged'):
      slurm_files.read_arrays(tmp_path)

  def test_word_of_another_process(self, tmp_path):
    path = tmp_path / 'name_0.jsonl'
    slurm_files.write_failure(path, '', 2, outcome(status='failed', reason='ValueError: no'))
    found = slurm_files.read_failure(path, '', range(1, 4))
    assert found is not None and found.reason == 'rank 2: ValueError: no'
    assert slurm_files.read_failure(path, '1', range(1, 4)) is None  # of another attempt


class TestTask:
  """A task in this process, as if SLURM had started it."""

  @pytest.fixture(autouse=True)
  def _slurm(self, monkeypatch) -> None:
    place = slurm_task._Place(
      rank=0, world_size=1, local_rank=0, address='127.0.0.1', job_id='1_0', restart=''
    )
    monkeypatch.setattr(slurm_task._Place, 'found', lambda: place)
    monkeypatch.setattr('algorithmic_efficiency.launch.local.WORKER', fake_race.WORKER)

  def task(self, folder: Path, scripts: dict[str, Any], **changes: Any) -> slurm_task.Task:
    configs = expand(fake_race.race(folder, scripts, studies=1, **changes))
    jobs = tuple(
      RaceJob(name=one.submission, job=pool.PooledTrial(config=one), framework='jax')
      for one in configs
    )
    return slurm_task.Task(jobs=jobs, journal=str(folder / 'journal.jsonl'))

  def test_what_has_ended_is_not_run_again(self, tmp_path):
    task = self.task(tmp_path, {'a': {}, 'b': {'then': 'crash'}})
    slurm_task.run(task)
    slurm_task.run(task)
    assert len(fake_race.sessions(tmp_path)) == 2
    journal = slurm_files.read_journal(Path(task.journal))
    endings = [journal.ending(index) for index in (0, 1)]
    assert [one.status for one in endings if one] == ['finished', 'failed']

  def test_what_another_job_has_finished_is_not_run_again(self, tmp_path):
    task = self.task(tmp_path, {'a': {}})
    slurm_task.run(task)
    slurm_task.run(dataclasses.replace(task, journal=str(tmp_path / 'another.jsonl')))
    assert len(fake_race.sessions(tmp_path)) == 1
    ending = slurm_files.read_journal(tmp_path / 'another.jsonl').ending(0)
    assert ending is not None and ending.status == 'finished'

  @pytest.mark.parametrize('has_rows', [True, False])
  def test_a_replacing_trial_is_continued_once_it_has_rows(self, has_rows, tmp_path):
    slurm_task.run(self.task(tmp_path, {'a': {'rows': 2}}))
    (tmp_path / 'journal.jsonl').write_text('{"event":"replaced"}\n' if has_rows else '')
    task = self.task(tmp_path, {'a': {'rows': 4}}, overwrite=True)
    slurm_task.run(task)
    [log] = tmp_path.rglob('measurements.jsonl')
    assert (b'resumed_at' in log.read_bytes()) == has_rows
    assert log.read_bytes().count(b'"kind": "eval"') == 4

  def test_a_stop_interrupts_the_trial_and_asks_for_another_turn(self, tmp_path):
    code = self.stopped(tmp_path, {'a': {'rows': 3, 'then': 'hang'}})
    assert code == slurm_task.EXIT_CONTINUE
    [entry] = [one for one in self.journal(tmp_path).entries if one.event == 'stopped']
    assert entry.has_advanced

  def test_one_that_comes_no_further_is_given_up(self, tmp_path):
    (tmp_path / 'journal.jsonl').write_text('{"event":"stopped"}\n' * 2)
    assert self.stopped(tmp_path, {'a': {'rows': 0, 'then': 'hang'}}) == 1

  def journal(self, folder: Path) -> Journal:
    return slurm_files.read_journal(folder / 'journal.jsonl')

  def stopped(self, folder: Path, scripts: dict[str, Any]) -> int:
    """The exit code of a task that gets the signal of SLURM while its trial hangs."""
    task = self.task(folder, scripts)
    process = os.fork()
    if not process:
      code = 99
      try:
        slurm_task.run(task)
      except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
      finally:
        os._exit(code)
    events = {'replaced'} if scripts['a']['rows'] else {'started'}
    while not any(one.event in events for one in self.journal(folder).entries):
      assert os.waitpid(process, os.WNOHANG) == (0, 0)
    os.kill(process, slurm_task._STOP_SIGNALS[0])
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


class TestContainer:
  def test_folders_keep_their_paths_and_what_is_read_cannot_be_written(self, tmp_path):
    image = tmp_path / 'an image.sif'
    image.touch()
    command = container.python(
      str(image), has_gpus=True, writable=[tmp_path / 'runs'], read_only=[tmp_path / 'data']
    )
    echo = subprocess.check_output(
      ['bash', '-c', f'apptainer() {{ printf "%s\\n" "$@"; }}; {command}'], text=True
    )
    runs, data = tmp_path / 'runs', tmp_path / 'data'
    assert echo.splitlines() == [
      *('exec', '--nv', '--bind', f'{data}:{data}:ro', '--bind', f'{runs}:{runs}:rw'),
      *(str(image), 'python3'),
    ]

  def test_an_image_that_is_not_there(self):
    with pytest.raises(errors.UserError, match='--container must be an image'):
      container.python('nowhere.sif', has_gpus=False, writable=[], read_only=[])


class TestMistakes:
  def message(self, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main([*BENCH, *flags]) == 2
    return capsys.readouterr().err

  def test_a_flag_that_means_nothing_here(self, capsys):
    assert '--slurm_gpus needs --launcher slurm' in self.message(capsys, '--slurm_gpus', '2')
    assert '--detach needs --launcher slurm' in self.message(capsys, '--detach')

  def test_no_slurm(self, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    flags = ('--launcher', 'slurm', '--smoke', '--workloads', 'quick_vision')
    said = self.message(capsys, *flags, '--frameworks', 'jax')
    assert 'needs the commands of SLURM; sbatch, squeue, scancel, scontrol not found' in said
    made = {path.name for path in tmp_path.rglob('*') if path.is_dir()}
    assert made <= {'races', 'quick_self_smoke'}

  @pytest.mark.parametrize(
    ('option', 'message'),
    [
      ({'sbatch': ('=high',)}, '--slurm_option must be NAME=VALUE or NAME'),
      ({'time_min': 0}, '--slurm_time must be positive'),
      ({'num_nodes': 0}, '--slurm_nodes must be positive'),
      ({'trials_per_job': -1}, '--trials_per_job must be positive'),
    ],
  )
  def test_values(self, option, message):
    with pytest.raises(errors.UserError, match=message):
      SlurmOptions(**option)

  def test_steps_are_timed_on_one_node(self, tmp_path):
    changes = {'slurm': {'num_nodes': 2}, 'smoke': False}
    with pytest.raises(errors.UserError, match='which are timed on one node'):
      fake_race.race(tmp_path, {'a': {}}, **changes)

  def test_jobs_in_the_queue_are_not_run_over(self, tmp_path, monkeypatch):
    race = fake_race.race(tmp_path, {'a': {}}, slurm={}, overwrite=True)
    monkeypatch.setattr(SlurmLauncher, 'left_running', lambda self, folder: {'a'})
    with pytest.raises(errors.UserError, match='--overwrite would run into them'):
      race_run.run(race, quiet=True)


def test_costs_are_appended_by_one_process_at_a_time(tmp_path):
  cost = race_files.StepCost(
    submission='a' * 5000, baseline='b', workload='w', framework='jax', study=1, host='h',
    rounds=((1.0, 1.0, 1.0),),
  )  # fmt: skip
  children = []
  for _ in range(4):
    children.append(os.fork())
    if not children[-1]:
      for study in range(25):
        race_files.append_costs(tmp_path, [dataclasses.replace(cost, study=study)])
      os._exit(0)
  assert {os.waitpid(child, 0)[1] for child in children} == {0}
  assert len(race_files.read_costs(tmp_path)) == 100
