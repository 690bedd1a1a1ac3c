"""Sweeps: one sequence under many settings and seeds, with Ray Tune."""
