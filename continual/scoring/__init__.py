"""What a frozen model says about stored rows: one pass of it over them, kept as columns beside them."""

from continual.scoring.fisher import score_fisher
from continual.scoring.score import score_rows

__all__ = ["score_fisher", "score_rows"]
