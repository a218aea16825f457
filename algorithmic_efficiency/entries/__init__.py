"""Packs an entry of a leaderboard with its runs, and verifies what others packed."""
