#!/bin/sh
# The tests of the optimizer, then the rules of the benchmark.
set -eu
python -m pytest -q tests
algoeff check 'sign_momentum.sign_momentum(learning_rate=1e-3)' --workloads quick_vision
