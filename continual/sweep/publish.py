"""The sweep's own run in MLflow: the parent of its trials' runs."""

from pathlib import Path

from continual.config.load import Loaded
from continual.run.resume import FLUSH_SECONDS, tracker_of, tracking_uri
from continual.show.tracking import Tracker, flatten
from continual.show.tracking.publisher import SEQUENCE, Status
from continual.store.lock import FileLock
from continual.sweep.results import PointResult
from continual.sweep.spec import LoadedAblation
from continual.sweep.state import Stopped
from continual.sweep.trials import Trial

SWEEP = "sweep"
WAIT_SECONDS = 30.0
"""How long the start waits for the parent's id. A tracker that is down costs the link to it, not the sweep."""


class Parent:
    """The parent run. `begin` makes sure that the tracker's database is there before any trial opens it."""

    def __init__(self, folder: Path, source: LoadedAblation, example: Loaded):
        track = example.sequence.track
        self.source, self.folder = source, folder
        self.tracker = Tracker(folder, tracking_uri(example), track.experiment or source.ablation.name, track.enabled)

    def begin(self) -> str | None:
        """Open (or re-open) the run; its id, None if the tracker does not answer or is off."""
        ablation = self.source.ablation
        params = flatten(ablation.model_dump(mode="json", exclude_none=True))
        tags = {"kind": SWEEP, "sweep": ablation.name, "mlflow.note.content": f"the sweep {self.source.file}"}
        self.tracker.start_run(SWEEP, ablation.name, tags=tags, params=params)
        return self.tracker.wait_for(SWEEP, WAIT_SECONDS)

    def end(self, status: Status, best: PointResult | None, done: int) -> int:
        """Files and the best point's means so far (step: trials that are done), and the status.

        Returns how many records still wait for the tracker.
        """
        if best is not None:
            values = {f"best/{metric}": best.values[metric][0] for metric in self.source.ablation.metric}
            self.tracker.metrics(SWEEP, values, step=done)
        for name in ("sweep.json", "table.md", "pareto.png", "best.yaml"):
            if self.tracker.enabled and (self.folder / name).is_file():
                self.tracker.artifact(SWEEP, self.folder / name)
        self.tracker.finish(SWEEP, status)
        return self.tracker.close(FLUSH_SECONDS)


def close_stopped(trial: Trial, why: Stopped) -> None:
    """Close the run of a trial that a scheduler stopped: its driver was ended while it waited for an answer."""
    with FileLock(trial.loaded.run_folder / "lock"):
        tracker = tracker_of(trial.loaded)
        tracker.tags(SEQUENCE, {"stopped": str(why)})
        tracker.finish(SEQUENCE, "KILLED")
        tracker.close(FLUSH_SECONDS)
