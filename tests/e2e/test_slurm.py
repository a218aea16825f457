"""Races on a real SLURM with two simulated nodes: nothing is lost, and nothing is repeated.

`make test-cluster` runs them. They need Debian's packages slurm-wlm and munge.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster as clusters
import fake_race
import psutil
import pytest
from cluster import Cluster
from trials import algoeff

from algorithmic_efficiency.experiments.race.race import expand
from algorithmic_efficiency.results import measurements, race_files, trial_record
from algorithmic_efficiency.results.trial_record import TrialRecord

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATIENCE_SEC = 500
ROWS = 5

pytestmark = [
  pytest.mark.long,
  pytest.mark.cluster,
  pytest.mark.timeout(1800),
  pytest.mark.skipif(
    bool(clusters.missing_programs()),
    reason=f'not installed: {", ".join(clusters.missing_programs())} (slurm-wlm, munge)',
  ),
]


@pytest.fixture(scope='module')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
  with clusters.running(tmp_path_factory.mktemp('slurm') / 'cluster') as found:
    yield found


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
  """The cluster, with both nodes up and an empty queue."""
  yield shared
  shared.clear()


class Race:
  """A race of trials that train nothing, in launchers that the test starts and ends."""

  def __init__(self, cluster: Cluster, folder: Path, scripts: dict[str, Any], **changes: Any):
    self.folder = folder
    self.changes = {'studies': 1, 'slurm': {}, **changes}
    self.scripts = scripts
    self.cluster = cluster
    self.configs = expand(fake_race.race(folder, scripts, **self.changes))

  def start(self, **slurm: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join(map(str, (HERE / 'fake_site', ROOT, ROOT / 'tests' / 'unit')))
    changes = {**self.changes, 'slurm': {**self.changes['slurm'], **slurm}}
    return subprocess.Popen(
      [
        *(sys.executable, fake_race.__file__, str(self.folder)),
        *(json.dumps(self.scripts), json.dumps(changes)),
      ],
      env={**self.cluster.environment, 'PYTHONPATH': path},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def run(self, **slurm: Any) -> tuple[int, str]:
    """Runs a launcher to its end; returns its exit code and what it has said."""
    return self.end(self.start(**slurm))

  def end(self, launcher: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = launcher.communicate(timeout=PATIENCE_SEC)
    return launcher.returncode, said

  def wait_for_rows(self, number: int = 1, trial: int = 0) -> None:
    """Waits until a trial has written so many rows."""
    log = self.configs[trial].path / measurements.LOG_FILE
    wait(lambda: log.exists() and log.read_text().count('"kind": "eval"') >= number)

  def records(self) -> list[TrialRecord | None]:
    return [trial_record.read_trial(config.path) for config in self.configs]

  def sessions(self) -> Counter[str]:
    """How often each submission has been started."""
    return Counter(
      session.trial.relative_to(self.folder / 'runs').parts[0]
      for session in fake_race.sessions(self.folder)
    )

  def check(self, rows: int = ROWS) -> None:
    """Makes sure that all trials have finished, with every row once."""
    for config, record in zip(self.configs, self.records(), strict=True):
      assert record is not None and record.status == 'finished', record
      found = measurements.read(config.path)
      assert [row['global_step'] for row in found.evals] == list(range(1, rows + 1))
      assert found.problems == [] and found.end is not None
      log = (config.path / measurements.LOG_FILE).read_text()
      assert log.count('"kind": "eval"') == rows, 'a row was made twice'


def wait(until: Callable[[], Any]) -> None:
  end = time.monotonic() + PATIENCE_SEC
  while not until():
    assert time.monotonic() < end
    time.sleep(0.1)


def script(row_sec: float = 0.0, rows: int = ROWS, **more: Any) -> dict[str, Any]:
  return {'rows': rows, 'row_sec': row_sec, **more}


class TestWhole:
  def test_all_run_once_each_and_a_failure_is_an_outcome(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {'a': script(), 'b': script(then='crash'), 'c': script()})
    code, said = race.run()
    assert code == 1
    assert [one.status for one in race.records() if one] == ['finished', 'failed', 'finished']
    assert race.sessions() == {'a': 1, 'b': 1, 'c': 1}
    assert '3 job(s)' in said and 'FAILED: ValueError: as the script says' in said
    code, said = race.run()
    assert code == 1 and race.sessions() == {'a': 1, 'b': 1, 'c': 1}
    assert 'Submitted' not in said

  def test_several_trials_a_job_run_in_order_on_one_node(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script() for name in 'abc'}, studies=2)
    code, said = race.run(trials_per_job=3)
    assert code == 0 and '2 job(s)' in said
    race.check()
    order = [session.trial for session in fake_race.sessions(tmp_path)]
    for study in (1, 2):
      ours = [path for path in order if f'study_{study}' in path.parts]
      assert [path.relative_to(tmp_path / 'runs').parts[0] for path in ours] == ['a', 'b', 'c']

  def test_one_at_a_time_comes_in_the_order_of_one_machine(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script() for name in 'ab'}, studies=2, workers=1)
    assert race.run()[0] == 0
    order = [session.trial for session in fake_race.sessions(tmp_path)]
    assert order == [config.path for config in race.configs]


class TestNothingLostNothingRepeated:
  def test_a_node_is_killed_in_the_middle(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script(2.0) for name in 'abcd'})
    launcher = race.start()
    race.wait_for_rows(2)
    [node] = {line.split()[2] for line in cluster.queue() if line.split()[0].endswith('_0')}
    cluster.kill_node(node)
    time.sleep(1)
    cluster.start_node(node)
    code, said = race.end(launcher)
    assert code == 0, said
    race.check()
    assert race.sessions()['a'] == 2

  def test_a_job_is_canceled_by_hand(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script(1.0) for name in 'ab'})
    launcher = race.start()
    race.wait_for_rows(2)
    [job] = {line.split()[0] for line in cluster.queue() if line.split()[0].endswith('_0')}
    cluster.command('scancel', job)
    code, said = race.end(launcher)
    assert code == 1 and 'interrupted' in said
    assert [one.stop_reason for one in race.records() if one] == ['interrupted', 'budget_spent']
    assert race.run()[0] == 0
    race.check()
    assert race.sessions() == {'a': 2, 'b': 1}

  def test_a_time_limit_is_reached(self, cluster, tmp_path):
    """SLURM gives the signal at the middle of a minute or so, and looks twice a minute."""
    race = Race(cluster, tmp_path, {'a': script(3.0, rows=12), 'b': script()})
    code, said = race.run(time_min=1)
    assert code == 0, said
    for config, rows in zip(race.configs, (12, ROWS), strict=True):
      found = measurements.read(config.path)
      assert [row['global_step'] for row in found.evals] == list(range(1, rows + 1))
      log = (config.path / measurements.LOG_FILE).read_text()
      assert log.count('"kind": "eval"') == rows
    assert race.sessions()['a'] > 1 and race.sessions()['b'] == 1

  def test_the_launcher_is_killed_and_its_jobs_are_picked_up_again(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script(2.0) for name in 'ab'}, studies=3)
    launcher = race.start()
    race.wait_for_rows()
    launcher.kill()
    launcher.wait()
    code, said = race.run()
    assert code == 0, said
    assert 'Submitted' not in said
    race.check()
    assert race.sessions() == {'a': 3, 'b': 3}

  def test_jobs_are_left_running_and_picked_up_again(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script(1.0) for name in 'ab'}, studies=2)
    code, said = race.run(detach=True)
    assert code == 0 and 'left running' in said
    race.wait_for_rows()
    code, said = race.run(detach=True)
    assert code == 0 and 'Submitted' not in said
    code, said = race.run()
    assert code == 0 and 'Submitted' not in said
    race.check()
    assert race.sessions() == {'a': 2, 'b': 2}

  def test_an_interrupt_cancels_the_jobs_and_the_same_command_goes_on(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {name: script(1.0) for name in 'ab'}, studies=3)
    launcher = race.start()
    race.wait_for_rows(2)
    launcher.send_signal(signal.SIGINT)
    race.end(launcher)
    assert cluster.queue() == []
    assert race.records()[0].stop_reason == 'interrupted'
    assert race.run()[0] == 0
    race.check()

  def test_a_killed_launcher_of_a_replacing_race_is_followed_by_none_that_replaces(
    self, cluster, tmp_path
  ):
    race = Race(cluster, tmp_path, {'a': script(8.0)}, overwrite=True)
    launcher = race.start()
    race.wait_for_rows()
    launcher.kill()
    launcher.wait()
    code, said = race.run()
    assert code == 1 and '--overwrite would run into them' in said
    race.changes['overwrite'] = False
    assert race.run()[0] == 0
    race.check()
    assert race.sessions() == {'a': 1}

  def test_a_replaced_trial_that_is_put_back_into_the_queue_goes_on(self, cluster, tmp_path):
    Race(cluster, tmp_path, {'a': script(rows=2)}).run()
    race = Race(cluster, tmp_path, {'a': script(1.0)}, overwrite=True)
    launcher = race.start()
    wait(lambda: race.sessions()['a'] == 2)
    race.wait_for_rows(3)
    [job] = {line.split()[0] for line in cluster.queue()}
    cluster.command('scontrol', 'requeue', job)
    code, said = race.end(launcher)
    assert code == 0, said
    race.check()
    assert race.sessions() == {'a': 3}


class TestRefused:
  @pytest.mark.parametrize(
    ('slurm', 'message'),
    [
      ({'partition': 'nowhere'}, 'invalid partition specified: nowhere'),
      ({'num_gpus': 4}, 'Invalid generic resource'),
      ({'sbatch': ['no_such_option=1']}, 'SLURM refuses the jobs'),
    ],
  )
  def test_what_the_cluster_does_not_have(self, slurm, message, cluster, tmp_path):
    race = Race(cluster, tmp_path, {'a': script()})
    code, said = race.run(**slurm)
    assert code == 1
    assert message in said.splitlines()[-1]
    assert cluster.queue() == []
    assert race.records() == [None]
    assert race.run()[0] == 0

  def test_a_full_queue(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {'a': script()}, studies=3)
    cluster.command('scontrol', 'update', 'PartitionName=main', 'State=DOWN')
    try:
      launcher = race.start(partition='main')
      wait(lambda: cluster.queue())
      time.sleep(3)
      assert launcher.poll() is None
    finally:
      cluster.command('scontrol', 'update', 'PartitionName=main', 'State=UP')
    code, said = race.end(launcher)
    assert code == 0 and 'Jobs that wait: 3 for PartitionDown' in said
    race.check()

  def test_the_controller_does_not_answer(self, cluster, tmp_path):
    race = Race(cluster, tmp_path, {'a': script(12.0)})
    launcher = race.start()
    race.wait_for_rows()
    cluster.stop_controller()
    try:
      other = Race(cluster, tmp_path / 'other', {'a': script()})
      code, said = other.run()
      assert code == 1 and 'SLURM refuses scontrol: Slurmctld' in said.splitlines()[-1]
      assert launcher.poll() is None
    finally:
      cluster.start_controller()
    code, said = race.end(launcher)
    assert code == 0, said
    race.check()
    assert race.sessions() == {'a': 1}


COMMAND = (
  *('bench', '--suite', 'quick', '--workloads', 'quick_vision', '--ruleset', 'self'),
  *('--platform', 'cpu', '--seed', '1', '--studies', '1', '--no_score', '--allow_provisional'),
)
TWO_NODES = ('--launcher', 'slurm', '--slurm_nodes', '2', '--num_devices', '2')


def steps(runs: Path) -> dict[str, list[dict[str, Any]]]:
  """The rows of all trials without their times, by the trial's folder."""
  found = {}
  for file in sorted(runs.rglob(measurements.LOG_FILE)):
    evals = measurements.read(file.parent).evals
    found[str(file.parent.relative_to(runs))] = [
      {name: value for name, value in row.items() if '/' in name or name == 'global_step'}
      for row in evals
    ]
  return found


