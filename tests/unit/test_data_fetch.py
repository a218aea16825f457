from __future__ import annotations

import hashlib

import numpy as np
import pytest
from file_limit import file_size_limit
from local_server import serving

from algorithmic_efficiency import errors
from algorithmic_efficiency.data.fetch import Download, fetch

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def server():
  with serving() as state:
    state.files['/data.gz'] = CONTENT
    yield state


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')


def download(*urls, content=CONTENT):
  return Download(
    name='data.gz', urls=urls, sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content)
  )


def bring(what, folder, progress=lambda *_: None):
  return fetch(what, folder, progress, pause_sec=0.001, timeout_sec=5)


def names(folder):
  return [path.name for path in folder.iterdir()]


def test_a_file_is_brought_and_progress_is_told(server, tmp_path):
  calls = []
  path = bring(download(f'{server.address}/data.gz'), tmp_path, lambda *args: calls.append(args))
  assert path.read_bytes() == CONTENT
  assert names(tmp_path) == ['data.gz']
  assert calls[0] == ('data.gz', 0, 1_000_000)
  assert calls[-1] == ('data.gz', 1_000_000, 1_000_000)
  assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_file_that_is_there_is_not_asked_for(server, tmp_path):
  (tmp_path / 'data.gz').write_bytes(CONTENT)
  bring(download(f'{server.address}/data.gz'), tmp_path)
  assert server.requests == []


def test_a_file_that_is_there_but_wrong_is_replaced(server, tmp_path):
  (tmp_path / 'data.gz').write_bytes(b'something else')
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT


def test_reference_fault_31_a_broken_connection_is_continued(server, tmp_path):
  server.cut_after = {0: 300_000, 1: 200_000}
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert [wanted for _, wanted in server.requests] == [None, 'bytes=300000-', 'bytes=500000-']


def test_reference_fault_31_an_interrupted_call_is_continued_by_the_next(server, tmp_path):
  def interrupt(name, done, total):
    if done > 400_000:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    bring(download(f'{server.address}/data.gz'), tmp_path, interrupt)
  assert names(tmp_path) == ['data.gz.part']
  size = (tmp_path / 'data.gz.part').stat().st_size
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert server.requests[1][1] == f'bytes={size}-'


def test_a_server_that_cannot_continue_starts_again(server, tmp_path):
  server.ranges = False
  server.cut_after = {0: 300_000}
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert [wanted for _, wanted in server.requests] == [None, 'bytes=300000-']


def test_connections_that_bring_something_may_break_any_number_of_times(server, tmp_path):
  server.cut_after = dict.fromkeys(range(9), 100_000)
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert len(server.requests) == 10


def test_a_busy_server_is_asked_again(server, tmp_path):
  server.statuses = {0: 503, 1: 429, 2: 500}
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT


def test_the_next_place_takes_over_where_the_first_failed(server, tmp_path):
  server.files['/other.gz'] = CONTENT
  what = download(f'{server.address}/gone.gz', f'{server.address}/other.gz')
  assert bring(what, tmp_path).read_bytes() == CONTENT
  assert [path for path, _ in server.requests] == ['/gone.gz', '/other.gz']


@pytest.mark.parametrize('status', [403, 404, 503])
def test_a_file_that_no_place_has_is_one_clear_error(server, tmp_path, status):
  server.statuses = dict.fromkeys(range(100), status)
  with pytest.raises(errors.UserError) as caught:
    bring(download(f'{server.address}/data.gz'), tmp_path)
  message = str(caught.value)
  assert f'{server.address}/data.gz: the server answers {status}' in message
  assert '--source' in message
  assert len(server.requests) == (4 if status == 503 else 1)
  assert names(tmp_path) == []


def test_nobody_listening_is_one_clear_error(tmp_path):
  with pytest.raises(errors.UserError, match=r'the connection failed .*refused'):
    bring(download('http://127.0.0.1:9/data.gz'), tmp_path)


@pytest.mark.parametrize(
  'wrong', [CONTENT[:-1] + b'x', CONTENT + b'x', CONTENT * 2], ids=['altered', 'longer', 'double']
)
def test_reference_fault_31_wrong_content_is_refused_and_not_kept(server, tmp_path, wrong):
  server.files['/data.gz'] = wrong
  with pytest.raises(errors.UserError, match='its content is not the expected one'):
    bring(download(f'{server.address}/data.gz'), tmp_path)
  assert names(tmp_path) == []


def test_a_file_that_ends_early_is_refused(server, tmp_path):
  server.files['/data.gz'] = CONTENT[:-1]
  with pytest.raises(errors.UserError, match='could not be fetched'):
    bring(download(f'{server.address}/data.gz'), tmp_path)
  assert 'data.gz' not in names(tmp_path)


def test_a_wrong_beginning_is_dropped_and_fetched_again(server, tmp_path):
  (tmp_path / 'data.gz.part').write_bytes(b'x' * 500_000)
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert [wanted for _, wanted in server.requests] == ['bytes=500000-', None]


def test_a_full_disk_is_one_clear_error(server, tmp_path):
  with file_size_limit(500_000), pytest.raises(errors.UserError, match='could not be written'):
    bring(download(f'{server.address}/data.gz'), tmp_path)
  assert len(server.requests) == 1
  assert bring(download(f'{server.address}/data.gz'), tmp_path).read_bytes() == CONTENT
  assert server.requests[1][1] == 'bytes=500000-'


def test_a_file_that_does_not_end_is_not_read_to_its_end(server, tmp_path):
  """One block beyond the expected size shows that it is another file."""
  server.files['/data.gz'] = bytes(5_000_000)
  told = []
  with pytest.raises(errors.UserError, match='not the expected one'):
    bring(download(f'{server.address}/data.gz'), tmp_path, lambda _, done, total: told.append(done))
  assert 1_000_000 < max(told) < 1_500_000
