"""Neural machine translation."""
