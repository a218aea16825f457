"""The race of `make demo`, and the script that shows that its outcome does not hang on the seed."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import demo_seeds
import pytest
from demo_seeds import Found

from algorithmic_efficiency.cli import _flags, bench
from algorithmic_efficiency.cli._race import race_of
from algorithmic_efficiency.experiments.race.race import expand

ROOT = Path(__file__).resolve().parents[2]


def command(start: str = r"\t'\$\(BIN\)/algoeff' bench (.*)") -> list[str]:
  """The arguments of `algoeff bench` in the Makefile, in the line that begins so."""
  text = (ROOT / 'Makefile').read_text().replace('\\\n', ' ')
  [shared] = re.findall(r'^DEMO_RACE = (.*)', text, re.M)
  [line] = re.findall(f'^{start}', text, re.M)
  for name, value in (('RACE', shared), ('DIR', 'demo'), ('WORKERS', '1')):
    line = line.replace(f'$(DEMO_{name})', value)
  return shlex.split(line.replace('$(DEMO_DIR)', 'demo'))


def test_the_script_runs_what_the_demo_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  parser = _flags.Parser()
  bench.arguments(parser)
  race = race_of(parser.parse_args(command()))
  assert not race.is_weighed and not race.overwrite  # it ends soon, and goes on
  configs = expand(race)
  assert {(one.workload, one.framework, one.suite, one.root_seed) for one in configs} == {
    (demo_seeds.WORKLOAD, demo_seeds.FRAMEWORK, demo_seeds.SUITE, demo_seeds.SEED)
  }
  assert {one.submission for one in configs} == {demo_seeds.WINNER, demo_seeds.LOSER}


def test_the_command_to_try_next_adds_an_optimizer_to_the_same_board(tmp_path, monkeypatch):
  pytest.importorskip('optax')
  monkeypatch.chdir(tmp_path)
  parser = _flags.Parser()
  bench.arguments(parser)
  first, then = (
    parser.parse_args(words)
    for words in (command(), command(r'\t@echo "  \$\(BIN\)/algoeff bench (.*)"'))
  )
  submissions = then.submissions
  assert {one.submission for one in expand(race_of(then))} == {'lion'}
  then.submissions, then.workers = first.submissions, first.workers
  assert vars(then) == vars(first) and submissions != first.submissions


@pytest.mark.parametrize(
  ('loser', 'cells', 'least'), [(math.inf, '>240   >4.00', '4.00'), (90.0, '90    1.50', '1.50')]
)
def test_a_miss_counts_as_the_steps_that_it_made(loser, cells, least):
  lost = Found(steps=loser, num_steps=240.0, best=0.9)
  found = {
    demo_seeds.WINNER: [Found(steps=60.0, num_steps=62.0, best=0.4)],
    demo_seeds.LOSER: [lost],
  }
  _, line, ratio, _ = demo_seeds.table(found)
  assert line.split() == ['1', '60', *cells.split()]
  assert ratio == f'The least ratio is {least}.'
