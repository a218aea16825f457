"""What is shown of the trials of a command while they run."""

from __future__ import annotations

import dataclasses
import io
import math
import os
from pathlib import Path

import pytest
from fake_trial import FakeClock
from rich.console import Console
from tallies import ended, progress, record, said, started, tally, trial, write_rows

from algorithmic_efficiency.launch import display as module
from algorithmic_efficiency.launch import progress as lines
from algorithmic_efficiency.launch import words
from algorithmic_efficiency.launch.display import Display
from algorithmic_efficiency.launch.tally import Left, Tally, Timing
from algorithmic_efficiency.launch.view import View, aligned
from algorithmic_efficiency.trial.messages import Begin

TIMING = Timing('quick_vision', 'jax', 1)
ROW = {'global_step': 20, 'validation/loss': 0.25}


@pytest.fixture
def clock() -> FakeClock:
  return FakeClock()


def race(clock: FakeClock, folder: Path) -> Tally:
  """Two submissions on two workloads: three trials have ended, one runs, and steps are timed."""
  workloads = ('quick_vision', 'quick_lm')
  trials = [trial(name, 1, workload=one, folder=folder) for one in workloads for name in ('a', 'b')]
  write_rows(trials[0], {'global_step': 36, 'validation/loss': 0.3})
  write_rows(trials[1], {'global_step': 54, 'validation/loss': 0.3})
  found = tally(trials, clock, timings=[TIMING, TIMING])
  found.take(started(0))
  clock.spend(61.0)
  found.take(ended(0))
  for job in (2, 3, 4):
    found.take(started(job))
    clock.spend(10.0)
    found.take(ended(job, **{'status': 'failed', 'reason': 'it raised'} if job == 4 else {}))
  found.take(started(1))
  found.take(started(5))
  found.take(said(5, progress(charged_steps=20, eval={'validation/ppl': 7.5})))
  return found


def drawn(found: Tally, width: int = 100) -> list[str]:
  out = io.StringIO()
  Console(file=out, width=width).print(View(found))
  return [line.rstrip() for line in out.getvalue().splitlines()]


class TestWords:
  @pytest.mark.parametrize(
    ('low', 'high', 'shown'),
    [
      (0.0, 3.0, 'at most 5 s left'),
      (31.0, 44.0, '30 to 45 s left'),
      (60.0, 60.0, 'about 60 s left'),
      (80.0, 170.0, '60 s to 3 min left'),
      (130.0, 290.0, '2 to 5 min left'),
      (3000.0, 11_000.0, '45 min to 4 h left'),
      (200_000.0, 300_000.0, '48 to 96 h left'),
    ],
  )
  def test_a_range_of_round_numbers_that_holds_both_bounds(self, low, high, shown):
    assert words.time_left(Left(low, high)) == shown

  def test_what_is_not_known(self):
    assert words.time_left(None) == 'time left unknown'

  @pytest.mark.parametrize('exponent', [index / 7 for index in range(-14, 50)])
  def test_rounding_never_leaves_a_bound_outside(self, exponent):
    seconds = math.exp(exponent)
    assert words._round_down(seconds) <= seconds <= words._round_up(seconds)

  @pytest.mark.parametrize(
    ('stop_reason', 'word'),
    [
      *(('budget_spent', 'out of budget'), ('diverged', 'diverged')),
      *(('training_complete', 'stopped by itself'), ('step_limit', 'at the step limit')),
    ],
  )
  def test_how_a_trial_ended(self, stop_reason, word, clock):
    found = tally([trial('a', 1)], clock)
    found.take(started(0))
    found.take(ended(0, stop_reason=stop_reason))
    assert words.ending(found, 0) == word

  def test_a_trial_that_reached_the_target_says_after_how_many_steps(self, clock, tmp_path):
    assert words.ending(race(clock, tmp_path), 1) == 'reached after 54 steps'

  def test_a_trial_that_went_on_at_the_validation_target_says_both(self, clock, tmp_path):
    found = tally([trial('a', 1, folder=tmp_path)], clock)
    write_rows(trial('a', 1, folder=tmp_path), {'global_step': 54, 'validation/loss': 0.3})
    found.take(started(0))
    found.take(ended(0, stop_reason='budget_spent'))
    said = 'out of budget, the validation target reached after 54 steps'
    assert words.ending(found, 0) == said

  def test_the_line_of_a_trial_that_ended(self, clock, tmp_path):
    found = race(clock, tmp_path)
    assert words.ended_line(found, 0) == (
      '[3/4] a on quick_vision (jax), study 1, trial 1: reached after 36 steps, 10 s; '
      '45 to 90 s left'
    )
    assert ', trial 1: FAILED: it raised, 10 s; ' in words.ended_line(found, 2)

  def test_an_earlier_evaluation_is_shown_with_its_step(self, clock):
    """Regression: a line paired the present step with an older evaluation."""
    found = tally([trial('a', 1)], clock)
    found.take(started(0))
    found.take(said(0, progress(eval={**ROW, 'global_step': 15})))
    assert 'validation loss 0.25 at step 15 (target' in words.metric(found, 0)
    found.take(said(0, progress(eval=ROW)))
    assert 'validation loss 0.25 (target' in words.metric(found, 0)

  def test_examples_a_second_are_of_the_batch_size_that_the_submission_asked_for(self, clock):
    """Regression: they were of the batch size of the definition."""
    found = tally([trial('a', 1)], clock)
    found.take(started(0))
    found.take(said(0, progress(steps_per_sec=3.0, batch_size=8)))
    assert words.speed(found, 0) == '24 examples/s'
    found.take(said(0, progress(steps_per_sec=3.0)))
    assert not words.speed(found, 0)

  def test_a_line_for_each_running_job(self, clock, tmp_path):
    assert words.running_lines(race(clock, tmp_path)) == [
      'timing step costs on quick_vision (jax), study 1, 0 s',
      'b on quick_lm (jax), study 1, trial 1: training, 20 of 640 steps, '
      'validation ppl 7.5 (target 5.422)',
    ]


