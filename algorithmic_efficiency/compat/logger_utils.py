"""AlgoPerf's `logger_utils`, of which nothing is offered."""

from __future__ import annotations

from algorithmic_efficiency.compat import absent

_REASON = (
  'the harness writes all files of a trial; a submission logs with '
  'workload.metrics_logger.append_scalar_metrics(metrics, global_step)'
)


def __getattr__(name: str) -> absent.Absent:
  return absent.named('logger_utils', name, _REASON)
