"""Optimizers by import name: loaded, checked in a dry run, and kept as submissions."""
