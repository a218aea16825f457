"""The site of a board in a real browser: wide, on a phone, in the dark and on paper."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from browser import Browser, browser
from test_report import CONTRAST, write_runs

from algorithmic_efficiency.cli import main

WORKLOADS = ('fastmri', 'ogbg')


@pytest.fixture(scope='module')
def public(tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp('board_site')
  board = root / 'board'
  command = [
    'score',
    str(write_runs(root / 'runs')),
    '--suite',
    'algoperf_v06',
    '--resamples',
    '50',
  ]
  assert main([*command, '--workloads', ','.join(WORKLOADS), '--output_dir', str(board)]) == 0
  assert main(['site', str(board), '-o', str(root / 'public')]) == 0
  return root / 'public'


@pytest.mark.slow
def test_the_site_works_in_a_browser(public):
  pages = [file for file in sorted(public.rglob('*.html')) if file.name != 'report.html']
  assert len(pages) == 5 + 3 + len(WORKLOADS)
  with browser() as page:
    page.requested()
    page.open(public / 'index.html')
    sorts_the_leaderboard(page)
    switches_lines(page)
    follows_links_by_key(page)
    for width, height, scheme in ((390, 844, 'light'), (1280, 900, 'dark'), (1280, 900, 'light')):
      page.resize(width, height)
      page.media(scheme=scheme)
      for file in pages:
        page.open(file)
        where = (file.name, width, scheme)
        assert page.execute('return document.documentElement.scrollWidth') <= width, where
        poor = [one for one in page.execute(CONTRAST) if not one.startswith('TD.shade')]
        assert poor == [], where
        assert page.execute(SHADES) == [], where
        assert page.execute(DRAWN) == [], where
    prints(page)
    assert [entry['message'] for entry in page.console()] == []
    assert all(url.startswith(('file:', 'data:')) for url in page.requested())


# Shades of cells on which their own text has a contrast below 4.5.
SHADES = """
const parse = (text) => text.match(/[0-9.]+/g).slice(0, 3).map((x) => x / 255)
  .map((x) => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
const light = ([r, g, b]) => .2126 * r + .7152 * g + .0722 * b + .05;
return [...document.querySelectorAll('[class^=shade]')].map((e) => getComputedStyle(e))
  .map((s) => [light(parse(s.color)), light(parse(s.backgroundColor))])
  .map(([a, b]) => Math.max(a, b) / Math.min(a, b)).filter((ratio) => ratio < 4.5);
"""

# Pictures that are shown without a line of their own color inside of their edges.
DRAWN = """
const width = (one) => one.getBoundingClientRect().width;
const isDrawn = (svg) => [...svg.querySelectorAll('.mark-line path')].some((line) => {
  const box = line.getBoundingClientRect(), edge = svg.getBoundingClientRect();
  return box.width && box.left >= edge.left - 1 && getComputedStyle(line).stroke !== 'none';
});
return [...document.querySelectorAll('.still svg')].filter((svg) => width(svg) && !isDrawn(svg))
  .map((svg) => svg.getAttribute('aria-label'));
"""
ROWS = "return [...document.querySelectorAll('#leaderboard tbody th')].map((e) => e.dataset.value)"


def sorts_the_leaderboard(page: Browser) -> None:
  best = ['swift', 'middling', 'lost<script>']
  assert page.execute(ROWS) == best
  page.execute("document.querySelectorAll('#leaderboard thead button')[1].click()")
  assert page.execute(ROWS) == best[::-1]


def switches_lines(page: Browser) -> None:
  """A name switches its line off and on, by key."""
  shown = (
    "return [...document.querySelectorAll('#profiles .for-wide .mark-line path')]"
    '.filter((line) => line.getBoundingClientRect().width).length'
  )
  assert page.execute(shown) == 3
  page.execute("document.querySelectorAll('#profiles .legend button')[1].focus()")
  page.press('Enter')
  assert page.execute(shown) == 2
  page.press('Enter')
  assert page.execute(shown) == 3


def follows_links_by_key(page: Browser) -> None:
  page.execute("document.querySelector('#leaderboard tbody th a').focus()")
  page.press('Enter')
  page.wait_for("return location.pathname.includes('/submissions/')")
  page.execute("document.querySelector('#results tbody th a').focus()")
  page.press('Enter')
  page.wait_for("return location.pathname.includes('/workloads/')")


def prints(page: Browser) -> None:
  """Paper has no controls, and what is folded away on a screen."""
  page.media(medium='print')
  hidden = "return getComputedStyle(document.querySelector('nav')).display"
  assert page.execute(hidden) == 'none'
  pdf = base64.b64decode(page.devtools('Page.printToPDF', preferCSSPageSize=True)['data'])
  assert pdf.startswith(b'%PDF')
