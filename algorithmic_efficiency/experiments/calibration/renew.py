"""Writes records of calibrations anew, with what follows from their runs by the present rules.

    python -m algorithmic_efficiency.experiments.calibration.renew RECORD.json [...]

No run and no target changes. The spread over seeds, the move by one example, and the noise of two
frameworks are computed again, and the page beside the record is written.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.experiments.calibration import robust, target_page, timing
from algorithmic_efficiency.experiments.calibration.split_size import SplitSize
from algorithmic_efficiency.experiments.calibration.target_setting import (
  FrameworkAgreement,
  Record,
  Run,
  validation_values,
)
from algorithmic_efficiency.trial.run_options import data_dir


def renewed(record: Record, root: Path, others: Sequence[Run] = ()) -> Record:
  """Returns a record with the figures that follow from its runs.

  Args:
    root: the folder of prepared data sets.
    others: the reruns in the other framework, where the record compares both.

  Raises:
    UserError: the validation split cannot be read.
  """
  values = validation_values(record.reruns)
  if record.agreement is not None:
    found = FrameworkAgreement.of(record.agreement.frameworks, values, validation_values(others))
    return dataclasses.replace(record, agreement=found)
  assert record.timing is not None, 'a record has one of both'
  target, size = record.target, SplitSize.of_validation(registry.workload(record.workload), root)
  timed = dataclasses.replace(
    record.timing,
    resolution=timing.resolution(target.metric, target.validation, size),
    spread=robust.spread(values),
    validation_size=size,
  )
  return dataclasses.replace(record, timing=timed)


def _others(record: Record, path: Path) -> Sequence[Run]:
  """Reads the reruns of the record that a record compares with, which may lie beside it."""
  if record.agreement is None:
    return ()
  beside = path.with_name(Path(record.from_record).name)
  return Record.read(beside if beside.is_file() else Path(record.from_record)).reruns


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('records', nargs='+', type=Path, metavar='RECORD')
  parser.add_argument('--data_dir', help='folder of prepared data sets')
  given = parser.parse_args(argv)
  for path in given.records:
    record = Record.read(path)
    record = renewed(record, data_dir(given.data_dir), _others(record, path))
    target_page.write(record, path)
    print(f'{path}: {" ".join(target_page.verdict(record))}')


if __name__ == '__main__':
  main()
