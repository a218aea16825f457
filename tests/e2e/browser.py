"""A headless Chromium for tests, over the WebDriver protocol; needs no package."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from algorithmic_efficiency.backends.ports import free_port

_FLAGS = (
  *('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'),
  *('--disable-background-networking', '--disable-component-update', '--no-first-run'),
  *('--disable-default-apps', '--disable-sync', '--hide-scrollbars'),
)


class Browser:
  """One session; `execute` runs a script in the page and returns its value."""

  def __init__(self, address: str):
    self._address = address
    options = {
      'browserName': 'chrome',
      'goog:chromeOptions': {'args': list(_FLAGS), 'binary': shutil.which('chromium')},
      'goog:loggingPrefs': {'browser': 'ALL', 'performance': 'ALL'},
    }
    found = self._call('POST', '/session', {'capabilities': {'alwaysMatch': options}})
    self._session = f'/session/{found["sessionId"]}'

  def _call(self, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
      self._address + path, data=data, method=method, headers={'Content-Type': 'application/json'}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
      return json.load(answer)['value']

  def post(self, path: str, **body: Any) -> Any:
    return self._call('POST', self._session + path, body)

  def devtools(self, command: str, **parameters: Any) -> Any:
    return self.post('/goog/cdp/execute', cmd=command, params=parameters)

  def open(self, page: Path) -> None:
    self.post('/url', url=page.resolve().as_uri())

  def execute(self, script: str, *arguments: Any) -> Any:
    return self.post('/execute/sync', script=script, args=list(arguments))

  def wait_for(self, script: str) -> None:
    """Waits until a script returns something true; what hangs ends after five minutes."""
    deadline = time.monotonic() + 300
    while not self.execute(script):
      assert time.monotonic() < deadline, script
      time.sleep(0.1)

  def press(self, key: str) -> None:
    """Presses a key in the element that has the focus."""
    text = '\r' if key == 'Enter' else key
    code = {'Enter': 13}.get(key, ord(key[0]))
    facts = {'key': key, 'text': text, 'windowsVirtualKeyCode': code}
    self.devtools('Input.dispatchKeyEvent', type='keyDown', **facts)
    self.devtools('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

  def resize(self, width: int, height: int) -> None:
    self.devtools(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 500,
    )

  def media(self, *, scheme: str = 'light', medium: str = 'screen') -> None:
    self.devtools(
      'Emulation.setEmulatedMedia',
      media=medium,
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )

  def screenshot(self, path: Path) -> None:
    found = self.devtools('Page.captureScreenshot', captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(found['data']))

  def console(self) -> list[dict[str, Any]]:
    return self.post('/se/log', type='browser')

  def requested(self) -> list[str]:
    """The addresses that pages asked for since the last call."""
    messages = [
      json.loads(entry['message'])['message'] for entry in self.post('/se/log', type='performance')
    ]
    return [
      message['params']['request']['url']
      for message in messages
      if message['method'] == 'Network.requestWillBeSent'
    ]

  def close(self) -> None:
    with contextlib.suppress(urllib.error.URLError, OSError):
      self._call('DELETE', self._session)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  """Starts a browser; the test is skipped where there is none."""
  driver = shutil.which('chromedriver')
  if driver is None or shutil.which('chromium') is None:
    pytest.skip('no chromium and chromedriver on this machine')
  port = free_port()
  process = subprocess.Popen(
    [driver, f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  try:
    address = f'http://127.0.0.1:{port}'
    _wait_for(address)
    session = Browser(address)
    try:
      yield session
    finally:
      session.close()
  finally:
    process.terminate()
    process.wait(timeout=20)


def _wait_for(address: str) -> None:
  deadline = time.monotonic() + 30
  while True:
    try:
      with urllib.request.urlopen(f'{address}/status', timeout=5):
        return
    except (urllib.error.URLError, OSError):
      if time.monotonic() > deadline:
        raise
      time.sleep(0.1)
