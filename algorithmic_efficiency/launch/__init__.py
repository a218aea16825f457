"""The parents of trials: what is asked for, and processes started and watched."""
