"""Where the trials of a race run: on this machine, or as jobs of a cluster."""
