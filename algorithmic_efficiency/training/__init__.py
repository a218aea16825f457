"""One training step in each framework, with its options and batch sizes."""
