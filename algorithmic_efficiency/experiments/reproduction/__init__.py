"""Runs held against logs that were published."""
