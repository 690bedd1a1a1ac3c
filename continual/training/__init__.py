"""Training: losses, the module that a strategy wraps, strategies, the loop, checkpoints."""
