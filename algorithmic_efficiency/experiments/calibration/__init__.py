"""Finds the target and the budget of a workload."""
