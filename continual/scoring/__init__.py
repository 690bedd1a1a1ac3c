"""What a frozen model says about stored rows: one pass of it over them, kept as columns beside them."""

from continual.scoring.score import score_rows

__all__ = ["score_rows"]
