"""What a frozen model computes from stored rows: columns aligned with them, and its Fisher information; from texts,
representations."""

from continual.scoring.fisher import fisher_artefact
from continual.scoring.score import score_growing, score_inputs, score_rows

__all__ = ["fisher_artefact", "score_growing", "score_inputs", "score_rows"]
