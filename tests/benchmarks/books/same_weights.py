"""Trains the language model on books from the same weights in both frameworks.

Do they stay together? Submission, schedule and batches are those of books.toml; weights and
order of the data are those with which its race begins in JAX, with this seed and in this study.
Run, with `books_lm` prepared in the folder DATA: python tests/benchmarks/books/same_weights.py DATA
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from algorithmic_efficiency import seeds, trust
from algorithmic_efficiency.backends.base import Devices
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.trial.config import TrialConfig
from algorithmic_efficiency.trial.loop import TrialRun
from algorithmic_efficiency.trial.messages import Reporter
from algorithmic_efficiency.trial.process import TrialProcess
from algorithmic_efficiency.trial.run_options import RunOptions

WORKLOAD = 'books_lm'
SUITE = Path(__file__).with_name('books.toml')
SEED, STUDY = 1, 2
CHECKPOINTS = (0, 30, 60, 90, 120, 150, 180, 210, 240)
NUM_EVAL_BATCHES = 4


def main(*arguments: str) -> None:
  """Arguments: the data folder; in a process of its own also a framework and a file of weights."""
  if len(arguments) > 1:
    print(json.dumps(_losses(*arguments)))
    return
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, __file__, *arguments]
    found = {}
    for framework in ('jax', 'pytorch'):  # the first draws the weights
      process = [*command, framework, f'{folder}/weights.npz']
      output = subprocess.run(process, check=True, stdout=subprocess.PIPE, text=True).stdout
      found[framework] = json.loads(output.splitlines()[-1])
  print('step  JAX: loss, perplexity  PyTorch: loss, perplexity  difference of the losses')
  for step, one, other in zip(CHECKPOINTS, *found.values(), strict=True):
    shown = '  '.join(f'{loss:.5f} {math.exp(loss):.2f}' for loss in (one, other))
    print(f'{step:4}  {shown}  {other - one:+.5f}')


def _losses(data_dir: str, framework: str, weights: str) -> list[float]:
  """Of the first batches of the validation split, after so many steps."""
  registry.pin_own_packages()
  trust.trust_this_thread()
  with tempfile.TemporaryDirectory() as folder:
    process = TrialProcess(_config(data_dir, framework, folder), Reporter(None))
    run = process.prepare().run
    _begin_alike(run, framework, Path(weights))
    losses = []
    for step in CHECKPOINTS:
      if step:
        run.run_interval(dataclasses.replace(run.rules, max_global_steps=step))
      state = (run.params, run.model_state, step)
      values = run.hooks.evaluate(*state, splits=('validation',), max_batches=NUM_EVAL_BATCHES)
      losses.append(values['validation/loss'])
    process.finish(status='finished', stop_reason='step_limit', reason='')
  return losses


def _begin_alike(run: TrialRun, framework: str, file: Path) -> None:
  """Writes the weights that JAX has drawn, or takes them over."""
  definition = registry.workload(WORKLOAD)
  parity = registry.module_of(definition, 'parity')
  if framework == 'jax':
    np.savez(file, **parity.to_torch(definition, run.params, run.model_state))
    return
  import torch

  state = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
  run.params.load_state_dict(state)


def _config(data_dir: str, framework: str, folder: str) -> TrialConfig:
  study_seed = seeds.derive(SEED, 'study', STUDY)
  return TrialConfig(
    workload=WORKLOAD,
    framework=framework,
    submission='nadamw',
    submission_path=str(registry.submission('nadamw', 'self').file(framework)),
    suite=str(SUITE),
    ruleset='self',
    study=STUDY,
    trial=1,
    hyperparameters=None,
    seed=seeds.derive(study_seed, 'trial', 1),
    study_seed=study_seed,
    root_seed=SEED,
    folder=str(Path(folder).resolve()),
    devices=Devices(platform='cpu'),
    options=RunOptions(data_dir=data_dir, evaluate=False, save_checkpoints=False),
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
