"""Reviews what a pull request enters, and writes the comment for it.

    python review_entry.py entries/my_optimizer entries/my_optimizer.zip --output comment.md

A folder is a submission: it is checked, runs at tiny sizes, and is packed. A .zip file is a package
of `algoeff pack`: it is verified. The exit code is 0 if all of it passes, else 1. The script needs
`algoeff` on the PATH, and nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_CHARACTERS = 6_000  # of the output of a step; a comment has room for ten times as many
MAX_SEC = 3_600  # of a step


@dataclass(frozen=True)
class Step:
  """A command, and the word for it."""

  name: str
  command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
  """How a step ended: its exit code, and what it printed."""

  step: Step
  code: int
  output: str

  @property
  def word(self) -> str:
    return {0: 'passed', 2: 'could not run'}.get(self.code, 'failed')


def steps(entry: Path, runs: Path, suite: str, workloads: str | None) -> Iterator[Step]:
  """Yields the steps for a folder or a package."""
  if entry.suffix == '.zip':
    yield Step('verify', ('algoeff', 'verify', str(entry)))
    return
  ruleset = 'external' if (entry / 'tuning_search_space.json').is_file() else 'self'
  folder = str(entry.resolve())
  chosen = ('--workloads', workloads) if workloads else ()
  race = ('--suite', suite, '--ruleset', ruleset)
  yield Step('check', ('algoeff', 'check', folder, '--ruleset', ruleset, *chosen))
  one = ('--trials', '1', '--studies', '1', '--smoke', '--no_score', '--quiet')
  where = ('--experiment_dir', str(runs))
  yield Step(
    'smoke run', ('algoeff', 'bench', '--submissions', folder, *race, *chosen, *one, *where)
  )
  package = str(runs.with_suffix('.zip'))
  yield Step('pack', ('algoeff', 'pack', folder, str(runs), '--partial', '-o', package))


def review(entry: Path, suite: str, workloads: str | None) -> list[Outcome]:
  """Takes an entry through its steps, up to the first that does not pass."""
  outcomes: list[Outcome] = []
  with tempfile.TemporaryDirectory() as folder:
    for step in steps(entry, Path(folder) / 'runs', suite, workloads):
      outcomes.append(_outcome(step))
      if outcomes[-1].code:
        break
  return outcomes


def _outcome(step: Step) -> Outcome:
  try:
    done = subprocess.run(
      step.command,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      timeout=MAX_SEC,
      check=False,
    )
  except subprocess.TimeoutExpired:
    return Outcome(step, 1, f'It did not end within {MAX_SEC} seconds.')
  return Outcome(step, done.returncode, done.stdout.decode(errors='replace'))


def comment(reviews: dict[Path, list[Outcome]]) -> str:
  """Writes the reviews as Markdown: a table, and below it what each step printed."""
  lines = ['| entry | step | result |', '|---|---|---|']
  for entry, outcomes in reviews.items():
    lines += [f'| {_code(entry.name)} | {one.step.name} | {one.word} |' for one in outcomes]
  for entry, outcomes in reviews.items():
    for one in outcomes:
      lines += ['', f'<details><summary>{one.step.name}: {_plain(entry.name)}</summary>', '']
      lines += [f'    {line}' for line in _shown(one.output)]
      lines += ['', '</details>']
  lines += ['', 'A step that passes proves nothing. People review what RULES.md leaves to them.']
  return '\n'.join(lines) + '\n'


def _shown(output: str) -> list[str]:
  """The end of an output, line by line, as an indented block of code can hold it."""
  cut = output[-MAX_CHARACTERS:]
  text = cut if cut == output else f'...\n{cut}'
  return [''.join(c if c.isprintable() else '?' for c in line) for line in text.splitlines()]


def _plain(text: str) -> str:
  return ''.join(c if c.isalnum() or c in '._-' else '?' for c in text)


def _code(text: str) -> str:
  return f'`{_plain(text)}`'


def main(argv: Sequence[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('entries', nargs='+', type=Path, help='folders and packages to review')
  parser.add_argument('--output', type=Path, required=True, help='write the comment to this file')
  parser.add_argument('--suite', default='quick', help='suite of the smoke run')
  parser.add_argument('--workloads', help='check and run on these only, as in A,B')
  args = parser.parse_args(argv)
  reviews = {entry: review(entry, args.suite, args.workloads) for entry in args.entries}
  args.output.write_text(comment(reviews), encoding='utf-8')
  return int(any(one.code for outcomes in reviews.values() for one in outcomes))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
