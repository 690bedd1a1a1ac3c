"""Remember a sweep between two starts; what its trials have done is kept in their runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from continual.store.files import write_atomic
from continual.store.lock import FileLock
from continual.sweep.points import Point
from continual.sweep.spec import Ablation

STOP = "stop"
"""Name of the file in the sweep's folder that tells the trials of this start to stop in order."""


@dataclass(frozen=True)
class Stopped:
    """The reason why a trial was stopped: its mean score after a stage was below `threshold`.

    `closed` says that the trial's run in the tracker has been closed.
    """

    stage: int
    value: float
    threshold: float
    closed: bool = False

    def __str__(self) -> str:
        return f"stopped after stage {self.stage}: mean score {self.value:.3g}, below {self.threshold:.3g}"


@dataclass
class State:
    """The stopped trials by name, the points of a search in order, and whether everything is done and tracked.

    Stops are kept only while the scheduler that decided them stays the same.
    """

    path: Path
    scheduler: list[object] = field(default_factory=list)
    stopped: dict[str, Stopped] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    closed: bool = False

    @classmethod
    def load(cls, folder: Path, ablation: Ablation) -> "State":
        """Load the state from the sweep's folder; an empty one if there is none."""
        scheduler: list[object] = [ablation.scheduler, ablation.reduction_factor]
        path = folder / "state.json"
        if not path.is_file():
            return cls(path, scheduler)
        saved = json.loads(path.read_text())
        kept = saved["stopped"] if saved["scheduler"] == scheduler and ablation.scheduler != "none" else {}
        stopped = {name: Stopped(**why) for name, why in kept.items()}
        return cls(path, scheduler, stopped, saved["points"], saved["closed"])

    def stop(self, name: str, why: Stopped) -> None:
        """Save a stopped trial."""
        self.stopped[name] = why
        self._save()

    def add(self, point: Point) -> None:
        """Save a new point of a search."""
        self.points.append(point)
        self._save()

    def close(self, closed: bool) -> None:
        """Save whether everything is done and tracked."""
        self.closed = closed
        self._save()

    def _save(self) -> None:
        content = {key: value for key, value in asdict(self).items() if key != "path"}
        write_atomic(self.path, json.dumps(content, indent=1))


@contextmanager
def lock_sweep(folder: Path) -> Iterator[None]:
    """Hold the lock of the sweep's folder. Raises ContinualError if another driver works on the sweep."""
    with FileLock(folder / "lock", wait=False, of="sweep"):
        (folder / STOP).unlink(missing_ok=True)
        yield
