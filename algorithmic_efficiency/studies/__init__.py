"""What runs many trials for a purpose: races, and the targets of workloads."""
