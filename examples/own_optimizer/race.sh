#!/bin/sh
# A race against the baseline. The same command continues it after an interruption.
set -eu
SIGN='sign_momentum.sign_momentum(learning_rate=1e-3; schedule=warmup_cosine, warmup=0.05)'
algoeff bench --suite quick --submissions "nadamw,sign=$SIGN" --ruleset self \
  --frameworks jax --studies 3 --seed 1 --experiment_dir race
