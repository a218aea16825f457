"""The pages as Sphinx builds them: no warning, no network, and no page wider than a phone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser

pytest.importorskip('sphinx')

ROOT = Path(__file__).parents[2]
PAGES = (
  *('README', 'RULES', 'CONTRIBUTING', 'scoring/README', 'tests/README', 'docs/api'),
  *('docs/index', 'docs/first_optimizer', 'docs/report', 'workloads/vision/README'),
)
PHONE = (390, 844)


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """The built pages; a link to nothing fails the build."""
  folder = tmp_path_factory.mktemp('site')
  words = ['--quiet', '--fail-on-warning', '--keep-going', '-c', ROOT / 'docs']
  done = subprocess.run(
    [sys.executable, '-m', 'sphinx', *words, '-d', folder / 'trees', ROOT, folder / 'html'],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return folder / 'html'


@pytest.mark.slow
def test_the_first_file_leads_to_the_pages(site: Path):
  assert 'docs/index.html' in (site / 'index.html').read_text()


@pytest.mark.slow
def test_pages_fit_a_phone_and_ask_for_nothing_else(site: Path):
  with browser() as page:
    page.resize(*PHONE)
    for name in PAGES:
      page.open(site / f'{name}.html')
      width = page.execute('return document.documentElement.scrollWidth')
      assert width <= PHONE[0], f'{name} is {width} pixels wide'
    assert [entry for entry in page.console() if entry['level'] == 'SEVERE'] == []
    assert [url for url in page.requested() if not url.startswith(('file:', 'data:'))] == []
