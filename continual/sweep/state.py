"""What a sweep remembers between two starts; its trials remember themselves, in their runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from continual.errors import ContinualError
from continual.store.files import write_atomic
from continual.store.lock import FileLock, Locked
from continual.sweep.schema import Ablation
from continual.sweep.space import Point

STATE = "state.json"
STOP = "stop"
"""A file in the sweep's folder that tells the trials of this start to end in order."""


@dataclass(frozen=True)
class Stopped:
    """Why a trial was stopped: its mean score after a stage, and what would have been enough.

    `closed`: the tracker's run of the trial has been told.
    """

    stage: int
    value: float
    threshold: float
    closed: bool = False

    def __str__(self) -> str:
        return f"stopped after stage {self.stage}: mean score {self.value:.3g}, below {self.threshold:.3g}"


@dataclass
class State:
    """Stopped trials by name, the points that a search has found so far, in its order, and whether the sweep is closed:
    all is done, written and sent to the tracker.

    Stops hold as long as the scheduler that decided them is asked for.
    """

    path: Path
    scheduler: list[object] = field(default_factory=list)
    stopped: dict[str, Stopped] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    closed: bool = False

    @classmethod
    def load(cls, folder: Path, ablation: Ablation) -> "State":
        scheduler: list[object] = [ablation.scheduler, ablation.reduction_factor]
        path = folder / STATE
        if not path.is_file():
            return cls(path, scheduler)
        saved = json.loads(path.read_text())
        kept = saved["stopped"] if saved["scheduler"] == scheduler and ablation.scheduler != "none" else {}
        stopped = {name: Stopped(**why) for name, why in kept.items()}
        return cls(path, scheduler, stopped, saved["points"], saved["closed"])

    def stop(self, name: str, why: Stopped) -> None:
        """Put a stopped trial on record, durably."""
        self.stopped[name] = why
        self._save()

    def add(self, point: Point) -> None:
        """Put a found point on record, durably."""
        self.points.append(point)
        self._save()

    def close(self, closed: bool) -> None:
        """Put on record whether there is anything left to do, durably."""
        self.closed = closed
        self._save()

    def _save(self) -> None:
        stopped = {name: asdict(why) for name, why in self.stopped.items()}
        saved = {"scheduler": self.scheduler, "stopped": stopped, "points": self.points, "closed": self.closed}
        write_atomic(self.path, json.dumps(saved, indent=1))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The sweep's folder under its lock. Raises ContinualError if another driver works on the sweep."""
    try:
        with FileLock(folder / "lock", wait=False):
            (folder / STOP).unlink(missing_ok=True)
            yield
    except Locked as held:
        problem = f"{folder}: another driver works on this sweep ({held.owner}); wait for it or end it"
        raise ContinualError(problem) from held
