"""The process of a trial in which a limit of initialising is shorter than it is.

Run as `limits_worker.py LIMIT=SEC DESCRIPTOR PARENT`, where LIMIT is `free_init_sec`, what may be
taken, or `min_init_sec`, below which nothing is called long.
"""

from __future__ import annotations

import dataclasses
import sys

from algorithmic_efficiency.experiments.check import run as check
from algorithmic_efficiency.launch import local
from algorithmic_efficiency.trial import monitor, stopping, worker


def check_within(limit: str, asked: check.Check) -> check.CheckReport:
  """Checks a submission; `limit` is empty for the limits as they are."""
  if limit:
    local.WORKER = (sys.executable, '-P', __file__, limit)
  return check.run(asked)


def shorten(limit: str) -> None:
  name, _, seconds = limit.partition('=')
  if name == 'min_init_sec':
    monitor._MIN_INIT_SEC = float(seconds)
    return
  assert name == 'free_init_sec', name
  charged = stopping.charged_init_sec

  def charged_sooner(rules, init_sec):
    return charged(dataclasses.replace(rules, free_init_sec=float(seconds)), init_sec)

  stopping.charged_init_sec = charged_sooner


if __name__ == '__main__':
  shorten(sys.argv[1])
  sys.exit(worker.main(sys.argv[1:]))
