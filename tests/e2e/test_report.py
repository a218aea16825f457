"""The commands that score, and their report in a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import browser

from algorithmic_efficiency import api
from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.errors import UserError

WORKLOADS = ('fastmri', 'ogbg', 'wmt')


def write_runs(root: Path) -> Path:
  """Three submissions, five studies of two trials, with misses and a damaged file."""
  rng = np.random.default_rng(0)
  for name, center in (('swift', 100.0), ('middling', 160.0), ('lost<script>', 700.0)):
    for workload in WORKLOADS:
      target = registry.workload(workload).target
      sign = 1 if target.direction == 'max' else -1
      for study in range(1, 6):
        for trial in (1, 2):
          folder = root / name / f'study_{study}' / f'{workload}_jax' / f'trial_{trial}'
          folder.mkdir(parents=True)
          (folder / 'hparams.json').write_text(json.dumps({'learning_rate': 0.1 * trial}))
          names = 'global_step,score,validation/' + target.metric
          lines = [names]
          end = center * float(np.exp(0.2 * rng.standard_normal()))
          for step in range(40):
            value = target.validation + sign * 0.1 * abs(target.validation) * (step / 30 - 1)
            lines.append(f'{10 * step + 10},{end * (step + 1) / 31},{value}')
          (folder / 'eval_measurements.csv').write_text('\n'.join(lines) + '\n')
  (root / 'swift' / 'study_1' / 'ogbg_jax' / 'trial_1' / 'eval_measurements.csv').write_text('x')
  return root


@pytest.fixture(scope='module')
def results(tmp_path_factory) -> Path:
  root = tmp_path_factory.mktemp('report')
  runs = write_runs(root / 'runs')
  out = root / 'out'
  command = ['score', str(runs), '--suite', 'algoperf_v06', '--output_dir', str(out)]
  assert main([*command, '--workloads', ','.join(WORKLOADS), '--resamples', '200']) == 0
  return out


def test_every_promised_file_is_there(results):
  expected = {
    *('scores.csv', 'time_to_targets.csv', 'performance_profile.csv', 'leaderboard.json'),
    *('leaderboard.md', 'report.html', 'swift_summary.csv', 'middling_summary.csv'),
  }
  names = {path.name for path in results.iterdir()}
  assert expected <= names
  for figure in ('performance_profile', 'scores', 'time_to_target', 'verdicts', 'tuning_budget'):
    assert {f'{figure}.{kind}' for kind in ('svg', 'png', 'pdf')} <= names
  board = json.loads((results / 'leaderboard.json').read_text())
  assert board['leaderboard'][0]['submission'] == 'swift'
  assert board['notes']['truncated']['count'] == 1
  scores = (results / 'scores.csv').read_text().splitlines()
  assert scores[0] == 'submission,score,low,high,coverage'
  coverage = float(scores[1].split(',')[-1])
  assert board['leaderboard'][0]['coverage'] == coverage
  page = (results / 'report.html').read_text()
  assert '>Coverage</button>' in page and f'>{coverage:.0%}</td>' in page
  header = (results / 'swift_summary.csv').read_text().splitlines()[0]
  assert header == (
    'workload,trial,val target metric name,val target metric value,val target reached,'
    'best metric value on val,time to best eval on val (s),time to target on val (s),'
    'step_time (s),step_hint'
  )


def test_the_page_names_no_address_to_load(results):
  page = (results / 'report.html').read_text().split('<script>')[0]
  assert not re.search(r'<(?!a )[^>]*(src|href)="https?:', page) and '@import' not in page
  assert 'lost<script>' not in page


def test_the_page_says_who_leads_why_cells_miss_and_what_was_tried(results):
  page = (results / 'report.html').read_text()
  assert '<p class="lead">swift leads with a score of 1.000.' in page
  assert '<dt>too slow (3)</dt><dd>The target was reached, but later than 4 times' in page
  assert 'What was tried, and with what outcome' in page and 'learning_rate' in page
  assert 'These runs do not say what they ran on.' in page


SORTED = (
  "return [...document.querySelectorAll('#leaderboard tbody th')].map((e) => e.dataset.value)"
)
READY = "return document.body.dataset.ready === 'true'"
LINES = "return document.querySelectorAll('#profiles .plot .mark-line path').length"
TICKS = (
  "return [...document.querySelectorAll('#curves .plot .role-axis-label text')]"
  ".map((text) => text.textContent).sort().join(' ')"
)
LABEL = "return document.querySelector('#curves .plot').getAttribute('aria-label')"
WIDTHS = """
return ['profile', 'scores', 'tuning'].map((name) =>
  Number(document.querySelector(`[data-chart=${name}] .plot svg`).getAttribute('width')));