class TestView:
  def test_what_runs_and_who_leads(self, clock, tmp_path):
    assert drawn(race(clock, tmp_path)) == [
      '3 of 4 trials ended, 1 failed, 45 to 90 s left',
      'timing step costs on quick_vision (jax), study 1, 0 s',
      'b on quick_lm, study 1  training    20 of 640 steps  ppl 7.5 (target ≤ 5.422)',
      'Who leads so far, in plain steps to the target:',
      '   submission  ratio  quick_vision      quick_lm',
      '1  a            1.00      36 (1/1)  missed (0/1)',
      '2  b            1.50      54 (1/1)',
    ]

  @pytest.mark.parametrize('width', [24, 40, 60, 80])
  def test_a_narrow_terminal_has_whole_lines_and_numbers(self, width, clock, tmp_path):
    shown = drawn(race(clock, tmp_path), width)
    assert len(shown) == 7 and max(map(len, shown)) <= width
    assert any('1.50' in line for line in shown)

  def test_the_phases_of_a_trial(self, clock):
    found = tally([trial('a', 1)], clock)
    found.take(started(0))
    shown = [drawn(found)[1]]
    for message in (Begin(), progress(), progress(is_evaluating=True)):
      found.take(said(0, message))
      shown.append(drawn(found)[1])
    assert [line.partition('  ')[2] for line in shown] == [
      *('starting', 'compiling', 'training    20 of 240 steps', 'evaluating  20 of 240 steps')
    ]

  def test_one_submission_leads_nobody(self, clock, tmp_path):
    one = trial('a', 1, folder=tmp_path)
    found = tally([one], clock, earlier={0: record(one)})
    assert drawn(found) == ['1 of 1 trials ended']

  def test_many_running_trials_are_counted(self, clock):
    found = tally([trial('a', study) for study in range(1, 13)], clock, num_slots=12)
    for job in range(12):
      found.take(started(job))
    assert drawn(found)[-1] == 'and 4 more run'

  def test_names_of_others_reach_no_terminal_as_a_command(self, clock):
    found = tally([trial('a\x1b[31m', 1)], clock)
    found.take(started(0))
    assert r'a\x1b[31m on' in drawn(found)[1]

  def test_only_the_column_of_names_is_cut(self):
    rows = [['a long name', '1'], ['b', '12']]
    assert aligned(rows, 12, name=0) == ['a long …   1', 'b         12']


