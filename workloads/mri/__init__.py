"""Reconstruction of magnetic resonance images: fastMRI."""
