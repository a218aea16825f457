"""What is installed is what lies in the checkout, and the pins fit the bounds."""

from __future__ import annotations

import fnmatch
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sources import OURS, ROOT

import algorithmic_efficiency

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
NOT_PINNED = {'cuda', 'tpu'}  # accelerator builds were not run


def declared() -> list[Requirement]:
  extras = PROJECT['project']['optional-dependencies']
  lines = list(PROJECT['project']['dependencies'])
  lines += [line for name, group in extras.items() if name not in NOT_PINNED for line in group]
  return [Requirement(line) for line in lines]


def pinned(python: str) -> dict[str, Requirement]:
  lines = (ROOT / 'constraints.txt').read_text().splitlines()
  found = [Requirement(line) for line in lines if line and not line.startswith('#')]
  return {
    canonicalize_name(pin.name): pin
    for pin in found
    if pin.marker is None or pin.marker.evaluate({'python_version': python})
  }


def test_the_version_stands_in_two_places_that_agree():
  assert PROJECT['project']['version'] == algorithmic_efficiency.__version__


def test_every_file_of_the_packages_is_installed():
  patterns = ['*.py', *PROJECT['tool']['setuptools']['package-data']['*']]
  left_out = [
    str(path.relative_to(ROOT))
    for package in OURS
    for path in (ROOT / package).rglob('*')
    if path.is_file()
    and '__pycache__' not in path.parts
    and not any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
  ]
  assert not left_out, 'add the suffix to package-data in pyproject.toml'


def test_every_requirement_has_a_lower_bound_and_nothing_else():
  for requirement in declared():
    assert [bound.operator for bound in requirement.specifier] == ['>='], str(requirement)


@pytest.mark.parametrize('python', ['3.11', '3.12'])
def test_every_requirement_is_pinned_within_its_bound(python: str):
  pins = pinned(python)
  for requirement in declared():
    pin = pins[canonicalize_name(requirement.name)]
    versions = [bound.version for bound in pin.specifier if bound.operator == '==']
    if canonicalize_name(requirement.name) == 'torch' and python == '3.12':
      assert not versions  # not run there: a ceiling only
    else:
      [version] = versions
      assert requirement.specifier.contains(version), f'{pin} is outside {requirement}'


@pytest.mark.parametrize('python', ['3.11', '3.12'])
def test_no_package_is_pinned_twice(python: str):
  lines = (ROOT / 'constraints.txt').read_text().splitlines()
  found = [Requirement(line) for line in lines if line and not line.startswith('#')]
  active = [
    pin for pin in found if not pin.marker or pin.marker.evaluate({'python_version': python})
  ]
  assert len(active) == len(pinned(python))
