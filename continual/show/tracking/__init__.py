"""MLflow follows a run's own files: a thread sends what they gain. Imports mlflow only in that thread."""

from continual.show.tracking.git import git_state
from continual.show.tracking.names import SEQUENCE, clean, flatten, run_tags, sequence_metrics, stage_metrics
from continual.show.tracking.tracker import Tracker

__all__ = [
    "SEQUENCE", "Tracker", "clean", "flatten", "git_state", "run_tags", "sequence_metrics", "stage_metrics",
]  # fmt: skip
