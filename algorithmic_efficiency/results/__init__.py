"""What is written and read: rows, trial records, race files, and the machine they came from."""
