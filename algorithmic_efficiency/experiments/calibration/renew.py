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
  validation_values,
)
from algorithmic_efficiency.trial.run_options import data_dir


def renewed(record: Record, root: Path) -> Record:
  """Returns a record with the figures that follow from its runs.

  Args:
    root: the folder of prepared data sets.

  Raises:
    UserError: the validation split, or the record of the other framework, cannot be read.
  """
  values = validation_values(record.reruns)
  if record.timing is not None:
    target, size = record.target, SplitSize.of_validation(registry.workload(record.workload), root)
    moved = timing.resolution(target.metric, target.validation, size)
    new = dataclasses.replace(
      record.timing, resolution=moved, spread=robust.spread(values), validation_size=size
    )
    return dataclasses.replace(record, timing=new)
  assert record.agreement is not None, 'a record has one of both'
  others = validation_values(Record.read(Path(record.from_record)).reruns)
  agreement = FrameworkAgreement.of(record.agreement.frameworks, values, others)
  return dataclasses.replace(record, agreement=agreement)


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('records', nargs='+', type=Path, metavar='RECORD')
  parser.add_argument('--data_dir', help='folder of prepared data sets')
  given = parser.parse_args(argv)
  for path in given.records:
    record = renewed(Record.read(path), data_dir(given.data_dir))
    target_page.write(record, path)
    print(f'{path}: {" ".join(target_page.verdict(record))}')


if __name__ == '__main__':
  main()
