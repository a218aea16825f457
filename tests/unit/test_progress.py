"""What is shown of a trial while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
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
    batch_size=0,
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


def line_of(tmp_path: Path, capsys, **fields: object) -> str:
  with progress.TrialDisplay('mine', config(tmp_path, workload='quick_vision'), 1, 1) as display:
    display.message(msgspec.structs.replace(message(20), **fields))
  return capsys.readouterr().out


def test_examples_a_second_are_of_the_batch_size_that_the_submission_asked_for(tmp_path, capsys):
  """Regression: they were of the batch size of the definition."""
  assert '  24 examples/s' in line_of(tmp_path, capsys, steps_per_sec=3.0, batch_size=8)
  assert 'examples/s' not in line_of(tmp_path, capsys, steps_per_sec=3.0)


def test_an_earlier_evaluation_is_shown_with_its_step(tmp_path, capsys):
  """Regression: a line paired the present step with an older evaluation."""
  row = {'validation/loss': 0.25, 'global_step': 15}
  assert 'step 20  validation loss 0.25 at step 15 (target' in line_of(tmp_path, capsys, eval=row)
  now = {**row, 'global_step': 20}
  assert 'validation loss 0.25 (target' in line_of(tmp_path, capsys, eval=now)


def test_what_others_wrote_reaches_no_terminal_as_a_command(tmp_path, capsys):
  """Regression: the reason of a trial could color, clear or rename a terminal."""
  reason = 'ValueError: \x1b[31mred\x1b[0m\x07\r\udc80'
  outcome = Outcome(folder=tmp_path, status='failed', stop_reason='failed', reason=reason)
  own = config(tmp_path, workload='quick_vision')
  for quiet in (False, True):
    with progress.TrialDisplay('mine', own, 1, 1, quiet=quiet) as display:
      display.ended(outcome)
    captured = capsys.readouterr()
    said = captured.err if quiet else captured.out
    assert r'ValueError: \x1b[31mred\x1b[0m\x07\r\udc80' in said
    assert all(letter.isprintable() for line in said.split('\n') for letter in line)


@pytest.mark.parametrize('target', ['/dev/full', 'a pipe', 'nothing'])
def test_a_trial_outlives_its_output(target, tmp_path, monkeypatch):
  """Regression: a full disk or a closed output ended the race."""
  if target == 'a pipe':
    reader, writer = os.pipe()
    os.close(reader)
  else:
    writer = os.open(target if target != 'nothing' else os.devnull, os.O_WRONLY)
  with open(writer, 'w') as stream:
    monkeypatch.setattr('sys.stdout', stream)
    if target == 'nothing':
      stream.close()
    for text in ('one', 'two'):
      progress.say(text)


@pytest.mark.parametrize(
  ('status', 'said'), [('failed', True), ('invalid', True), ('finished', False)]
)
def test_a_quiet_display_says_of_a_trial_that_failed_why(status, said, tmp_path, capsys):
  """Regression: `run --quiet` printed nothing at all."""
  outcome = Outcome(folder=tmp_path, status=status, stop_reason='failed', reason='it raised')
  own = config(tmp_path, workload='quick_vision')
  with progress.TrialDisplay('mine', own, 1, 1, quiet=True) as display:
    display.message(message(1))
    display.ended(outcome)
  captured = capsys.readouterr()
  assert not captured.out and ('mine' in captured.err and 'it raised' in captured.err) == said
