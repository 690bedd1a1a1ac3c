"""Scores, the matrix that they form over the stages, and its figures. Pure Python: imports neither torch nor ray."""

from continual.forgetting.figures import check_units, figures, last_figures
from continual.forgetting.limits import (
    DEFAULT,
    MEAN_LOSSES,
    ScoreLoss,
    as_limits,
    limits_by_name,
    loss_of,
    losses_of,
)
from continual.forgetting.matrix import Matrix, StageScores, are_rows, matrix_as_json, read_matrix, tasks_of, units_of
from continual.forgetting.reader import FIGURES
from continual.forgetting.score import Score, Scores, are_scores, scores_as_json, scores_from_json

__all__ = [
    "DEFAULT", "FIGURES", "MEAN_LOSSES", "Matrix", "Score", "ScoreLoss", "Scores", "StageScores", "are_rows",
    "are_scores", "as_limits", "check_units", "figures", "last_figures", "limits_by_name", "loss_of", "losses_of",
    "matrix_as_json", "read_matrix", "scores_as_json", "scores_from_json", "tasks_of", "units_of",
]  # fmt: skip
