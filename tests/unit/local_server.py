"""An HTTP server on this machine that misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class LocalServer:
  """What the server has and how it answers.

  Attributes:
    files: content by path.
    ranges: whether it can continue a download.
    cut_after: the connection of the n-th request ends after so many bytes of content.
    statuses: the n-th request is answered with this error.
    requests: path and Range header of every request.
  """

  files: dict[str, bytes] = field(default_factory=dict)
  ranges: bool = True
  cut_after: dict[int, int] = field(default_factory=dict)
  statuses: dict[int, int] = field(default_factory=dict)
  requests: list[tuple[str, str | None]] = field(default_factory=list)
  address: str = ''


@contextlib.contextmanager
def serving() -> Iterator[LocalServer]:
  state = LocalServer()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
      number = len(state.requests)
      wanted = self.headers.get('Range')
      state.requests.append((self.path, wanted))
      if number in state.statuses:
        self.send_error(state.statuses[number])
        return
      if self.path not in state.files:
        self.send_error(404)
        return
      content, start = state.files[self.path], 0
      if wanted and state.ranges:
        start = int(wanted.removeprefix('bytes=').removesuffix('-'))
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
      else:
        self.send_response(200)
      body = content[start:]
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body[: state.cut_after.get(number, len(body))])

    def log_message(self, *args: object) -> None:
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads = True
  thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
  thread.start()
  state.address = f'http://127.0.0.1:{server.server_address[1]}'
  try:
    yield state
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