class TestReal:
  def test_three_submissions_make_the_steps_of_one_machine(self, cluster, tmp_path):
    flags = (
      *('--submissions', 'nadamw,nesterov,momentum', '--frameworks', 'jax'),
      *('--max_global_steps', '40', '--num_threads', '1'),
    )
    for name, more in {'here': (), 'there': ('--launcher', 'slurm')}.items():
      result = algoeff(
        *(*COMMAND, *flags, *more, '--experiment_dir', name),
        cwd=tmp_path, env=cluster.environment, timeout=900,
      )  # fmt: skip
      assert result.returncode == 0, result.stdout + result.stderr
    here, there = steps(tmp_path / 'here'), steps(tmp_path / 'there')
    assert len(here) == 3 and here == there
    assert all(rows[-1]['global_step'] == 40 for rows in there.values())
    costs = race_files.read_costs(tmp_path / 'there')
    assert {cost.submission for cost in costs} == {'nadamw', 'nesterov', 'momentum'}
    [host] = {cost.host for cost in costs}
    records = [trial_record.read_trial(tmp_path / 'there' / name) for name in there]
    assert {one.environment['host_hash'] for one in records if one} == {host}


class TestSeveralNodes:
  @pytest.mark.parametrize('framework', ['jax', 'pytorch'])
  def test_a_trial_has_a_process_on_each(self, framework, cluster, tmp_path):
    flags = ('--submissions', 'nadamw', '--frameworks', framework, '--smoke')
    for name, more in {'here': ('--num_devices', '2'), 'there': TWO_NODES}.items():
      result = algoeff(
        *(*COMMAND, *flags, *more, '--num_threads', '1', '--experiment_dir', name),
        cwd=tmp_path, env=cluster.environment, timeout=600,
      )  # fmt: skip
      assert result.returncode == 0, result.stdout + result.stderr
    here, there = steps(tmp_path / 'here'), steps(tmp_path / 'there')
    [mine], [theirs] = here.values(), there.values()
    assert [row['global_step'] for row in mine] == [row['global_step'] for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
      assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    [record] = [trial_record.read_trial(tmp_path / 'there' / name) for name in there]
    assert record is not None and record.environment['devices']['world_size'] == 2

  @pytest.mark.parametrize('framework', ['jax', 'pytorch'])
  def test_a_process_that_dies_ends_the_trial_and_the_race_goes_on(
    self, framework, cluster, tmp_path
  ):
    flags = ('--submissions', 'nadamw,momentum', '--frameworks', framework, '--stop_at', 'never')
    command = [sys.executable, '-m', 'algorithmic_efficiency', *COMMAND, *flags, *TWO_NODES]
    launcher = subprocess.Popen(
      [*command, '--max_global_steps', '300', '--workers', '1'],
      cwd=tmp_path, env=cluster.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait(lambda: list(tmp_path.rglob('checkpoint_*')))
    [second] = [process for process in workers(cluster) if process.environ()['SLURM_PROCID'] == '1']
    second.kill()
    said, _ = launcher.communicate(timeout=PATIENCE_SEC)
    assert launcher.returncode == 1
    records = {
      name: trial_record.read_trial(tmp_path / 'runs' / name) for name in steps(tmp_path / 'runs')
    }
    first, other = (
      next(record for name, record in records.items() if name.startswith(f'{submission}/'))
      for submission in ('nadamw', 'momentum')
    )
    assert first is not None and first.status == 'failed'
    assert 'rank 1' in first.reason and 'SIGKILL' in first.reason, first.reason
    assert other is not None and other.status == 'finished', said


def workers(cluster: Cluster) -> list[psutil.Process]:
  """The processes of trials on the nodes of a cluster."""
  found = []
  for process in psutil.process_iter():
    with contextlib.suppress(psutil.Error):
      is_ours = process.environ().get('SLURM_CONF') == cluster.environment['SLURM_CONF']
      if is_ours and 'algorithmic_efficiency.trial.worker' in process.cmdline():
        found.append(process)
  return found
