"""The site of a board: its pages, its feed, and what becomes of an earlier site."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from file_limit import file_size_limit
from hypothesis import given
from hypothesis import strategies as st
from scoring_runs import hit_at, miss, write_recorded_trial

import scoring
from algorithmic_efficiency.cli import main
from algorithmic_efficiency.errors import UserError
from scoring import outputs, report, site
from scoring.report.page import is_web_address
from scoring.site import feed, history
from scoring.site.history import Aim, History, Publication, Scores, Standing
from scoring.site.slugs import slug

WORKLOADS = ('ogbg', 'wmt')
HOSTILE = 'lost<script>'
FIRST, SECOND = (datetime.datetime(2026, month, 1, tzinfo=datetime.UTC) for month in (5, 6))
ATOM = '{http://www.w3.org/2005/Atom}'


def write_board(folder: Path, seconds: dict[str, float]) -> Path:
  """A board of three studies a cell; who is `HOSTILE` misses a workload."""
  runs = folder / 'runs'
  for name, center in seconds.items():
    for workload in WORKLOADS:
      for study in (1, 2, 3):
        lost = name == HOSTILE and workload == 'wmt'
        rows = miss(workload) if lost else hit_at(workload, center + 10 * study)
        write_recorded_trial(runs, name, workload, rows, study=study, **about(name))
  return scored(folder, 'algoperf_v06', workloads=WORKLOADS)


def scored(folder: Path, suite: str, **options) -> Path:
  """Scores the runs in a folder into the same folder."""
  frame = scoring.load(folder / 'runs')
  result = scoring.score(frame, suite, num_resamples=10, **options)
  outputs.write_tables(result, folder)
  report.write(frame, result, folder, figures=False)
  return folder


def about(name: str) -> dict:
  """What the trials of a submission say of it."""
  facts = {
    'swift': {'authors': 'A. Author', 'paper': 'https://example.org/a?b=1&c', 'date': '2026-02-03'},
    HOSTILE: {'description': '<img src=x onerror=alert(1)>', 'paper': 'javascript:alert(1)'},
  }
  return {'submission_info': facts.get(name, {}), 'submission_hash': f'{len(name):016x}'}


@pytest.fixture(scope='module')
def board(tmp_path_factory) -> Path:
  return write_board(
    tmp_path_factory.mktemp('board'), {'swift': 100.0, 'AdamW': 130.0, HOSTILE: 90.0}
  )


@pytest.fixture(scope='module')
def later(tmp_path_factory) -> Path:
  """The same board with a submission more, which is the fastest on both workloads."""
  return write_board(
    tmp_path_factory.mktemp('later'), {'new': 60.0, 'swift': 100.0, 'AdamW': 130.0, HOSTILE: 90.0}
  )


@pytest.fixture(scope='module')
def public(board, tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp('site') / 'public'
  site.build(board, folder, date=FIRST)
  return folder


def copied(folder: Path, to: Path) -> Path:
  return Path(shutil.copytree(folder, to))


class Page(HTMLParser):
  """The elements of a page: tags with their attributes, in their order."""

  def __init__(self, file: Path):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str]]] = []
    self.feed(file.read_text())

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, {name: value or '' for name, value in attrs}))

  handle_startendtag = handle_starttag

  def all(self, tag: str) -> list[dict[str, str]]:
    return [attributes for name, attributes in self.elements if name == tag]

  @property
  def ids(self) -> list[str]:
    return [attributes['id'] for _, attributes in self.elements if 'id' in attributes]

  def addresses(self) -> Iterator[str]:
    for _, attributes in self.elements:
      yield from (attributes[name] for name in ('href', 'src') if name in attributes)


def pages(folder: Path) -> dict[str, Page]:
  """Those of the site itself, by path."""
  files = [file for file in folder.rglob('*.html') if file.name != report.PAGE]
  return {file.relative_to(folder).as_posix(): Page(file) for file in files}


class TestPages:
  def test_there_is_one_for_every_submission_and_workload(self, public):
    assert set(pages(public)) == {
      *('index.html', 'workloads.html', 'changes.html', 'rules.html', 'data.html'),
      *(f'workloads/{name}.html' for name in WORKLOADS),
      *(f'submissions/{slug(name)}.html' for name in ('swift', 'AdamW', HOSTILE)),
    }

  def test_every_link_leads_to_a_file_and_a_place_in_it(self, public):
    found = pages(public)
    for path, page in found.items():
      for address in page.addresses():
        if address.startswith(('https://', 'data:')):
          continue
        target, _, fragment = address.partition('#')
        file = (public / path).parent / unquote(target) if target else public / path
        assert file.is_file(), (path, address)
        where = file.resolve().relative_to(public.resolve()).as_posix()
        if fragment:
          assert fragment in found[where].ids, (path, address)

  def test_nothing_is_loaded_from_elsewhere(self, public):
    for path, page in pages(public).items():
      loaded = [one.get('src', one.get('href', '')) for one in page.all('script')]
      loaded += [one['href'] for one in page.all('link')] + [one['src'] for one in page.all('img')]
      assert not [one for one in loaded if '//' in one], path
    assert 'http' not in (public / 'style.css').read_text()

  def test_each_has_its_landmarks_and_its_tables_have_captions(self, public):
    for path, page in pages(public).items():
      assert page.all('html') == [{'lang': 'en'}], path
      tags = Counter(tag for tag, _ in page.elements)
      assert [tags[tag] for tag in ('main', 'header', 'footer', 'nav', 'h1')] == [1] * 5, path
      assert tags['caption'] == tags['table'], path
      assert all('scope' in one for one in page.all('th')), path
      assert all('aria-label' in one for one in page.all('svg') if 'role' in one), path

  def test_no_name_in_a_page_is_there_twice(self, public):
    for path, page in pages(public).items():
      assert [name for name, count in Counter(page.ids).items() if count > 1] == [], path

  def test_texts_of_entries_are_no_code(self, public):
    for path, page in pages(public).items():
      scripts = [one['src'].rpartition('/')[2] for one in page.all('script')]
      assert scripts == ['site.js'], path
      assert not page.all('img') and not [one for one in page.addresses() if 'alert' in one], path
      assert not [one for _, names in page.elements for one in names if one.startswith('on')], path
    text = (public / 'submissions' / f'{slug(HOSTILE)}.html').read_text()
    assert '<dd>javascript:alert(1)</dd>' in text
    assert '&lt;img src=x onerror=alert(1)&gt;' in text

  def test_a_submission_says_who_made_it_and_what_it_reached(self, public):
    page = public / 'submissions' / 'swift.html'
    text = page.read_text()
    assert {'href': 'https://example.org/a?b=1&c', 'rel': 'noopener nofollow'} in Page(page).all(
      'a'
    )
    for fact in ('A. Author', 'February 3, 2026', f'{5:016x}', '../workloads/wmt.html', '>120<'):
      assert fact in text, fact
    assert text.count('<figure class="still">') == len(WORKLOADS)
    assert '--series0: var(--others)' not in text  # its own line keeps its color
    assert '--series1: var(--others)' in text

  def test_a_workload_says_what_it_is_and_who_scores_on_it(self, public):
    text = (public / 'workloads' / 'wmt.html').read_text()
    assert 'The target is bleu of at least 30.8491. 2 of 3 submissions score on it.' in text
    for fact in ('Transformer: num_layers 6', '5,906,184 for training', 'AlgoPerf; NadamW'):
      assert fact in text, fact
    assert re.search(r'<dt>budget \(1\)</dt>', text)

  def test_what_the_board_lacks_is_not_linked(self, board, public, tmp_path):
    assert 'href="report.html"' in (public / 'index.html').read_text()
    bare = copied(board, tmp_path / 'bare')
    for name in (report.PAGE, 'scores.csv', 'swift_summary.csv'):
      (bare / name).unlink()
    site.build(bare, tmp_path / 'public', date=FIRST)
    text = ''.join(file.read_text() for file in (tmp_path / 'public').rglob('*.html'))
    assert 'report.html' not in text and 'scores.csv' not in text and 'swift.csv' not in text

  def test_data_are_those_of_the_board(self, board, public):
    for name in ('leaderboard.json', 'scores.csv', 'time_to_targets_raw.csv'):
      assert (public / 'data' / name).read_bytes() == (board / name).read_bytes()
    trials = public / 'data' / 'trials' / f'{slug(HOSTILE)}.csv'
    assert trials.read_bytes() == (board / f'{HOSTILE}_summary.csv').read_bytes()
    spec = json.loads((public / 'data' / 'charts' / 'curves_wmt.json').read_text())
    assert spec['$schema'].startswith('https://vega.github.io/schema/vega-lite/')

  def test_the_same_board_gives_the_same_site(self, board, public, tmp_path):
    site.build(board, tmp_path / 'public', date=FIRST)
    files = [file.relative_to(public) for file in public.rglob('*') if file.is_file()]
    assert all(
      (public / file).read_bytes() == (tmp_path / 'public' / file).read_bytes() for file in files
    )


def test_published_competitors_stand_beside_runs(tmp_path):
  """They have no curves, and nobody says who made them."""
  runs = tmp_path / 'runs'
  for study in (1, 2, 3):
    write_recorded_trial(
      runs, 'own', 'ogbg', hit_at('ogbg', 900.0), study=study, suite='algoperf_v05'
    )
  scored(tmp_path, 'algoperf_v05', workloads=['ogbg'], against='algoperf_v05')
  made = site.build(tmp_path, tmp_path / 'public', date=FIRST)
  text = (made.page.parent / 'submissions' / 'shampoo_submission.html').read_text()
  assert 'results that were published elsewhere' in text and 'The runs do not say' in text


def test_a_board_may_have_one_submission_that_reaches_nothing(tmp_path):
  write_recorded_trial(tmp_path / 'runs', 'alone', 'ogbg', miss('ogbg'))
  scored(tmp_path, 'algoperf_v06', workloads=['ogbg'])
  made = site.build(tmp_path, tmp_path / 'public', date=FIRST)
  assert made.changes == (
    'The board is published, with 1 submission on 1 workload. No submission scores on any of them.',
  )
  text = (tmp_path / 'public' / 'workloads' / 'ogbg.html').read_text()
  assert 'No submission scores on it yet.' in text


class TestSlugs:
  @pytest.mark.parametrize('name', ['swift', 'adam_w-2', 'a'])
  def test_a_plain_name_is_its_own(self, name):
    assert slug(name) == name

  @pytest.mark.parametrize('name', ['..', '.', '', '/', '../../etc', 'CON', '-a', '<script>', 'ä'])
  def test_another_name_stays_in_its_folder(self, name):
    assert re.fullmatch(r'[a-z0-9][a-z0-9_-]*', slug(name))

  def test_names_that_look_alike_are_told_apart(self):
    names = ('adamw', 'AdamW', 'ADAMW', 'adam w', 'adam-w', 'adam.w', 'a' * 100, 'a' * 101)
    assert len({slug(name) for name in names}) == len(names)

  @given(st.text(st.characters(exclude_categories=['Cs'])))
  def test_every_slug_is_a_file_name_and_a_slug_of_itself(self, name):
    found = slug(name)
    assert re.fullmatch(r'[a-z0-9][a-z0-9_-]{0,63}', found)
    assert slug(found) == found


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    *(('https://example.org', True), ('http://a.b/c?d#e', True), ('example.org', False)),
    *(('javascript:alert(1)', False), ('https://', False), ('httpx://a.b', False)),
    *(('https://[', False), ('data:text/html,x', False), ('https://a.b c', False), ('', False)),
  ],
)
def test_only_web_addresses_are_links(text, expected):
  assert is_web_address(text) is expected


# What changes from one publication to the next.


def scores(times: dict[str, list[float | None]], code: str = 'a', **facts) -> Scores:
  """A board of the submissions, best first, with their times on two workloads."""
  board = tuple(
    Standing(
      submission=name,
      rank=place,
      score=1 / place,
      time_to_target=dict(zip(WORKLOADS, found, strict=True)),
      source_hash=code,
    )
    for place, (name, found) in enumerate(times.items(), 1)
  )
  aims = {name: Aim(metric='loss', direction='min', target=0.5) for name in WORKLOADS}
  return Scores(suite='s', ruleset='self', leaderboard=board, workloads=aims | facts)


def changes(before: Scores, after: Scores) -> tuple[str, ...]:
  first = history.published(None, before, FIRST)
  return history.changes_of(history.published(first, after, SECOND), 'steps')


A_AND_B = {'a': [10.0, 20.0], 'b': [30.0, 15.0]}


class TestChanges:
  def test_the_first_publication_says_what_it_holds(self):
    first = history.published(None, scores(A_AND_B), FIRST)
    assert history.changes_of(first, 'steps') == (
      'The board is published, with 2 submissions on 2 workloads. a leads with a score of 1.000.',
    )

  def test_who_joins_moves_nobody(self):
    assert changes(scores(A_AND_B), scores({'c': [5.0, 40.0], **A_AND_B})) == (
      'c joins at place 1 of 3, with a score of 1.000.',
      'c is the fastest on ogbg (5 steps; before: a, 10).',
    )

  def test_who_leaves_gives_records_back(self):
    assert changes(scores({'c': [5.0, 40.0], **A_AND_B}), scores(A_AND_B)) == (
      'c leaves the board.',
      'a is the fastest on ogbg (10 steps; before: c, 5).',
    )

  def test_who_overtakes_moves(self):
    after = {'b': [8.0, 15.0], 'a': [10.0, 20.0]}
    assert changes(scores(A_AND_B), scores(after)) == (
      'b moves from place 2 to 1, with a score of 1.000.',
      'a moves from place 1 to 2, with a score of 0.500.',
      'b has other times on ogbg.',
      'b is the fastest on ogbg (8 steps; before: a, 10).',
    )

  def test_other_code_and_other_targets_are_said(self):
    aim = Aim(metric='loss', direction='min', target=0.25)
    found = changes(scores(A_AND_B), scores(A_AND_B, code='b', wmt=aim))
    assert found == (
      'a has other code.',
      'b has other code.',
      'The target of wmt is loss of at most 0.25; it was loss of at most 0.5.',
    )

  def test_a_first_hit_is_a_record(self):
    before = {'a': [None, 20.0]}
    assert changes(scores(before), scores({'a': [10.0, 20.0]})) == (
      'a has other times on ogbg.',
      'a is the fastest on ogbg (10 steps; before: none).',
    )

  def test_the_same_board_changes_nothing(self):
    first = history.published(None, scores(A_AND_B), FIRST)
    assert history.published(first, scores(A_AND_B), SECOND) is first

  def test_publications_are_of_one_board_and_go_forward(self):
    first = history.published(None, scores(A_AND_B), SECOND)
    other = dataclasses.replace(scores(A_AND_B), suite='t')
    with pytest.raises(UserError, match='of one suite and ruleset'):
      history.published(first, other, SECOND)
    with pytest.raises(UserError, match='after the one before it'):
      history.published(first, scores({'a': [1.0, 2.0]}), FIRST)

  @pytest.mark.parametrize(
    ('stated', 'expected'),
    [
      ('', '2026-05-01'),
      ('2026-01-31', '2026-01-31'),
      ('2027-01-01', '2026-05-01'),
      ('in spring', '2026-05-01'),
    ],
  )
  def test_a_submission_counts_from_its_day(self, stated, expected):
    first = history.published(None, scores(A_AND_B), FIRST)
    both = history.published(first, scores({**A_AND_B, 'c': [1.0, 1.0]}), SECOND)
    assert history.since(both, 'a', stated) == expected
    assert history.since(both, 'c') == '2026-06-01'

  def test_other_code_counts_from_its_own_day(self):
    first = history.published(None, scores(A_AND_B), FIRST)
    both = history.published(first, scores(A_AND_B, code='b'), SECOND)
    assert history.since(both, 'a') == '2026-06-01'


def test_the_feed_has_an_entry_for_each_publication():
  names = [
    Publication(date=f'2026-0{m}-01T00:00:00Z', scores=scores({f'<{m}>': [1.0, float(m)]}))
    for m in (1, 2, 3)
  ]

  def read(found: History) -> list[ElementTree.Element]:
    content = feed.write(found, title='T & <U>', unit='s', page='c.html', url='https://a.b/')
    root = ElementTree.fromstring(content)
    assert root.tag == f'{ATOM}feed'
    assert root.findtext(f'{ATOM}updated') == found.last.date
    for name in ('id', 'title', 'author'):
      assert root.find(f'{ATOM}{name}') is not None
    return root.findall(f'{ATOM}entry')

  entries = read(History(publications=tuple(names)))
  assert [one.findtext(f'{ATOM}updated')[5:7] for one in entries] == ['03', '02', '01']
  ids = [one.findtext(f'{ATOM}id') for one in entries]
  assert len(set(ids)) == 3 and all(one.startswith('urn:uuid:') for one in ids)
  assert [one.findtext(f'{ATOM}id') for one in read(History(publications=tuple(names[:2])))] == ids[
    1:
  ]
  link = entries[0].find(f'{ATOM}link').get('href')
  assert link == f'https://a.b/c.html#{feed.anchor(names[2].date)}'
  assert '&lt;3&gt; joins' in entries[0].findtext(f'{ATOM}content')


# A site in the place of an earlier one.

UNDATED = json.dumps(
  {'publications': [{'date': 'soon', 'scores': dataclasses.asdict(scores(A_AND_B))}]}
)


def test_a_board_that_is_published_again_says_what_changed(board, later, tmp_path):
  public = tmp_path / 'public'
  site.build(board, public, date=FIRST)
  again = site.build(board, public, date=SECOND)
  assert again.changes == ()
  made = site.build(later, public, date=SECOND)
  assert made.changes[0] == 'new joins at place 1 of 4, with a score of 1.000.'
  text = (public / 'changes.html').read_text()
  assert text.index('June 1, 2026') < text.index('new joins') < text.index('May 1, 2026')
  assert 'What is new' in (public / 'index.html').read_text()
  assert len(ElementTree.parse(public / 'feed.xml').findall(f'{ATOM}entry')) == 2
  records = (public / 'workloads' / 'wmt.html').read_text().partition('id="records"')[2]
  days = re.findall(r'<time datetime="([^"]*)">', records.partition('</section>')[0])
  assert days == ['2026-02-03', '2026-06-01']
  assert sorted(path.name for path in tmp_path.iterdir()) == ['public']


def refused(board: Path, output: Path, message: str, date: datetime.datetime = SECOND) -> None:
  """The site is refused, and every file around it is as it was."""
  around = output.parent if output.parent.is_dir() else output.parents[1]
  before = {path: path.is_file() and path.read_bytes() for path in around.rglob('*')}
  with pytest.raises(UserError, match=message):
    site.build(board, output, date=date)
  assert {path: path.is_file() and path.read_bytes() for path in around.rglob('*')} == before


def test_a_folder_with_other_files_is_left_alone(board, public, tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.tex').write_text('x')
  refused(board, tmp_path / 'full', 'holds other files, such as thesis.tex')
  mine = copied(public, tmp_path / 'mine')
  (mine / 'CNAME').write_text('example.org')
  refused(board, mine, 'no part of the earlier site: CNAME')
  (mine / 'CNAME').unlink()
  (mine / 'notes').symlink_to(tmp_path)
  refused(board, mine, 'no part of the earlier site: notes')


@pytest.mark.parametrize(
  'text', ['', '{}', '{"publications": []}', '[1]', '{"publications": [1]}', UNDATED]
)
def test_a_damaged_history_is_not_replaced(board, public, tmp_path, text):
  mine = copied(public, tmp_path / 'mine')
  (mine / 'data' / 'site.json').write_text(text)
  refused(board, mine, 'holds the history of the site, is damaged')


def test_a_disk_that_is_full_leaves_the_earlier_site(board, later, public, tmp_path):
  mine = copied(public, tmp_path / 'mine')
  before = {path: path.read_bytes() for path in mine.rglob('*') if path.is_file()}
  with file_size_limit(10_000), pytest.raises(UserError, match='could not be written'):
    site.build(later, mine, date=SECOND)
  assert {path: path.read_bytes() for path in mine.rglob('*') if path.is_file()} == before
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def without(name: str):
  def change(folder: Path) -> None:
    (folder / name).unlink()

  return change


def with_text(name: str, text: str):
  def change(folder: Path) -> None:
    (folder / name).write_text(text)

  return change


def edited(name: str, change_record):
  def change(folder: Path) -> None:
    record = json.loads((folder / name).read_text())
    change_record(record)
    (folder / name).write_text(json.dumps(record))

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without('leaderboard.json'), 'lacks leaderboard.json'),
    (without('report.json'), 'lacks report.json'),
    (with_text('leaderboard.json', '{'), 'leaderboard.json is damaged'),
    (with_text('leaderboard.json', '[' * 100_000), 'leaderboard.json is damaged'),
    (with_text('report.json', '[]'), 'report.json is damaged'),
    (edited('leaderboard.json', lambda one: one.pop('suite')), 'leaderboard.json is damaged'),
    (edited('leaderboard.json', lambda one: one['leaderboard'].pop()), 'not of one score'),
    (edited('report.json', lambda one: one.pop('workloads')), 'report.json is damaged'),
    (edited('report.json', lambda one: one['charts']['heat'].pop()), 'report.json is damaged'),
    (edited('report.json', lambda one: one['raw'].pop()), 'report.json is damaged'),
  ],
)
def test_a_board_that_is_none_makes_no_site(board, tmp_path, change, message):
  mine = copied(board, tmp_path / 'board')
  change(mine)
  refused(mine, tmp_path / 'public', message)


def test_the_board_of_a_race_is_pointed_out(board, tmp_path):
  copied(board, tmp_path / 'race' / 'scores')
  refused(tmp_path / 'race', tmp_path / 'public', 'Did you mean .*race/scores')


def test_names_that_no_folder_could_have_stay_in_the_site(board, tmp_path):
  mine = tmp_path / 'board'
  mine.mkdir()
  names = {'"swift"': '"../secret/up"', '"AdamW"': '".."'}
  for file in ('leaderboard.json', 'report.json'):
    text = (board / file).read_text()
    for name, other in names.items():
      text = text.replace(name, other)
    (mine / file).write_text(text)
  (tmp_path / 'secret').mkdir()
  secret = tmp_path / 'secret' / 'up_summary.csv'
  secret.write_text('x')
  site.build(mine, tmp_path / 'public', date=FIRST)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['board', 'public', 'secret']
  assert len(list((tmp_path / 'public' / 'submissions').iterdir())) == 3
  assert not (tmp_path / 'public' / 'data' / 'trials').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nowhere', '-o', 'public'], 'BOARD: must be a directory'),
    (['BOARD'], '--output'),
    (['BOARD', '-o', 'file'], '--output: must be a directory'),
    (['BOARD', '-o', 'file/public'], '--output: must be a directory'),
    (['.', '-o', 'public'], 'lacks leaderboard.json and report.json'),
    (['BOARD', '-o', '.'], 'holds other files, such as file'),
    (['BOARD', '-o', 'BOARD'], 'holds other files'),
    (['BOARD', '-o', 'public', '--date', 'soon'], 'A date must be as 2026-05-31'),
    (['BOARD', '-o', 'public', '--date', '0001-01-01T00:00+10:00'], 'A date must be as'),
    (['BOARD', '-o', 'public', '--url', 'example.org'], '--url: must begin with https://'),
  ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(
  board, tmp_path, capsys, monkeypatch, arguments, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').write_text('')
  try:
    code = main(['site', *(one.replace('BOARD', str(board)) for one in arguments)])
  except SystemExit as stop:  # a wrong flag
    code = stop.code
  assert code == 2
  assert message in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_the_command_says_where_the_site_is(board, tmp_path, capsys):
  command = ['site', str(board), '-o', str(tmp_path / 'a' / 'public'), '--date', '2026-05-01']
  assert main([*command, '--url', 'https://example.org/board']) == 0
  shown = capsys.readouterr().out
  assert 'The board is published, with 3 submissions on 2 workloads.' in shown
  assert f'Site: {tmp_path / "a" / "public" / "index.html"}' in shown
  links = ElementTree.parse(tmp_path / 'a' / 'public' / 'feed.xml').iter(f'{ATOM}link')
  assert all(one.get('href').startswith('https://example.org/board/') for one in links)