class TestDisplay:
  def test_plain_lines_where_there_is_no_terminal(self, clock, capsys):
    one, other = trial('a', 1), trial('a', 2)
    found = tally([one, other], clock, earlier={1: record(other, 1.0)})
    with Display(found) as display:
      display.take(started(0))
      display.take(said(0, progress(eval=ROW)))
      display.take(ended(0, stop_reason='diverged'))
    out = capsys.readouterr().out.splitlines()
    assert out == [
      'Trials to run: 1; done before: 1, failed before: 0',
      '[2/2] a on quick_vision (jax), study 1, trial 1: diverged, 0 s',
    ]

  def test_running_trials_have_a_line_now_and_then(self, clock, capsys, monkeypatch):
    monkeypatch.setattr(module, '_TICK_SEC', 0.01)
    monkeypatch.setattr(module, '_FIRST_LINE_SEC', 0.0)
    said_it = module.threading.Event()
    own = Display.say

    def say(display: Display, text: str) -> None:
      own(display, text)
      if text.startswith('  '):
        said_it.set()

    monkeypatch.setattr(Display, 'say', say)
    found = tally([trial('a', 1)], clock)
    with Display(found) as display:
      display.take(started(0))
      assert said_it.wait(60)
      display.take(ended(0))
    out = capsys.readouterr().out.splitlines()
    assert out[1:-1] == ['  a on quick_vision (jax), study 1, trial 1: starting']

  @pytest.mark.parametrize('status', ['failed', 'invalid', 'finished'])
  def test_a_quiet_display_says_of_a_trial_that_failed_why(self, status, clock, capsys):
    """Regression: `run --quiet` printed nothing at all."""
    with Display(tally([trial('mine', 1)], clock), quiet=True) as display:
      display.take(started(0))
      display.take(said(0, progress()))
      display.take(ended(0, status=status, reason='it raised'))
      display.say('a notice')
    captured = capsys.readouterr()
    is_said = 'mine' in captured.err and 'it raised' in captured.err
    assert not captured.out and is_said == (status != 'finished')

  @pytest.mark.parametrize('quiet', [False, True])
  def test_a_failure_says_where_its_traceback_is(self, quiet, clock, capsys, tmp_path):
    (tmp_path / 'traceback.txt').touch()
    with Display(tally([trial('mine', 1), trial('mine', 2)], clock), quiet=quiet) as display:
      for job, status in enumerate(('failed', 'finished')):
        display.take(started(job))
        display.take(ended(job, status=status, reason='it raised', folder=tmp_path))
    captured = capsys.readouterr()
    said = captured.err if quiet else captured.out
    assert said.count(f'  The traceback is in {tmp_path / "traceback.txt"}') == 1

  def test_what_others_wrote_reaches_no_terminal_as_a_command(self, clock, capsys):
    """Regression: the reason of a trial could color, clear or rename a terminal."""
    reason = 'ValueError: \x1b[31mred\x1b[0m\x07\r\udc80'
    for quiet in (False, True):
      with Display(tally([trial('mine', 1)], clock), quiet=quiet) as display:
        display.take(started(0))
        display.take(ended(0, status='failed', reason=reason))
      captured = capsys.readouterr()
      said = captured.err if quiet else captured.out
      assert r'ValueError: \x1b[31mred\x1b[0m\x07\r\udc80' in said
      assert all(letter.isprintable() for line in said.split('\n') for letter in line)

  def test_an_interrupt_says_what_starts_again(self, clock):
    one = trial('a', 1)
    options = dataclasses.replace(one.options, save_checkpoints=False)
    found = tally([dataclasses.replace(one, options=options)], clock)
    found.take(started(0))
    assert words.kept(found).endswith('running (1) start again, without checkpoints.')

  def test_an_interrupt_says_what_is_kept(self, clock, capsys):
    found = tally([trial('a', study) for study in (1, 2, 3)], clock)
    with pytest.raises(KeyboardInterrupt), Display(found, quiet=True) as display:
      display.take(started(0))
      display.take(ended(0))
      display.take(started(1))
      raise KeyboardInterrupt
    assert capsys.readouterr().err == (
      'Interrupted: 1 of 3 trials have ended and are kept. Trials that were running (1) go on '
      'from their last evaluation.\n'
    )

  @pytest.mark.parametrize(('term', 'is_live'), [('xterm', True), ('dumb', False)])
  def test_a_live_view_where_lines_can_be_redrawn(self, term, is_live, clock, monkeypatch):
    monkeypatch.setattr(module.sys.stderr, 'isatty', lambda: True)
    monkeypatch.setenv('TERM', term)
    assert (module._live(tally([trial('a', 1)], clock)) is not None) == is_live


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
      lines.say(text)
