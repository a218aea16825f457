"""The hashes by which results are matched to workloads and suites outlive changes of the code.

A line of `hashes.txt` changes only with what it hashes; then older results no longer match.
"""

from __future__ import annotations

from pathlib import Path

from algorithmic_efficiency.benchmark import registry
from algorithmic_efficiency.benchmark.suites import SUITES

HASHES = Path(__file__).with_name('hashes.txt')


def test_the_hashes_of_definitions_and_suites_are_what_they_were():
  known = dict(line.rsplit(' ', 1) for line in HASHES.read_text().splitlines())
  now = {name: registry.workload(name).content_hash() for name in registry.workloads()}
  for suite in SUITES.values():
    now |= {f'{suite.name} {ruleset}': suite.rules_hash(ruleset) for ruleset in suite.tuning}
  assert {name: now.get(name) for name in known} == known
  assert set(now) == set(known), 'add the hashes of what is new'
