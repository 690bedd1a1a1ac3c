"""Exports inside a stage that wait for their scores: where as many are there as may, the training waits for one to go.

The driver scores and deletes them (`evaluation.inside.InsideStage`); workers and driver know each other by files.
"""

import time
from collections.abc import Callable

from continual.ledger.folder import steps_in
from continual.training.job import TrainJob

LOOK_SECONDS = 0.5


def wait_for_scores(job: TrainJob, step: int, agreed: Callable[[bool], bool]) -> float:
    """Wait until there is room for the export after optimizer step `step`; return the seconds, 0.0 if there is room.

    Called by all ranks before the step. It returns at once when the workers are asked to stop: they finish the step,
    and its export is one more than may wait.

    Args:
        job: The stage.
        step: The step that comes, counted from 1.
        agreed: Returns rank 0's value on all ranks. They ask in every look: in one call that lasts as long as an
            evaluation, those who wait would give up.
    """
    if job.most_exports is None or not job.exports_after(step):
        return 0.0
    begun, waited = time.perf_counter(), False
    while agreed(_is_full(job, step)):
        waited = True
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - begun if waited else 0.0


def _is_full(job: TrainJob, step: int) -> bool:
    """Return whether an export would be one too many."""
    files = job.files
    if files.stop.exists() or files.unscored.exists():
        return False
    # After a resume it may be there, or scored: then nothing is written.
    if files.score_file(step).exists() or files.export(step).exists():
        return False
    return job.most_exports is not None and len(steps_in(files.evaluations)) >= job.most_exports
