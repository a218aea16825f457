"""Optimizers by their import names: found, called, tried out and kept as submissions."""
