"""Scoring: from the rows of many runs to performance profiles and one leaderboard.

`load(path)` reads runs into a table, `score(frame, suite)` scores it. No framework is imported.
"""

from __future__ import annotations

from scoring.leaderboard import Leaderboard, score
from scoring.load import load
from scoring.result import Result

__all__ = ['Leaderboard', 'Result', 'load', 'score']
