"""MLflow's runs by our logical keys. The only file of the driver that calls mlflow, always in the tracker's thread."""

import contextlib
import functools
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec

from continual.errors import redacted
from continual.ledger.folder import RunFolder, sqlite_file
from continual.show.tracking.created import create_database
from continual.show.tracking.moved import ARTIFACTS, move_artifacts
from continual.show.tracking.names import PARAM_CHARACTERS, TAG_CHARACTERS, clean, shorten
from continual.show.tracking.registry import register
from continual.store.json_files import has, known_json
from continual.store.lock import FileLock, owner_of

log = logging.getLogger(__name__)

RUN_KEY = "continual.run_key"
"""Tag with the ledger's run id and the logical key: finds a run whose MLflow id was not saved before a kill."""
SETTINGS = {
    # A hanging server must not hold a request for mlflow's two minutes. No retries inside mlflow: it would repeat a
    # create_run that was carried out but answered too late, whereas the next attempt here looks for the run first.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
DATABASE = "MLflow database"
METRICS_PER_REQUEST, OTHERS_PER_REQUEST = 1000, 100
"""MLflow's limits: metrics, and parameters or tags, in one log_batch."""

P = ParamSpec("P")
Method = Callable[Concatenate["Client", str, P], None]


class Numbers(NamedTuple):
    """Metrics of one step. `time` in milliseconds is the step's own, so that MLflow keeps what is sent twice once."""

    step: int
    time: int
    values: dict[str, float]


def _refused(error: Exception) -> bool:
    """Return whether sending the same again cannot help: MLflow calls it invalid, or a file may not be read."""
    invalid = getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"
    return invalid or isinstance(error, PermissionError | FileNotFoundError)


def _passing(method: "Method[P]") -> "Method[P]":
    """Make a method log and pass what MLflow refuses as invalid: it would be refused every time."""

    @functools.wraps(method)
    def attempt(client: "Client", key: str, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(client, key, *args, **kwargs)
        except Exception as error:
            if not _refused(error):
                raise
            log.warning("MLflow refuses %s of %s: %s", method.__name__, key, redacted(str(error)))

    return attempt


class Client:
    """The runs of one ledger in MLflow. `runs` is {logical key: MLflow's run id}, and grows with `start`.

    Methods raise what mlflow raises when it is down.
    """

    def __init__(self, uri: str, experiment: str, ledger_id: str):
        self.uri, self.experiment, self.ledger_id = uri, experiment, ledger_id
        self.runs: dict[str, str] = {}
        self._client: Any = None
        self._experiment_id = ""

    @property
    def connected(self) -> bool:
        return self._client is not None

    def settle(self) -> None:
        """Let a SQLite file that was moved or copied with its artifacts find them beside it; without mlflow."""
        database = sqlite_file(self.uri)
        if database and database.is_file():
            with FileLock(f"{database}.lock", of=DATABASE):
                move_artifacts(database)

    def connect(self, runs: dict[str, str]) -> bool:
        """Open the tracker, find or create the experiment; return whether the known `runs` are still there."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # takes 2 s, and torch-free callers never need it

        database = sqlite_file(self.uri)
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        # Processes that create one SQLite database together destroy each other's tables: one does it, the rest wait.
        with FileLock(f"{database}.lock", of=DATABASE) if database else contextlib.nullcontext():
            # An empty file is what SQLite leaves when a process ends before it wrote anything.
            if database and not (database.exists() and database.stat().st_size):
                create_database(database)
            client = MlflowClient(self.uri)
            self._experiment_id = _experiment(client, self.experiment, database)
        there = not runs or _run(client, next(iter(runs.values()))) is not None
        self.runs = runs if there else {}
        self._client = client
        return there

    def start(
        self, key: str, name: str, parent: str | None, tags: Mapping[str, str], params: Mapping[str, str], time: int
    ) -> None:
        """Create the run, or open it again: a logical key is one MLflow run whatever is killed in between."""
        from mlflow.entities import Param

        run = _run(self._client, self.runs[key]) if key in self.runs else None
        own = {RUN_KEY: f"{self.ledger_id}/{key}"}
        if parent:
            own["mlflow.parentRunId"] = self.runs[parent]
        if run is None:
            wanted = f"tags.`{RUN_KEY}` = '{own[RUN_KEY]}'"
            known = self._client.search_runs([self._experiment_id], wanted, max_results=1)
            run = known[0] if known else self._client.create_run(self._experiment_id, time, own, name)
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        new = {clean(name): shorten(value, PARAM_CHARACTERS) for name, value in params.items()}
        old = run.data.params
        # A parameter can never change in MLflow; what a resumed run has differently is kept as a tag.
        changed = {f"params/{name}": value for name, value in new.items() if old.get(name, value) != value}
        self._tags(run_id, {**tags, **own, **changed})
        added = [Param(name, value) for name, value in new.items() if name not in old]
        self._log(run_id, OTHERS_PER_REQUEST, params=added)
        self.runs[key] = run_id

    @_passing
    def metrics(self, key: str, steps: list[Numbers]) -> None:
        """Send the numbers of some steps; if MLflow refuses them together, send them step by step."""
        from mlflow.entities import Metric

        metrics = [Metric(clean(name), value, n.time, n.step) for n in steps for name, value in n.values.items()]
        try:
            self._log(self.runs[key], METRICS_PER_REQUEST, metrics=metrics)
        except Exception as error:
            if len(steps) == 1 or not _refused(error):
                raise
            for numbers in steps:
                self.metrics(key, [numbers])

    @_passing
    def tags(self, key: str, tags: Mapping[str, str]) -> None:
        self._tags(self.runs[key], tags)

    @_passing
    def artifact(self, key: str, path: Path) -> None:
        """Upload a file, or a folder under its own name, as it is now."""
        if path.is_dir():
            self._client.log_artifacts(self.runs[key], str(path), path.name)
        elif path.is_file():
            self._client.log_artifact(self.runs[key], str(path))
        else:
            log.warning("the MLflow artifact %s is gone; it is left out", path)

    @_passing
    def table(self, key: str, columns: Mapping[str, list[Any]], file: str) -> None:
        """Store columns of equal length as artifact `file` (.json), which MLflow shows as a table.

        This is what MlflowClient.log_table stores; that one appends to an existing table, so a repeat would double it.
        """
        run_id = self.runs[key]
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(run_id, json.dumps({"columns": list(columns), "data": rows}), file)
        tables = json.loads(self._client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": file, "type": "table"}) not in tables:
            self._client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*tables, entry]))

    @_passing
    def dataset(self, key: str, name: str, digest: str, source: str, context: str, profile: Mapping[str, Any]) -> None:
        """Add an input to the run: `context` says what for, `profile` holds counts."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name[:500],
            digest=digest[:36],  # MLflow's longest
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(profile),
        )
        tags = {"mlflow.data.context": context, "continual.digest": digest}
        inputs = DatasetInput(dataset, [InputTag(name, value[:500]) for name, value in tags.items()])
        self._client.log_inputs(self.runs[key], [inputs])

    @_passing
    def register(self, key: str, name: str, path: Path, tags: Mapping[str, str]) -> None:
        """Make the model folder of a run a version of the registered model `name`, once per key."""
        register(self._client, self.runs[key], name, path, tags, f"{self.ledger_id}/{key}")

    @_passing
    def finish(self, key: str, status: str, time: int) -> None:
        self._client.set_terminated(self.runs[key], status, end_time=time)

    def _tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        pairs = [RunTag(clean(name), shorten(value, TAG_CHARACTERS)) for name, value in tags.items()]
        self._log(run_id, OTHERS_PER_REQUEST, tags=pairs)

    def _log(self, run_id: str, size: int, **entities: list[Any]) -> None:
        """Log metrics, parameters or tags in requests of at most `size`."""
        [(kind, items)] = entities.items()
        for first in range(0, len(items), size):
            self._client.log_batch(run_id, **{kind: items[first : first + size]}, synchronous=True)


def _run(client: Any, run_id: str) -> Any:
    """Return the run, or None when it was deleted, or its database."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(client: Any, name: str, database: Path | None) -> str:
    """Return the experiment's id. A new one keeps its artifacts next to the SQLite file, or where the server says."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is None:
        location = (database.parent / ARTIFACTS).as_uri() if database else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id


def close_runs(folder: Path, uri: str) -> None:
    """Close the MLflow runs that the killed driver of a run or sweep left RUNNING, unless another one continues it."""
    files = RunFolder(folder)
    runs = known_json(files.tracker_state, has(runs=dict)).get("runs", {})
    if not runs:
        return  # a client would make the tables of a SQLite file that is not there, and not as `connect` does
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    for run_id in runs.values():
        if owner_of(files.lock) is None and client.get_run(run_id).info.status == "RUNNING":
            client.set_terminated(run_id, "KILLED")
