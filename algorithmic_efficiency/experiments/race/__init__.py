"""Every submission on every workload of a suite: run, estimated and costed."""
