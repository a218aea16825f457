"""The process of a trial in which a limit of initialising is shorter than it is.

Run as `limits_worker.py LIMIT=SEC DESCRIPTOR PARENT`, where LIMIT is `free_init_sec`, what may be
taken, or `min_init_sec`, below which nothing is called long.
"""

from __future__ import annotations

import dataclasses
import sys

from algorithmic_efficiency.trial import monitor, process, worker


def shorten(limit: str) -> None:
  name, _, seconds = limit.partition('=')
  if name == 'min_init_sec':
    monitor._MIN_INIT_SEC = float(seconds)
    return
  assert name == 'free_init_sec', name
  charge = process.charge_initialisation

  def charge_sooner(run_sec, rules, stopwatch):
    charge(run_sec, dataclasses.replace(rules, free_init_sec=float(seconds)), stopwatch)

  process.charge_initialisation = charge_sooner


if __name__ == '__main__':
  shorten(sys.argv[1])
  sys.exit(worker.main(sys.argv[1:]))
