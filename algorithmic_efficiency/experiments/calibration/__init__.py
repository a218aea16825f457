"""How the target and the budget of a workload are found."""
