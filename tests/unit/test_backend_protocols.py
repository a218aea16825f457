"""Both backends have every member of the protocols, with the same arguments."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip('jax')
pytest.importorskip('torch')

from algorithmic_efficiency.backends import base
from algorithmic_efficiency.backends._jax_backend import JaxBackend
from algorithmic_efficiency.backends._torch_backend import TorchBackend

PARTS = (base.Ranks, base.Placement, base.Evaluation, base.StateCopies, base.Diagnostics)


def methods(protocol: type) -> dict[str, list[str]]:
  return {
    name: list(inspect.signature(member).parameters)
    for name, member in inspect.getmembers(protocol, inspect.isfunction)
    if not name.startswith('_')
  }


def test_a_backend_is_its_parts_and_how_it_is_prepared_for_a_submission():
  own = set(methods(base.Backend)) - {name for part in PARTS for name in methods(part)}
  assert own == {'for_submission'}


@pytest.mark.parametrize('backend', [JaxBackend, TorchBackend])
def test_each_backend_takes_what_the_protocols_say(backend):
  for name, parameters in methods(base.Backend).items():
    found = list(inspect.signature(getattr(backend, name)).parameters)
    assert found[: len(parameters)] == parameters, name
