"""MLflow behind one small class: the driver records, a thread follows. Imports mlflow only inside that thread."""

from continual.show.tracking.figures import matrix_figure, matrix_table
from continual.show.tracking.git import git_state
from continual.show.tracking.names import clean, flatten, run_tags, sequence_metrics, stage_metrics
from continual.show.tracking.tracker import Tracker

__all__ = [
    "Tracker", "clean", "flatten", "git_state", "matrix_figure", "matrix_table", "run_tags", "sequence_metrics",
    "stage_metrics",
]  # fmt: skip
