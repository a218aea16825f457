"""The notebooks of the pages run from their first cell to their last, and show what they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pages
import pytest
import warm
from pages import ROOT

NOTEBOOKS = sorted((ROOT / 'docs' / 'notebooks').glob('*.ipynb'))
MAX_KB = 150
CHEAP = {'studies': 1, 'max_steps': 4}


def cells(path: Path) -> list[dict[str, Any]]:
  return [one for one in json.loads(path.read_text())['cells'] if one['cell_type'] == 'code']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_the_outputs_of_one_run_from_top_to_bottom(path: Path):
  found = cells(path)
  assert [one['execution_count'] for one in found] == list(range(1, len(found) + 1))
  outputs = [output for one in found for output in one['outputs']]
  assert {output['output_type'] for output in outputs} == {'execute_result'}
  assert path.stat().st_size < MAX_KB * 1024
  assert '/tmp/' not in path.read_text() and str(ROOT) not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path):
  """The cell of parameters is replaced by cheaper ones, as notebooks' tools do."""
  pytest.importorskip('jax')
  parameters, *others = cells(path)
  assert parameters['metadata']['tags'] == ['parameters']
  names: dict[str, Any] = {}
  exec(''.join(parameters['source']), names)
  cheaper = {name: CHEAP.get(name, names[name]) for name in names if name != '__builtins__'}
  warm.call(pages.execute, [''.join(one['source']) for one in others], cheaper, tmp_path)
  assert list(tmp_path.rglob('trial.json'))
