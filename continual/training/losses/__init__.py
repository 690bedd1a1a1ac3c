"""Losses: their sums with gradients in closed form, and the kinds that a stream may name."""
