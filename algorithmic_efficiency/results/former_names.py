"""Names inside records that version 0.1.0 wrote and that have changed since.

Records under either name are read until version 0.3; only the new names are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ESTIMATE_FILE = 'plan.json'
STOP_REASONS: Mapping[str, str] = {
  'goals_reached': 'targets_reached',
  'validation_goal_reached': 'validation_target_reached',
  'hard_limit': 'heartbeat_timeout',
}
ENVIRONMENT: Mapping[str, str] = {
  'fingerprint': 'host_hash',
  'machine_fingerprint': 'machine_hash',
}
STEP_COST: Mapping[str, str] = {'turns': 'rounds'}
POSITION: Mapping[str, str] = {
  'validation_goal': 'validation_reached',
  'test_goal': 'test_reached',
}


def renamed(fields: Any, names: Mapping[str, str]) -> Any:
  """A JSON object with its fields by their new names; any other value as it is.

  A field that has both names keeps the value of the new one.
  """
  if not isinstance(fields, dict):
    return fields
  found = {names.get(name, name): value for name, value in fields.items()}
  return found | {new: fields[new] for new in names.values() if new in fields}


def renamed_trial(fields: Any) -> Any:
  """A decoded `trial.json` with the names and stop reasons of this version."""
  if not isinstance(fields, dict):
    return fields
  found = {**fields}
  if 'environment' in found:
    found['environment'] = renamed(found['environment'], ENVIRONMENT)
  if isinstance(reason := found.get('stop_reason'), str):
    found['stop_reason'] = STOP_REASONS.get(reason, reason)
  return found
