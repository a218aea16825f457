"""What a trial is made of, as the rules of its suite say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from algorithmic_efficiency.clock import Stopwatch
from algorithmic_efficiency.trial import parts
from algorithmic_efficiency.trial.config import TrialConfig


class FakeBackend:
  """A backend that keeps what its workloads are made with."""

  num_devices = 1

  def __init__(self):
    self.made = []

  def for_submission(self, uses):
    return self

  def workload(self, definition, task, budget, **options):
    self.made.append((definition.name, options))


def config(workload: str, suite: str) -> TrialConfig:
  return TrialConfig(
    workload=workload,
    framework='jax',
    submission='mine',
    submission_path='x',
    suite=suite,
    ruleset='self',
    study=1,
    trial=1,
    hyperparameters=None,
    seed=1,
    study_seed=1,
    root_seed=1,
    folder='x',
  )


@pytest.mark.parametrize(
  ('workload', 'suite', 'expected'),
  [('mnist', 'algoperf_v06', True), ('mnist_relu', 'lite', False)],
)
def test_workloads_have_the_batch_norm_of_their_suite(workload, suite, expected, monkeypatch):
  backend = FakeBackend()
  submission = SimpleNamespace(
    uses=frozenset(),
    restored=(),
    batch_size=lambda names, default, num_devices: (default, ''),
    eval_batch_size=lambda names, default, num_devices: default,
  )
  monkeypatch.setattr(parts.backends, 'start', lambda framework, devices: backend)
  monkeypatch.setattr(parts.submissions, 'load', lambda path, framework: submission)
  monkeypatch.setattr(parts.TaskCode, 'of', lambda definition, framework: None)
  monkeypatch.setattr(parts, '_prepare_absl', lambda: None)
  parts.gather(config(workload, suite), Stopwatch(start=0.0))
  options = {'eval_batch_size': 10_000, 'running_average_bn': expected}
  assert backend.made == 2 * [(workload, options)]  # of the submission, and of the evaluations
