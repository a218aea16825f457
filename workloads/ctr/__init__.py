"""Click-through-rate prediction: Criteo 1TB."""
