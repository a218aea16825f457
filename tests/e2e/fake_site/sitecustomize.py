"""On PYTHONPATH, it makes the jobs of SLURM run trials that train nothing (`fake_worker`)."""

import sys

if 'submitit.core._submit' in sys.orig_argv:
  import fake_race

  from algorithmic_efficiency.launch import local

  local.WORKER = fake_race.WORKER
