"""Names inside records that version 0.1.0 wrote and that have changed since.

Records under either name are read until version 0.3; only the new names are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
CALIBRATION: Mapping[str, str] = {'goal': 'target'}


def renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
  """The fields by their new names; a field that has both names keeps the value of the new one.

  Raises:
    TypeError: it is no mapping.
  """
  if not isinstance(fields, Mapping):
    raise TypeError('it is no JSON object')
  found = {names.get(name, name): value for name, value in fields.items()}
  return found | {new: fields[new] for new in names.values() if new in fields}


def renamed_trial(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a `trial.json` with the names and stop reasons of this version.

  Raises:
    TypeError: it is no mapping.
  """
  found = renamed(fields, {})
  reason = found.get('stop_reason')
  if isinstance(reason, str):
    found['stop_reason'] = STOP_REASONS.get(reason, reason)
  if isinstance(found.get('environment'), dict):
    found['environment'] = renamed(found['environment'], ENVIRONMENT)
  return found
