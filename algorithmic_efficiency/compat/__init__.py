"""What entries written for AlgoPerf import and expect, beyond the contract itself."""