"""
CUT = """
return [...document.querySelectorAll('.plot svg text')].filter((text) => {
  const box = text.getBoundingClientRect(), edge = text.closest('svg').getBoundingClientRect();
  return box.width && text.getAttribute('opacity') !== '0'
    && (box.right > edge.right + 1 || box.left < edge.left - 1);
}).map((text) => text.textContent);
"""


@pytest.mark.slow
def test_the_report_works_in_a_browser(results):
  with browser() as page:
    page.requested()
    page.open(results / 'report.html')
    page.wait_for(READY)
    assert page.execute(SORTED) == ['swift', 'middling', 'lost<script>']
    sorts_tables(page)
    toggles_lines(page)
    zooms(page)
    shows_curves_of_every_workload(page)
    shows_figures_near_the_pointer(page)
    saves_pictures(page)
    assert page.execute(CUT) == []
    words = "return [...document.querySelectorAll('.plot')].map((plot) => plot.ariaLabel)"
    labels = page.execute(words)
    assert len(labels) == 6 and all(len(label) > 40 for label in labels)

    # A phone: nothing but scrolling boxes is wider than the screen, and tables are cards.
    page.resize(390, 844)
    page.open(results / 'report.html')
    page.wait_for(READY)
    assert page.execute('return document.documentElement.scrollWidth') <= 390
    row = "return getComputedStyle(document.querySelector('#leaderboard tbody tr')).display"
    assert page.execute(row) == 'grid'

    # Contrast in both schemes and on paper, which has the curves of every workload.
    page.resize(1280, 900)
    for medium, scheme in (('screen', 'dark'), ('print', 'light')):
      page.media(scheme=scheme, medium=medium)
      page.open(results / 'report.html')
      page.wait_for("return document.body.dataset.printable === 'true'")
      assert page.execute(CONTRAST) == [], (medium, scheme)
    prints = "return document.querySelectorAll('#curve-prints svg').length"
    assert page.execute(prints) == len(WORKLOADS)
    page.execute("dispatchEvent(new Event('beforeprint'))")
    assert page.execute(WIDTHS) and max(page.execute(WIDTHS)) <= 681  # not made smaller to fit
    page.execute("dispatchEvent(new Event('afterprint'))")
    assert max(page.execute(WIDTHS)) > 681

    assert [entry['message'] for entry in page.console()] == []
    assert all(url.startswith(('file:', 'data:', 'blob:')) for url in page.requested())


def sorts_tables(page) -> None:
  """By name, then the other way round."""
  click = "document.querySelectorAll('#leaderboard thead button')[1].click()"
  page.execute(click)
  assert page.execute(SORTED) == ['lost<script>', 'middling', 'swift']
  page.execute(click)
  assert page.execute(SORTED) == ['swift', 'middling', 'lost<script>']
  sorts = "return document.querySelectorAll('#leaderboard th')[1].getAttribute('aria-sort')"
  assert page.execute(sorts) == 'descending'


def toggles_lines(page) -> None:
  """A name switches its line off and on, by key, in all charts."""
  pressed = "return document.querySelectorAll('.legend [aria-pressed=false]').length"
  assert page.execute(LINES) == 3
  page.execute("document.querySelectorAll('#profiles .legend button')[1].focus()")
  page.press('Enter')
  assert page.execute(LINES) == 2
  assert page.execute(pressed) == 3  # the legends of curves, profiles and tuning
  page.press('Enter')
  assert page.execute(LINES) == 3 and page.execute(pressed) == 0


def zooms(page) -> None:
  """The buttons move the axes, and bring them back."""
  button = 'document.querySelector(`#curves [data-zoom=${arguments[0]}]`).click()'
  seen = [page.execute(TICKS)]
  for how in ('in', 'all', 'reset'):
    page.execute(button, how)
    seen.append(page.execute(TICKS))
  assert seen[0] == seen[3] and len(set(seen)) == 3


def shows_curves_of_every_workload(page) -> None:
  assert page.execute(LABEL).startswith('ssim of fastmri on validation against seconds')
  page.execute(
    "const s = document.getElementById('curve-workload'); s.value = 'wmt';"
    "s.dispatchEvent(new Event('change'));"
    "document.querySelector('input[value=steps]').click()"
  )
  page.wait_for(f"{LABEL}.startsWith('bleu of wmt on validation against steps')")


def shows_figures_near_the_pointer(page) -> None:
  middle = (
    "const plot = document.querySelector('#profiles .plot');"
    "plot.scrollIntoView({behavior: 'instant'});"
    'const box = plot.getBoundingClientRect();'
    'return [box.left + box.width / 2, box.top + box.height / 2]'
  )
  x, y = page.execute(middle)
  for distance in (0, 3):
    page.devtools('Input.dispatchMouseEvent', type='mouseMoved', x=x + distance, y=y)
  page.wait_for(
    "const tip = document.querySelector('#vg-tooltip-element.visible')?.textContent ?? '';"
    "return tip.includes('share') && /swift|middling|lost/.test(tip)"
  )


def saves_pictures(page) -> None:
  """Every chart can be taken away as SVG, with its colors written out."""
  page.execute(
    'window.saved = []; const make = URL.createObjectURL.bind(URL);'
    'URL.createObjectURL = (blob) => { window.saved.push(blob); return make(blob); };'
    'HTMLAnchorElement.prototype.click = () => {};'
    "document.querySelectorAll('.download').forEach((b) => b.click())"
  )
  page.wait_for('return window.saved.length === 6')
  text = page.post('/execute/async', script='window.saved[0].text().then(arguments[0])', args=[])
  assert text.startswith('<svg') and 'var(--' not in text and '#' in text


# Texts whose contrast with the background of the page is below 4.5; `test_report_charts` looks at
# the colors of charts.
CONTRAST = """
const linear = (x) => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
const light = (c) => { const v = c.map((x) => linear(x / 255));
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const parse = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
const back = light(parse(getComputedStyle(document.body).backgroundColor));
const bad = new Set();
const texts = 'p, li, td, th, dt, dd, summary, h1, h2, h3, a, .verdict, .about, .role-axis text';
for (const e of document.querySelectorAll(texts)) {
  const svg = e.namespaceURI.endsWith('svg');
  const c = light(parse(getComputedStyle(e)[svg ? 'fill' : 'color']));
  const ratio = (Math.max(c, back) + .05) / (Math.min(c, back) + .05);
  if (ratio < 4.5) bad.add(`${e.tagName}.${e.getAttribute('class')}: ${ratio.toFixed(2)}`);
}
return [...bad];
"""


@pytest.mark.parametrize('kind', ['curves', 'profile', 'times'])
def test_a_chart_is_drawn_from_the_command_line(results, tmp_path, capsys, kind):
  file = tmp_path / 'new' / f'{kind}.svg'
  runs = str(results.parent / 'runs')
  command = ['plot', kind, runs, '--suite', 'algoperf_v06', '--workloads', 'wmt', '-o', str(file)]
  assert main(command) == 0
  assert file.read_text().startswith('<svg')
  assert capsys.readouterr().out == f'Chart: {file}\n'


def test_a_chart_is_drawn_from_python(results, tmp_path):
  runs = results.parent / 'runs'
  options = {'suite': 'algoperf_v06', 'workloads': ['wmt'], 'exclude': ['middling']}
  chart = api.plot('curves', runs, x='steps', output=tmp_path / 'curves.json', **options)
  assert json.loads((tmp_path / 'curves.json').read_text()) == chart.spec
  names = next(one['value'] for one in chart.spec['params'] if one['name'] == 'names')
  assert names == ['swift', 'lost<script>']
  with pytest.raises(UserError, match="Did you mean 'exclude'"):
    api.plot('curves', runs, excluded=['wmt'])


def test_the_report_is_rebuilt_from_results_and_from_runs(results, tmp_path, capsys):
  page = results / 'report.html'
  before = page.read_text()
  page.unlink()
  assert main(['report', str(results)]) == 0
  assert page.read_text() == before
  runs = results.parent / 'runs'
  out = tmp_path / 'again'
  command = ['report', str(runs), '--suite', 'algoperf_v06', '--output_dir', str(out)]
  assert main([*command, '--workloads', ','.join(WORKLOADS), '--resamples', '200']) == 0
  assert (out / 'report.html').read_text() == before
  assert 'Report:' in capsys.readouterr().out


def test_a_report_of_another_version_is_not_rebuilt(results, tmp_path, capsys):
  data = json.loads((results / 'report.json').read_text())
  del data['leaderboard'][0]['coverage']
  (tmp_path / 'report.json').write_text(json.dumps(data))
  assert main(['report', str(tmp_path)]) == 2
  assert 'score the runs again' in capsys.readouterr().err


def test_compare_says_who_is_better(results, capsys):
  runs = str(results.parent / 'runs')
  options = ['--suite', 'algoperf_v06', '--workloads', ','.join(WORKLOADS)]
  assert main(['compare', 'swift', 'middling', runs, *options]) == 0
  assert 'swift is better than middling' in capsys.readouterr().out
  assert main(['compare', 'middling', 'swift', runs, *options, '--json']) == 0
  assert json.loads(capsys.readouterr().out)['verdict'] == 'worse'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['score', 'RUNS'], '--suite'),
    (['score', 'RUNS', '--suite', 'algoperf_v6'], "Did you mean 'algoperf_v06'"),
    (['score', 'RUNS/nowhere', '--suite', 'quick'], 'RUNS: must be a directory'),
    (['score', 'EMPTY', '--suite', 'algoperf_v06'], 'holds no runs'),
    (['score', 'RUNS', '--suite', 'algoperf_v06', '--reference', 'swifd'], "Did you mean 'swift'"),
    (['score', 'RUNS', '--suite', 'algoperf_v06', '--strict'], 'break the rules'),
    (
      ['score', 'RUNS', '--suite', 'algoperf_v06', '--output_dir', 'FILE/x'],
      '--output_dir: must be a directory',
    ),
    (
      ['score', 'RUNS', '--suite', 'algoperf_v06', '--resamples', '0'],
      '--resamples: must be positive',
    ),
    (
      ['score', 'RUNS', '--suite', 'algoperf_v06', '--resamples', '99999999999'],
      '--resamples: must be at most 100,000',
    ),
    (['compare', 'swift', 'nobody', 'RUNS', '--suite', 'algoperf_v06'], 'nobody'),
    (['compare', 'swift', 'swift', 'RUNS', '--suite', 'algoperf_v06'], 'twice'),
    (['compare', 'swift', 'lost', 'RUNS', '--exclude', 'lost'], 'no flag --exclude'),
    (['report', 'EMPTY', '--suite', 'algoperf_v06'], 'holds no runs'),
    (['report', 'TABLES'], 'without --no_report'),
    (['report', 'RUNS', '--suite', 'algoperf_v06', '--output_dir', 'FILE/x'], 'be a directory'),
    (['plot', 'curves', 'RUNS', '--suite', 'algoperf_v06'], 'Choose one with --workloads'),
    (['plot', 'curve', 'RUNS'], "invalid choice: 'curve'"),
    (['plot', 'times', 'RUNS', '--suite', 'algoperf_v06', '-o', 'x.gif'], 'must end with .svg'),
    (['plot', 'times', 'RUNS', '--suite', 'algoperf_v06', '-o', 'FILE/x.svg'], 'with --output'),
    (['plot', 'times', 'EMPTY'], 'holds no runs'),
  ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(
  results, tmp_path, capsys, monkeypatch, arguments, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  (tmp_path / 'tables').mkdir()
  (tmp_path / 'tables' / 'leaderboard.json').write_text('{}')
  places = {'RUNS': results.parent / 'runs'}
  places |= {name.upper(): tmp_path / name for name in ('empty', 'file', 'tables')}
  filled = []
  for argument in arguments:
    for name, path in places.items():
      argument = argument.replace(name, str(path))
    filled.append(argument)
  try:
    code = main(filled)
  except SystemExit as stop:  # a wrong flag
    code = stop.code
  assert code == 2
  assert message in capsys.readouterr().err
  assert sorted(path.name for path in tmp_path.iterdir()) == ['empty', 'file', 'tables']


def test_scoring_needs_no_framework(results, tmp_path):
  """Neither imported nor needed: with the frameworks hidden, everything works."""
  for name in ('jax', 'torch', 'tensorflow', 'flax', 'optax'):
    (tmp_path / f'{name}.py').write_text(f'raise ImportError("{name} was imported")')
  runs = results.parent / 'runs'
  command = [sys.executable, '-m', 'algorithmic_efficiency', 'score', str(runs)]
  command += ['--suite', 'algoperf_v06', '--no_report', '--output_dir', str(tmp_path / 'out')]
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
