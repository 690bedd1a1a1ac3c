"""Training: batches, losses, the module that a strategy wraps, strategies, a step, a worker, checkpoints."""
