"""The process of a trial that trains nothing: it takes milliseconds and imports no framework.

It speaks the protocol of the real one, writes its rows through the real log, and goes on where it
was cut off. The submission's file is its script, as JSON:

  rows, row_sec: how many evaluations it writes, and how long each takes.
  damage: the name of a file in its folder, and what it is made to hold after the last row.
  forges: what it writes into its pipe then, as it is.
  then: how it ends: finish (default), crash, oom (an exception about memory), kill, mistake, hang.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from algorithmic_efficiency import clock
from algorithmic_efficiency.results import measurements
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.worker import die_with

SESSIONS_FILE = 'sessions.txt'  # beside the submission, a line for each process


def main(argv: list[str]) -> int:
  report = Reporter(int(argv[1]))
  die_with(int(argv[2]))
  report.send('start', age_sec=time.perf_counter() - clock.PROCESS_START)
  config = TrialConfig.from_json(sys.stdin.read())
  script = {'rows': 3, 'row_sec': 0.0, 'forges': '', 'damage': None, 'then': 'finish'}
  script |= json.loads(Path(config.submission_path).read_text() or '{}')
  with open(Path(config.submission_path).with_name(SESSIONS_FILE), 'a') as sessions:
    cpus = ','.join(map(str, sorted(os.sched_getaffinity(0))))
    sessions.write(f'{os.getpid()} {cpus} {config.folder}\n')
  begun = (config.path / measurements.LOG_FILE).exists()
  done = measurements.read(config.path).evals if begun else []
  log = measurements.RunLog.open(
    config.path, header={}, resumed_at=len(done) if begun and config.resume else None
  )
  offset = (config.path / measurements.LOG_FILE).stat().st_size
  devices = {'num_threads': config.devices.num_threads}
  record = dataclasses.replace(config.record(), environment={'devices': devices})
  record.write(config.path)
  report.send('begin')
  for step in range(len(done) + 1, script['rows'] + 1):
    time.sleep(script['row_sec'])
    line = log.append_eval({'validation/accuracy': 0.5}, step)
    report.send('row', line=line, global_step=step)
  if script['damage']:
    (config.path / script['damage'][0]).write_text(script['damage'][1])
  os.write(int(argv[1]), script['forges'].encode())
  status, stop_reason, reason = 'finished', 'budget_spent', ''
  if script['then'] == 'crash':
    status, stop_reason, reason = 'failed', 'failed', 'ValueError: as the script says'
  elif script['then'] == 'oom':
    status, stop_reason, reason = 'failed', 'out_of_memory', 'MemoryError: as the script says'
  elif script['then'] == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
  elif script['then'] == 'mistake':
    report.send('user_error', message='A mistake that can be mended.')
  elif script['then'] == 'hang':
    time.sleep(1000)
  if status == 'finished':
    line = log.append_end({'score': 1.0}, script['rows'])
    report.send('row', line=line, global_step=script['rows'])
  log.close()
  wall = time.perf_counter() - clock.PROCESS_START
  record = dataclasses.replace(
    record, status=status, stop_reason=stop_reason, reason=reason, buckets={'update': wall}
  )
  record.write(config.path)
  report.send(
    'ended',
    status=status,
    stop_reason=stop_reason,
    reason=reason,
    wall_sec=time.perf_counter() - clock.PROCESS_START,
    log_offset=offset,
  )
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
