"""The walk-through of CONTRIBUTING: its files are written and its commands run as they stand."""

from __future__ import annotations

from pathlib import Path

import pages
import pytest

from algorithmic_efficiency.results import trial_record

pytest.importorskip('jax')

ROOT = Path(__file__).parents[2]
TASK = 'my_tasks/workloads/spirals'


@pytest.fixture(scope='module')
def walkthrough() -> str:
  return pages.section('CONTRIBUTING.md', 'From an empty folder to a race')


@pytest.fixture(scope='module')
def checkout(walkthrough: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
  """A folder with the files of the repository, and those of the walk-through."""
  folder = tmp_path_factory.mktemp('checkout')
  for name in ('tests', 'pyproject.toml', 'CONTRIBUTING.md'):
    (folder / name).symlink_to(ROOT / name)
  (folder / TASK).mkdir(parents=True)
  assert pages.write_files(walkthrough, folder / TASK) == {
    'definition.py',
    'data.py',
    'model_jax.py',
  }
  return folder


@pytest.mark.slow
def test_from_an_empty_folder_to_a_race(walkthrough: str, checkout: Path):
  for environment, words in pages.commands(walkthrough):
    output = pages.run(environment, words, checkout)
    if 'pytest' in words:
      assert int(output.split(' passed')[0].split()[-1]) > 20
  records = [
    trial_record.read_trial(file.parent)
    for file in (checkout / 'spirals_race').rglob(trial_record.TRIAL_FILE)
  ]
  assert [one.stop_reason for one in records if one is not None] == ['targets_reached'] * 4
  assert (checkout / 'spirals_race' / 'scores' / 'report.html').stat().st_size > 0


def test_the_walkthrough_shows_a_smoke_run_contract_tests_and_a_race(walkthrough: str):
  verbs = [
    words[1] if words[0] == 'algoeff' else 'pytest' for _, words in pages.commands(walkthrough)
  ]
  assert verbs == ['run', 'pytest', 'bench']
