"""What a run writes, for the tracker to read, and what MLflow has of it."""

import random
from pathlib import Path
from typing import Any

from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Events
from continual.ledger.records import Records
from continual.show.tracking import (
    Tracker,
    flatten,
)  # fmt: skip


class Written:
    """The files of a run with one stage, written as a driver and its workers write them."""

    def __init__(self, folder: Path, step: int = 0):
        """Begin or resume the run; its stage from the checkpoint at `step`."""
        self.files = RunFolder(folder)
        self.events = Events(self.files.ledger).open()
        self.events.run_id()
        self.metrics = self.files.stage(1, "one").metrics
        self.records = Records(self.metrics, step)

    def start(
        self, name: str, params: dict[str, Any] | None = None, tags: dict[str, str] | None = None, *files: str
    ) -> None:
        self.events.add("started", name=name, tags=tags or {}, params=flatten(params or {}), files=list(files))

    def prepare(self, sequence: str, **data: Any) -> None:
        """Begin the stage; its run in MLflow is `<sequence>/1-one`."""
        tags = {"sequence": sequence, "mitigation": "none"}
        passes = {stream: {"rows_read": 3, "rows": 4, "held_out": 0, "passes": 0.75} for stream in data}
        self.events.add("prepared", stage=1, name="one", steps=3, samples=[], tags=tags, data=data, passes=passes)

    def step(self, step: int, loss: dict[str, float] | None = None, **more: Any) -> None:
        losses = {"task": float(step)} if loss is None else loss
        self.records.append({"step": step, "loss": losses, "tokens": 100, "seconds": random.random(), **more})

    def score(self, stage: int, **metrics: float) -> None:
        self.events.add("scored", stage=stage, name="", scores={}, metrics=metrics)

    def done(self) -> None:
        self.events.add("stage_done", stage=1, name="one", model="m", hash="h", rows="r", version=None)

    def end(self, status: str = "FINISHED", *files: str, matrix: Any = None, stages: tuple[int, ...] = ()) -> None:
        self.events.add("ended", status=status, files=list(files), matrix=matrix, open=stages)

    def track(self, uri: str, experiment: str, enabled: bool = True) -> Tracker:
        return Tracker(self.files.ledger, uri, experiment, enabled)


def resumed(folder: Path, first_step: int, last_step: int) -> Written:
    """What a start leaves: the run and the stage begun again, the steps after those of the start before."""
    run = Written(folder, first_step - 1)
    run.start("kills", {"seed": 0})
    run.prepare("kills")
    for step in range(first_step, last_step + 1):
        run.step(step)
        run.score(step, a=step / 10)
    return run


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri: str, experiment: str) -> dict[str, Any]:
    """MLflow's runs by name; no name twice."""
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client_of(uri).get_metric_history(run.info.run_id, metric)]
