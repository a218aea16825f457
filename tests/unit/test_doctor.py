"""`algoeff doctor`: what works, what is missing, and how to get it; nothing can hang it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys

import pytest

from algorithmic_efficiency import backends, cli, errors
from algorithmic_efficiency.cli import doctor
from algorithmic_efficiency.launch import request

WORKING = 'print("DESCRIPTION " + \'{"platform": "cpu", "device_kind": "cpu", "num_devices": 2}\')'


@pytest.fixture
def probes(monkeypatch):
  """Replaces what the frameworks are asked, by code of the test for each."""

  def use(**codes: str | None) -> None:
    def check_installed(framework: str) -> None:
      if codes[framework] is None:
        raise errors.UserError(f'The framework {framework} is not installed: pip install it.')

    monkeypatch.setattr(request, 'check_installed', check_installed)
    monkeypatch.setattr(doctor, '_PROBE', f'import sys; exec({codes!r}[sys.argv[1]])')

  return use


def report(capsys, *flags: str) -> tuple[int, dict]:
  code = cli.main(['doctor', '--json', *flags])
  return code, json.loads(capsys.readouterr().out)


def test_everything_works(probes, capsys, tmp_path):
  probes(jax=WORKING, pytorch=WORKING)
  code, found = report(capsys, '--data_dir', str(tmp_path))
  assert code == 0
  for name in backends.FRAMEWORKS:
    assert found['frameworks'][name] == {
      'works': True,
      'installed': True,
      'problem': None,
      'platform': 'cpu',
      'device_kind': 'cpu',
      'num_devices': 2,
    }
  assert found['num_cpus'] >= 1
  assert found['memory_bytes'] > 0
  assert found['versions']['numpy']
  assert found['disk'][str(tmp_path)] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_one_that_works_is_enough(probes, capsys):
  probes(jax=None, pytorch=WORKING)
  code, found = report(capsys)
  assert code == 0
  assert found['frameworks']['jax']['installed'] is False
  assert 'pip install' in found['frameworks']['jax']['problem']


def test_none_works(probes, capsys):
  probes(jax=None, pytorch='import sys; sys.exit("no CUDA library")')
  code, found = report(capsys)
  assert code == 1
  assert found['frameworks']['pytorch']['installed'] is True
  assert 'no CUDA library' in found['frameworks']['pytorch']['problem']


@pytest.mark.timeout(120)  # where it is waited for, it is for ten minutes
def test_a_framework_that_hangs_is_given_up(probes, capsys):
  sleeper = (
    'import subprocess, sys; subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])'
  )
  probes(jax=sleeper, pytorch=WORKING)
  code, found = report(capsys, '--timeout', '1')
  assert code == 0
  assert 'within 1 s' in found['frameworks']['jax']['problem']
  assert found['frameworks']['pytorch']['works']


def test_a_framework_that_dies_is_reported(probes, capsys):
  probes(jax='import os; os.kill(os.getpid(), 9)', pytorch='print("not an answer")')
  code, found = report(capsys)
  assert code == 1
  assert 'exit code -9' in found['frameworks']['jax']['problem']
  assert 'exit code 0' in found['frameworks']['pytorch']['problem']


@pytest.mark.parametrize('framework', backends.FRAMEWORKS)
def test_the_installed_frameworks_are_asked_for_real(framework):
  try:
    request.check_installed(framework)
  except errors.UserError as error:
    pytest.skip(str(error))
  probe = doctor._start_probe(framework)
  found = doctor._answer(framework, probe, 120)
  assert found['works'], found['problem']
  assert found['num_devices'] >= 1
  assert found['device_kind']


def test_data_found_damaged_and_missing(probes, capsys, tmp_path):
  probes(jax=WORKING, pytorch=WORKING)
  _, found = report(capsys, '--data_dir', str(tmp_path))
  sets = {entry['name']: entry for entry in found['data']}
  assert any(entry['bundled'] and entry['found'] for entry in sets.values())
  missing = next(entry for entry in sets.values() if not entry['found'])
  assert missing['prepare'].startswith(f'algoeff data prepare {missing["name"]}')

  from algorithmic_efficiency.data import records

  (tmp_path / missing['name']).mkdir()
  (tmp_path / missing['name'] / records.MANIFEST).write_text('{')
  _, found = report(capsys, '--data_dir', str(tmp_path))
  damaged = next(entry for entry in found['data'] if entry['name'] == missing['name'])
  assert not damaged['found']
  assert 'damaged' in damaged['problem']


def test_extras_name_what_they_lack(monkeypatch):
  required = [
    'numpy>=2.0',
    'pandas>=2.2 ; extra == "report"',
    'no-such-package[x]>=1; python_version >= "3.11" and extra == \'report\'',
    'algorithmic-efficiency[report]; extra == "dev"',
    'numpy; extra == "quick"',
  ]
  monkeypatch.setattr(importlib.metadata, 'requires', lambda name: required)
  assert doctor.extras() == {'report': ['no-such-package'], 'quick': []}


def test_text(probes, capsys, monkeypatch, tmp_path):
  probes(jax=WORKING, pytorch=None)
  monkeypatch.setattr(doctor, 'extras', lambda: {'report': ['matplotlib'], 'quick': []})
  assert cli.main(['doctor', '--data_dir', str(tmp_path / 'not' / 'there')]) == 0
  out = capsys.readouterr().out
  assert 'framework  ok      jax: 2 x cpu (cpu)' in out
  assert 'framework  missing The framework pytorch is not installed: pip install it.' in out
  assert (
    "extra      missing report (matplotlib): pip install 'algorithmic-efficiency[report]'" in out
  )
  assert f'GiB free at {tmp_path / "not" / "there"}' in out
  assert '(bundled)' in out


def test_it_imports_no_framework_itself():
  code = (
    'import sys; from algorithmic_efficiency.cli import doctor; '
    "doctor._PROBE = 'raise SystemExit(3)'; from pathlib import Path; "
    'doctor.examine(Path("."), timeout_sec=30); '
    "print(sorted({'jax', 'torch', 'tensorflow', 'pandas'} & set(sys.modules)))"
  )
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert out.stdout == '[]\n'
