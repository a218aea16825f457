"""Runs a trial in intervals.

Started as `python -m algorithmic_efficiency.trial.step_worker DESCRIPTOR PARENT`.

The first line of standard input is the trial config. Each further line is an order for an interval,
answered by a message through the pipe DESCRIPTOR. Steps, evaluations, rows and checkpoints are made
as in any trial. The process ends with its input, or with its parent.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from algorithmic_efficiency import errors
from algorithmic_efficiency.trial import guard
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.step_timer import StepTimer
from algorithmic_efficiency.trial.worker import (
  EXIT_FAILED,
  EXIT_USER_ERROR,
  die_with,
  take_up,
)

if TYPE_CHECKING:
  from algorithmic_efficiency.trial.loop import TrialRun


def main(argv: list[str]) -> int:
  descriptor, parent = int(argv[1]), int(argv[2])
  die_with(parent)
  report = Reporter(descriptor)
  orders = os.fdopen(os.dup(0))
  config = TrialConfig.from_json(orders.readline())
  take_up(config)
  from algorithmic_efficiency.trial.process import TrialProcess

  process = TrialProcess(config, Reporter(None))
  try:
    assembled = process.prepare()
    run, parts = assembled.run, assembled.parts
    eval_batch_size = parts.eval_workload.eval_batch_size
    report.send('ready', eval_batch_size=eval_batch_size, clock_sec=run.watch.total())
    for line in orders:
      interval = obey(run, **json.loads(line))
      report.send('interval', **interval, peak_memory_bytes=parts.backend.peak_memory_bytes())
  except errors.UserError as error:
    report.send('failed', reason=str(error), mendable=True)
    return EXIT_USER_ERROR
  except BaseException as error:  # whatever it is, the parent hears of it
    traceback.print_exc()
    report.send('failed', reason=process.one_line(error), mendable=False)
    return EXIT_FAILED
  finally:
    guard.end_untrusted_processes()
  process.finish(status='finished', stop_reason='step_limit', reason='')
  return 0


def obey(
  run: TrialRun,
  *,
  num_steps: int,
  max_batches: int | None,
  generate: bool = False,
  each_step: bool = False,
) -> dict[str, Any]:
  """Runs an interval: steps, and an evaluation at its end if asked for.

  It begins without batches made ahead, and no data worker runs after it.

  Args:
    max_batches: batches of each split in the evaluation; None evaluates nothing.
    generate: whether the evaluation generates what the definition has generated.
    each_step: whether to wait for the device after each step, and time it by itself.

  Returns:
    The steps, charged steps, and seconds by bucket of the clock that the interval took. With
    `each_step`, also the seconds of each step that did not compile.
  """
  position, watch = run.position, run.watch
  watch.lap('setup')  # waiting for the order is none of the trial's time
  before, charged_before = watch.buckets(), position.charged_steps
  first = position.global_step
  rules = run.rules.for_interval(
    first + num_steps, evaluate=max_batches is not None, generate=generate
  )
  timer = StepTimer(watch.last, max_in_flight=1) if each_step else None
  run.run_interval(rules, max_batches=max_batches, timer=timer)
  run.queue.pause()  # other trials are timed while this one waits
  return {
    'num_steps': position.global_step - first,
    'charged_steps': position.charged_steps - charged_before,
    'buckets': {name: seconds - before[name] for name, seconds in watch.buckets().items()},
    'step_secs': [seconds for seconds, _ in timer.last_bursts] if timer else [],
  }


if __name__ == '__main__':
  sys.exit(main(sys.argv))
