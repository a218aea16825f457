"""Many trials for a purpose: races, calibrations, reproductions and checks."""
