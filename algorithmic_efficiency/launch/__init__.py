"""Trials as jobs: each in a process of its own, on this machine."""
