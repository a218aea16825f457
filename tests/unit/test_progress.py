"""What is shown of a trial while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_local_launch import config

from algorithmic_efficiency.launch import progress
from algorithmic_efficiency.launch.outcome import Outcome
from algorithmic_efficiency.trial.messages import Progress


def message(step: int) -> Progress:
  return Progress(
    global_step=step,
    charged_steps=step,
    submission_time=0.5,
    total_duration=1.0,
    eval={'validation/accuracy': 0.25},
    steps_per_sec=0.0,
  )


@pytest.mark.parametrize(('steps', 'shown'), [([1], ['step 1']), ([1, 2], ['step 1', 'step 2'])])
def test_each_line_is_said_once(steps, shown, tmp_path: Path, capsys):
  """Regression: a trial that ended with its first evaluation said its last line twice."""
  with progress.TrialDisplay('mine', config(tmp_path, workload='quick_vision'), 1, 1) as display:
    for step in steps:
      display.message(message(step))
    outcome = Outcome(folder=tmp_path, status='finished', stop_reason='diverged', reason='')
    display.ended(outcome)
  heading, *lines, last = capsys.readouterr().out.splitlines()
  assert (heading, last) == ('mine', '  ended: diverged')
  assert [line.split('  ')[1] for line in lines] == shown
