"""Compares runs with published logs."""
