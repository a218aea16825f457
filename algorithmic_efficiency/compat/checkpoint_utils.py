"""AlgoPerf's `checkpoint_utils`, of which nothing is offered."""

from __future__ import annotations

from algorithmic_efficiency.compat import absent

_REASON = 'the harness saves and restores every trial; a submission never sees a checkpoint'


def __getattr__(name: str) -> absent.Absent:
  return absent.named('checkpoint_utils', name, _REASON)
