"""Experts on several ranks are those of one process with all tokens: drops, losses, gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')

import experts_rank  # noqa: E402

from algorithmic_efficiency.layers import torch as layers  # noqa: E402
from algorithmic_efficiency.layers.configs import ExpertsConfig, FeedForwardConfig  # noqa: E402

CLOSE = {'rtol': 1e-10, 'atol': 1e-12}
NUM_RANKS, TOKENS, DIM = 3, 60, 8


@pytest.mark.slow
def test_ranks_drop_and_balance_as_one_process(tmp_path):
  """Ranks have unequal numbers of tokens, and capacity is that of all of them."""
  expert = FeedForwardConfig(hidden_dim=6, activation='silu', gate='input', use_bias=False)
  config = ExpertsConfig(num_experts=4, top_k=2, expert=expert, capacity_factor=0.8)
  torch.manual_seed(0)
  layer = layers.Experts(config, dim=DIM, dtype=torch.float64)
  case = {
    'config': config,
    'state': layer.state_dict(),
    'x': torch.randn(TOKENS, DIM, dtype=torch.float64),
    'cotangent': torch.randn(TOKENS, DIM, dtype=torch.float64),
    'is_token': torch.arange(TOKENS) % 5 != 2,
    'bounds': [0, 10, 37, TOKENS],
    'share': 1.0,
  }
  torch.save(case, tmp_path / 'case.pt')
  script = Path(__file__).with_name('experts_rank.py')
  environment = {**os.environ, 'PYTHONPATH': str(Path(layers.__file__).parents[2])}
  command = [sys.executable, script]
  ranks = [
    subprocess.Popen([*command, str(rank), str(NUM_RANKS), tmp_path], env=environment)
    for rank in range(NUM_RANKS)
  ]
  assert [rank.wait(timeout=300) for rank in ranks] == [0] * NUM_RANKS
  parts = [
    torch.load(tmp_path / f'rank_{rank}.pt', weights_only=False) for rank in range(NUM_RANKS)
  ]

  whole = experts_rank.run(case, slice(None))
  assert not whole['is_kept'][case['is_token']].all()
  # Each rank alone would have dropped others.
  alone = [experts_rank.run(case, slice(*case['bounds'][rank : rank + 2])) for rank in range(3)]
  assert not torch.equal(torch.cat([one['is_kept'] for one in alone]), whole['is_kept'])
  for name in ('out', 'is_kept', 'of_x'):
    torch.testing.assert_close(torch.cat([one[name] for one in parts]), whole[name], **CLOSE)
  for part in parts:
    torch.testing.assert_close(part['losses'], whole['losses'], **CLOSE)
  for name, gradient in whole['of_params'].items():
    total = sum(part['of_params'][name] for part in parts)
    torch.testing.assert_close(total, gradient, **CLOSE)
