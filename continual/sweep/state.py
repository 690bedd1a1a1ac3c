"""Remember a sweep between two starts; what its trials have done is kept in their runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from continual.store.files import write_atomic
from continual.store.json_files import has, read_json
from continual.store.lock import FileLock
from continual.sweep.points import Point
from continual.sweep.spec import Ablation

NUMBER = (int, float)
STOP = "stop"
"""Name of the file in the sweep's folder that tells the trials of this start to stop in order."""


@dataclass(frozen=True)
class Stopped:
    """The reason why a trial was stopped: what its point is judged by after a stage was below `threshold`.

    `value` is the mean over all `seeds` of the point. `closed` says that the trial's run in the tracker was closed.
    """

    stage: int
    value: float
    threshold: float
    judged_by: str = "mean score"
    seeds: int = 1
    closed: bool = False

    def __str__(self) -> str:
        over = f" (mean over {self.seeds} seeds)" if self.seeds > 1 else ""
        return f"stopped after stage {self.stage}: {self.judged_by} {self.value:.3g}{over}, below {self.threshold:.3g}"

    def below(self, threshold: float) -> "Stopped":
        """Return the reason with its threshold."""
        return replace(self, threshold=threshold)


@dataclass
class State:
    """The stopped trials by name, the points of a search in order, and whether everything is done and tracked.

    `rungs` has the values of the judged points by their digest, in the order in which they were judged, under the name
    of the rung. It and the stops are kept only while what decided them stays the same: scheduler, metrics, and seeds.
    """

    path: Path
    scheduler: list[object] = field(default_factory=list)
    stopped: dict[str, Stopped] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    closed: bool = False
    rungs: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, ablation: Ablation) -> "State":
        """Load the state from the sweep's folder; an empty one if there is none."""
        scheduler: list[object] = [ablation.scheduler, ablation.reduction_factor, ablation.metric, ablation.seeds]
        path = folder / "state.json"
        if not path.is_file():
            return cls(path, scheduler)
        saved = read_json(
            path, f"delete it to begin the sweep `{ablation.name}` again, with the trials that are done", _is_state
        )
        if saved["scheduler"] != scheduler or ablation.scheduler == "none":
            return cls(path, scheduler, points=saved["points"], closed=saved["closed"])
        stopped = {name: Stopped(**why) for name, why in saved["stopped"].items()}
        return cls(path, scheduler, stopped, saved["points"], saved["closed"], saved["rungs"])

    def stop(self, name: str, why: Stopped) -> None:
        """Save a stopped trial."""
        self.stopped[name] = why
        self.save()

    def add(self, point: Point) -> None:
        """Save a new point of a search."""
        self.points.append(point)
        self.save()

    def close(self, closed: bool) -> None:
        """Save whether everything is done and tracked."""
        self.closed = closed
        self.save()

    def save(self) -> None:
        """Save everything."""
        content = {key: value for key, value in asdict(self).items() if key != "path"}
        write_atomic(self.path, json.dumps(content, indent=1))


def _is_state(value: Any) -> bool:
    """Return whether a value of JSON is a state as `State.save` writes it."""
    if not has(scheduler=list, stopped=dict, points=list, closed=bool, rungs=dict)(value):
        return False
    known = {each.name for each in fields(Stopped)}
    stops = all(
        has(stage=int, value=NUMBER, threshold=NUMBER)(why) and why.keys() <= known for why in value["stopped"].values()
    )
    rungs = all(
        isinstance(rung, dict) and all(isinstance(v, NUMBER) for v in rung.values()) for rung in value["rungs"].values()
    )
    return stops and rungs and all(isinstance(point, dict) for point in value["points"])


@contextmanager
def lock_sweep(folder: Path) -> Iterator[None]:
    """Hold the lock of the sweep's folder. Raises ContinualError if another driver works on the sweep."""
    with FileLock(folder / "lock", wait=False, of="sweep"):
        (folder / STOP).unlink(missing_ok=True)
        yield
