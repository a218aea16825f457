"""What runs in a trial's process: from its config to its rows and its record."""
