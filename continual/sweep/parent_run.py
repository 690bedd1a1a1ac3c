"""Keep the sweep's own run in MLflow, the parent of its trials' runs."""

from collections.abc import Sequence
from pathlib import Path

from continual.config.load import Loaded
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Events, Ledger
from continual.run.events import NOTE, Status, add_results, ended
from continual.run.resume import FLUSH_SECONDS, tracker_of, tracking_uri
from continual.show.tracking import Tracker, flatten
from continual.sweep.outputs import Written
from continual.sweep.results import best_of
from continual.sweep.spec import LoadedAblation
from continual.sweep.state import Stopped
from continual.sweep.trials import Trial

SWEEP = "sweep"
EVENTS = "sweep.jsonl"
"""The sweep's events for the tracker; not named `ledger.jsonl`, by which the folder of a run is recognized."""
WAIT_SECONDS = 30.0
"""How long the start waits for the parent's id; without an answer the trials run without a link to the parent."""


class Parent:
    """The parent run. `begin` makes sure that the tracker's database exists before any trial opens it."""

    def __init__(self, folder: Path, source: LoadedAblation, example: Loaded):
        track = example.sequence.track
        self.source, self.folder = source, folder
        self.events = Events(folder / EVENTS).open()
        self.events.run_id()
        self.tracker = Tracker(self.events.path, tracking_uri(example), track.experiment, track.enabled)

    def begin(self) -> str | None:
        """Start (or re-open) the run; return its id, None if the tracker does not answer or is off."""
        ablation = self.source.ablation
        params = flatten(ablation.model_dump(mode="json", exclude_none=True))
        tags = {"kind": SWEEP, "sweep": ablation.name, NOTE: f"the sweep {self.source.file}"}
        self.events.add("started", key=SWEEP, name=ablation.name, tags=tags, params=params, files=[])
        return self.tracker.wait_for(SWEEP, WAIT_SECONDS)

    def end(self, status: Status, written: Written, done: int, files: Sequence[str]) -> int:
        """Record what was found so far (at the number of `done` trials), those of the files that are there, the status.

        Returns how many records still wait for the tracker.
        """
        if (best := best_of(written.points)) is not None:
            means = {f"best/{metric}": best.values[metric][0] for metric in self.source.ablation.metric}
            self.events.add("best", key=SWEEP, done=done, metrics=means)
        self._found(written, done, [])  # the files come with the end
        self.events.add("ended", key=SWEEP, status=status, open=[], matrix=None, files=self._there(files))
        return self.tracker.close(FLUSH_SECONDS)

    def add(self, written: Written, done: int, files: Sequence[str]) -> int:
        """Record what another analysis of trials that are all done has found, if anything, with the files.

        Returns how many records wait for the tracker.
        """
        self._found(written, done, self._there(files))
        return self.tracker.close(FLUSH_SECONDS)

    def _found(self, written: Written, done: int, files: list[str]) -> None:
        if written.metrics:
            add_results(self.events, done, written.metrics, files, key=SWEEP)

    def _there(self, files: Sequence[str]) -> list[str]:
        return [name for name in files if (self.folder / name).is_file()]


def close_run(trial: Trial, why: Stopped | None) -> None:
    """Close the run of a trial whose driver was ended while it waited for an answer.

    `why` a scheduler stopped it; None: it waits for the other seeds of its point, and the next start opens it again.
    """
    with Ledger(trial.loaded.run_folder, wait=True) as ledger:
        tracker = tracker_of(trial.loaded)
        if why:
            ledger.add("stopped", why=str(why))
        ledger.add("ended", **ended("KILLED", ledger.open_stages(), RunFolder(trial.loaded.run_folder)))
        tracker.close(FLUSH_SECONDS)
