"""Trackers are found by name, and say what they lack."""

from __future__ import annotations

import struct
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from algorithmic_efficiency.errors import UserError
from algorithmic_efficiency.results import trackers


def events(folder: Path) -> list:
  """The events of all event files of a folder, in the order in which they were written."""
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for path in sorted(folder.glob('events.out.tfevents.*')):
    content = path.read_bytes()
    while content:
      (length,) = struct.unpack('<Q', content[:8])
      found.append(Event.FromString(content[12 : 12 + length]))
      content = content[16 + length :]
  return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
  return [
    (event.step, value.tag, value.simple_value)
    for event in events(folder)
    for value in event.summary.value
    if value.HasField('simple_value')
  ]


def test_tensorboard_writes_each_column(tmp_path):
  pytest.importorskip('tensorboardX')
  tracker = trackers.open_tracker('tensorboard', tmp_path)
  tracker.scalars(1, {'validation/loss': 0.5, 'score': 2, 'global_step': 1})
  tracker.scalars(2, {'validation/loss': 0.25})
  tracker.close()
  assert scalars(tmp_path) == [
    (1, 'validation/loss', 0.5),
    (1, 'score', 2.0),
    (2, 'validation/loss', 0.25),
  ]


def test_tensorboard_has_the_rows_of_an_evaluation_as_soon_as_it_is_flushed(tmp_path):
  """Regression: a killed process lost what it had written in the last ten seconds."""
  pytest.importorskip('tensorboardX')
  tracker = trackers.open_tracker('tensorboard', tmp_path)
  tracker.scalars(1, {'loss': 0.5})
  trackers.flush(tracker)
  assert scalars(tmp_path) == [(1, 'loss', 0.5)]
  tracker.close()


def test_a_resumed_tensorboard_hides_what_was_there_before(tmp_path):
  pytest.importorskip('tensorboardX')
  tracker = trackers.open_tracker('tensorboard', tmp_path, resumed_at=10)
  tracker.scalars(12, {'loss': 0.125})
  tracker.close()
  starts = [event.step for event in events(tmp_path) if event.HasField('session_log')]
  assert starts == [0]
  assert scalars(tmp_path) == [(12, 'loss', 0.125)]


class Lines:
  """A tracker that has nothing to flush."""

  def scalars(self, step, values):
    pass

  def close(self):
    pass


def test_a_tracker_needs_no_method_to_flush():
  trackers.flush(Lines())


def test_tensorboard_does_not_import_torch(tmp_path):
  pytest.importorskip('tensorboardX')
  code = (
    'import sys; from pathlib import Path; from algorithmic_efficiency.results import trackers; '
    f'tracker = trackers.open_tracker("tensorboard", Path({str(tmp_path)!r})); '
    'tracker.scalars(1, {"loss": 0.5}); tracker.close(); print("torch" in sys.modules)'
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout == 'False\n'


@pytest.mark.parametrize(
  ('name', 'package', 'extra'),
  [
    ('tensorboard', 'tensorboardX', 'monitor'),
    ('wandb', 'wandb', 'wandb'),
    ('mlflow', 'mlflow', 'mlflow'),
  ],
)
def test_a_missing_package_names_the_install_line(name, package, extra, monkeypatch):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(UserError, match=rf"--log {name} .*pip install '.*\[{extra}\]'"):
    trackers.check(name)


def test_wandb_needs_a_login_for_runs_that_are_online_alone(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', ModuleType('wandb'))
  monkeypatch.setattr(sys.modules['wandb'], '__spec__', ModuleSpec('wandb', None))
  for name in ('WANDB_MODE', 'WANDB_API_KEY', 'WANDB_BASE_URL'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))
  trackers.check('wandb')
  monkeypatch.setenv('WANDB_MODE', 'online')
  with pytest.raises(UserError, match='needs a login: run `wandb login`'):
    trackers.check('wandb')
  (tmp_path / 'netrc').write_text('machine api.wandb.ai login user password key')
  trackers.check('wandb')
  (tmp_path / 'netrc').unlink()
  monkeypatch.setenv('WANDB_API_KEY', 'key')
  trackers.check('wandb')


def test_an_unknown_name_gives_the_nearest(tmp_path):
  with pytest.raises(UserError, match="Did you mean 'tensorboard'"):
    trackers.open_tracker('tensorbord', tmp_path)
  with pytest.raises(UserError, match=r'no tracker .no\.such\.module'):
    trackers.open_tracker('no.such.module', tmp_path)


def test_others_bring_their_own(tmp_path, monkeypatch):
  package = tmp_path / 'someones'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'tracker.py').write_text(
    'class Lines:\n'
    '  def __init__(self, path): self.file = open(path, "w")\n'
    '  def scalars(self, step, values): print(step, values, file=self.file)\n'
    '  def close(self): self.file.close()\n'
    'def start(folder, *, resumed_at=None): return Lines(folder / "lines.txt")\n'
  )
  (package / 'empty.py').write_text('')
  monkeypatch.syspath_prepend(tmp_path)
  tracker = trackers.open_tracker('someones.tracker', tmp_path)
  tracker.scalars(3, {'loss': 0.5})
  tracker.close()
  assert (tmp_path / 'lines.txt').read_text() == "3 {'loss': 0.5}\n"
  with pytest.raises(UserError, match='has a function start'):
    trackers.open_tracker('someones.empty', tmp_path)
