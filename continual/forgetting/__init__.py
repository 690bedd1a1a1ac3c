"""The matrix of scores R and its figures. Pure Python: imports neither torch nor ray."""

from continual.forgetting.figures import FIGURES, Score, check_units, figures

__all__ = ["FIGURES", "Score", "check_units", "figures"]
