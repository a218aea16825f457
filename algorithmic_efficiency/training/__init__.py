"""One training step, and what surrounds it, in each framework."""
