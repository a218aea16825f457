"""A real SLURM on this machine: munged, slurmctld, and a slurmd for each of its simulated nodes.

It needs Debian's packages slurm-wlm and munge, and no rights: the daemons belong to the user who
runs the tests. `python cluster.py FOLDER` starts one and keeps it until its input ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NODES = ('n1', 'n2')
CPUS = 2  # of each node; that the machine has as many is not asked
PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'squeue', 'scancel', 'scontrol')
START_SEC = 60

_CONF = """
ClusterName=algoeff
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoAddrCache
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MessageTimeout=10
SchedulerParameters=sched_min_interval=500000
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=2000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=2000
PartitionName=main Nodes=n1,n2 Default=YES DefaultTime=30 MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
  """The programs of SLURM that are not there. Debian's daemons lie where users do not look."""
  return [name for name in PROGRAMS if _program(name) is None]


def _program(name: str) -> str | None:
  return shutil.which(name, path=os.pathsep.join((os.environ['PATH'], '/usr/sbin', '/sbin')))


@dataclass
class Cluster:
  """A cluster that runs.

  Attributes:
    environment: the variables by which SLURM's commands find it.
  """

  folder: Path
  environment: Mapping[str, str]
  _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

  def command(self, *words: object, check: bool = True) -> str:
    """What a command of SLURM prints."""
    result = subprocess.run(
      [*map(str, words)],
      env=self.environment,
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )
    assert not (check and result.returncode), result.stderr
    return result.stdout

  def queue(self) -> list[str]:
    """Job, state and node of every job that waits or runs."""
    return self.command('squeue', '--noheader', '--array', '--format=%i %T %N').splitlines()

  def start_daemon(self, name: str, *command: str) -> None:
    with open(self.folder / f'{name}.out', 'ab') as output:
      self._daemons[name] = subprocess.Popen(
        [_program(command[0]) or command[0], *command[1:]],
        env=self.environment, stdout=output, stderr=output, start_new_session=True,
      )  # fmt: skip

  def start_node(self, node: str) -> None:
    self.start_daemon(node, 'slurmd', '-D', '-N', node)

  def kill_node(self, node: str) -> None:
    """Kills all that runs on a node at once, as a power failure does."""
    daemon = self._daemons.pop(node)
    daemon.kill()
    daemon.wait()
    for process in self._steps(node):
      with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()

  def _steps(self, node: str) -> list[psutil.Process]:
    """The processes of the jobs of a node; first those of SLURM, which would report their end."""
    ours = {'SLURM_CONF': self.environment['SLURM_CONF'], 'SLURMD_NODENAME': node}
    found = {}
    for process in psutil.process_iter():
      with contextlib.suppress(psutil.Error):
        if ours.items() <= process.environ().items():
          parents = [one for one in process.parents() if one.name().startswith('slurmstepd')]
          found |= {one.pid: one for one in (*parents, process)}
    return sorted(found.values(), key=lambda one: not one.name().startswith('slurmstepd'))

  def wait_until_idle(self) -> None:
    """Waits until all nodes can take jobs."""
    end = time.monotonic() + START_SEC
    while self.command('sinfo', '--noheader', '--Node', '--format=%t', check=False).split() != [
      'idle'
    ] * len(NODES):
      assert time.monotonic() < end, f'the cluster did not come up; see {self.folder}'
      time.sleep(0.2)

  def clear(self) -> None:
    """Cancels all jobs, and waits until both nodes are free."""
    self.command('scancel', f'--user={getpass.getuser()}')
    for name in NODES:
      if name not in self._daemons:
        self.start_node(name)
    self.wait_until_idle()

  def start_controller(self) -> None:
    self.start_daemon('slurmctld', 'slurmctld', '-D')

  def stop_controller(self) -> None:
    daemon = self._daemons.pop('slurmctld')
    daemon.terminate()
    daemon.wait()

  def stop(self) -> None:
    with contextlib.suppress(Exception):
      self.command('scancel', f'--user={getpass.getuser()}', check=False)
    for name in NODES:
      if name in self._daemons:
        self.kill_node(name)
    for daemon in self._daemons.values():
      daemon.kill()
      daemon.wait()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
  """Starts a cluster whose files lie in a folder, and ends it with the block."""
  for name in ('state', *(f'spool-{node}' for node in NODES)):
    (folder / name).mkdir(parents=True)
  folder.chmod(0o755)
  conf, key = folder / 'slurm.conf', folder / 'munge.key'
  conf.write_text(
    _CONF.format(
      host=socket.gethostname().partition('.')[0],
      user=getpass.getuser(),
      folder=folder,
      ports=_free_ports(1 + len(NODES)),
      cpus=CPUS,
    )
  )
  key.write_bytes(os.urandom(128))
  key.chmod(0o400)
  cluster = Cluster(folder, {**os.environ, 'SLURM_CONF': str(conf)})
  try:
    cluster.start_daemon(
      'munged', 'munged', '--foreground', '--force', f'--socket={folder}/munge.socket',
      f'--key-file={key}', f'--pid-file={folder}/munged.pid', f'--log-file={folder}/munged.log',
      f'--seed-file={folder}/munged.seed',
    )  # fmt: skip
    cluster.start_controller()
    for node in NODES:
      cluster.start_node(node)
    cluster.wait_until_idle()
    yield cluster
  finally:
    cluster.stop()


def _free_ports(number: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in sockets:
      one.bind(('127.0.0.1', 0))
    return [one.getsockname()[1] for one in sockets]


if __name__ == '__main__':
  with running(Path(sys.argv[1]).resolve()) as found:
    print(f'export SLURM_CONF={found.environment["SLURM_CONF"]}', flush=True)
    sys.stdin.read()
