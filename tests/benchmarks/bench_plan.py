"""What it costs to know what a race will cost: a probe, and the timing of a step, in seconds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from algorithmic_efficiency import backends
from algorithmic_efficiency.experiments.race import probe, step_cost
from algorithmic_efficiency.experiments.race.race import Race, RaceSubmission, expand
from algorithmic_efficiency.launch.slots import slots
from algorithmic_efficiency.results import race_files
from algorithmic_efficiency.trial.run_options import RunOptions

SUBMISSIONS = ('nadamw', 'twin', 'other')  # all of them nadamw


def main() -> None:
  for framework in backends.FRAMEWORKS:
    with tempfile.TemporaryDirectory() as folder:
      _measure(framework, Path(folder))


def _measure(framework: str, folder: Path) -> None:
  race = Race(
    suite='quick',
    workloads=('quick_vision',),
    entries=tuple(RaceSubmission(submission='nadamw', name=name) for name in SUBMISSIONS),
    frameworks=(framework,),
    ruleset='self',
    studies=1,
    options=RunOptions(allow_provisional=True),
    experiment_dir=str(folder),
  )
  configs = expand(race)
  [slot] = slots(race.devices)
  probe.probe(configs[0], slot)  # fills the compilation cache
  begin = time.perf_counter()
  found = probe.probe(configs[0], slot, limit_sec=probe.SEC_PER_WORKLOAD / len(SUBMISSIONS))
  between = time.perf_counter()
  step_cost.measure(configs, folder, slot)
  end = time.perf_counter()
  costs = ', '.join(f'{one.log_cost:+.1%}' for one in race_files.read_costs(folder))
  print(
    f'{framework}: a probe {between - begin:.1f} s, of which {found.start_sec:.1f} s to start; '
    f'bursts of {len(SUBMISSIONS)} submissions {end - between:.1f} s; what copies of the baseline '
    f'seem to cost more: {costs}'
  )


if __name__ == '__main__':
  main()
