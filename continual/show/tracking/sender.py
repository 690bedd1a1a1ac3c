"""From the spool to MLflow, in order, without duplicates. The only file of the driver that calls mlflow."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from continual.show.tracking.names import PARAM_CHARACTERS, TAG_CHARACTERS, clean, shorten
from continual.show.tracking.registry import register
from continual.show.tracking.spool import Entry, Spool
from continual.store.files import write_atomic
from continual.store.lock import FileLock

log = logging.getLogger(__name__)

RUN_KEY = "continual.run_key"
"""Tag with the spool's id and the logical key: finds a run whose id was not saved before a kill."""
SETTINGS = {
    # A hanging server must not hold a request for mlflow's two minutes. No retries inside mlflow: it would repeat a
    # create_run that was carried out but answered too late, whereas the next attempt here looks for the run first.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
METRICS_PER_REQUEST, OTHERS_PER_REQUEST = 1000, 100
"""MLflow's limits: metrics, and parameters or tags, in one log_batch."""


@dataclass
class State:
    """How far the spool was sent, where to, and which MLflow run each logical key is."""

    uri: str
    experiment: str
    spool: str
    runs: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    sent: int = 0

    @classmethod
    def load(cls, path: Path, uri: str, experiment: str, spool: str) -> "State":
        """The saved state; a fresh one, so that all is sent again, for another tracker, experiment or spool."""
        fresh = cls(uri, experiment, spool)
        saved = cls(**json.loads(path.read_text())) if path.is_file() else fresh
        return saved if (saved.uri, saved.experiment, saved.spool) == (uri, experiment, spool) else fresh


class Sender:
    """Sends spool entries and saves the position after each request. Used by one thread."""

    def __init__(self, path: Path, uri: str, experiment: str, spool: str):
        self.path = path
        self.state = State.load(path, uri, experiment, spool)
        self._client: Any = None
        self._experiment_id = ""

    def send(self, spool: Spool) -> None:
        """Send all that waits. Raises what mlflow raises when it is down; the saved position tells how far it came.

        What the tracker refuses as invalid would be refused for ever: it is logged, stays in the spool and is passed.
        """
        self._connect()
        for group in _groups(spool.read(self.state.offset)):
            try:
                self._send_group(group)
            except Exception as error:
                if not _refused(error) or group[0].record["kind"] == "start":
                    raise
                for entry in group:
                    self._send_or_pass(entry)
            self.state.offset, self.state.sent = group[-1].end, group[-1].record["n"] + 1
            self._save()

    def _send_or_pass(self, entry: Entry) -> None:
        try:
            self._send_group([entry])
        except Exception as error:
            if not _refused(error):
                raise
            log.warning("MLflow refuses record %d of the spool: %s", entry.record["n"], error)

    def _save(self) -> None:
        write_atomic(self.path, json.dumps(asdict(self.state), indent=1))

    def _connect(self) -> None:
        """Open the tracker and find or create the experiment; once per process."""
        if self._client is not None:
            return
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # 2 s, and torch-free callers never need it

        database = _sqlite_file(self.state.uri)
        # Processes that create one SQLite database together destroy each other's tables: one does it, the rest wait.
        with FileLock(f"{database}.lock") if database else contextlib.nullcontext():
            client = MlflowClient(self.state.uri)
            self._experiment_id = _experiment(client, self.state.experiment, database)
        if self.state.runs and _run(client, next(iter(self.state.runs.values()))) is None:
            log.warning("the MLflow runs of %s are gone; everything is sent again", self.path.parent)
            self.state = State(self.state.uri, self.state.experiment, self.state.spool)
        self._client = client

    def _send_group(self, group: list[Entry]) -> None:
        record = group[0].record
        kind, key = record["kind"], record["key"]
        if kind == "start":
            self._start(record)
            return
        run_id = self.state.runs[key]
        if kind == "metrics":
            self._metrics(run_id, [entry.record for entry in group])
        elif kind == "tags":
            self._tags(run_id, record["tags"])
        elif kind == "text":
            self._client.log_text(run_id, record["text"], record["file"])
        elif kind == "table":
            self._table(run_id, record)
        elif kind == "artifact":
            self._artifact(run_id, record)
        elif kind == "dataset":
            self._dataset(run_id, record)
        elif kind == "register":
            folder, version_key = Path(record["path"]), f"{self.state.spool}/{key}"
            register(self._client, run_id, record["name"], folder, record["tags"], version_key)
        elif kind == "finish":
            self._client.set_terminated(run_id, record["status"], end_time=record["time"])

    def _start(self, record: dict[str, Any]) -> None:
        """Create the run, or open it again: a logical key is one MLflow run whatever is killed in between."""
        key, parent = record["key"], record["parent"]
        run = _run(self._client, self.state.runs[key]) if key in self.state.runs else None
        tags = {RUN_KEY: f"{self.state.spool}/{key}"}
        if parent:
            tags["mlflow.parentRunId"] = self.state.runs[parent]
        if run is None:
            wanted = f"tags.`{RUN_KEY}` = '{tags[RUN_KEY]}'"
            found = self._client.search_runs([self._experiment_id], wanted, max_results=1)
            run = found[0] if found else self._create(record, tags)
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")
        params = {clean(name): shorten(value, PARAM_CHARACTERS) for name, value in record["params"].items()}
        there = run.data.params
        # A parameter can never change in MLflow; what a resumed run has differently is kept as a tag.
        changed = {f"params/{name}": value for name, value in params.items() if there.get(name, value) != value}
        self._tags(run_id, {**record["tags"], **tags, **changed})
        self._params(run_id, {name: value for name, value in params.items() if name not in there})
        self.state.runs[key] = run_id

    def _create(self, record: dict[str, Any], tags: dict[str, str]) -> Any:
        return self._client.create_run(self._experiment_id, record["time"], tags, record["name"])

    def _params(self, run_id: str, params: dict[str, str]) -> None:
        from mlflow.entities import Param

        for part in _parts([Param(name, value) for name, value in params.items()], OTHERS_PER_REQUEST):
            self._client.log_batch(run_id, params=part, synchronous=True)

    def _tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        pairs = [RunTag(clean(name), shorten(value, TAG_CHARACTERS)) for name, value in tags.items()]
        for part in _parts(pairs, OTHERS_PER_REQUEST):
            self._client.log_batch(run_id, tags=part, synchronous=True)

    def _metrics(self, run_id: str, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        # The spool's own time makes a metric that is sent twice equal to itself: MLflow keeps one.
        metrics = [
            Metric(name, value, record["time"], record["step"])
            for record in records
            for name, value in record["values"].items()
        ]
        for part in _parts(metrics, METRICS_PER_REQUEST):
            self._client.log_batch(run_id, metrics=part, synchronous=True)

    def _table(self, run_id: str, record: dict[str, Any]) -> None:
        """What MlflowClient.log_table stores; that one appends to an existing table, so a repeat would double it."""
        columns, file = record["columns"], record["file"]
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._client.log_text(run_id, json.dumps({"columns": list(columns), "data": rows}), file)
        tables = json.loads(self._client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": file, "type": "table"}) not in tables:
            self._client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([*tables, entry]))

    def _artifact(self, run_id: str, record: dict[str, Any]) -> None:
        path = Path(record["path"])
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), record["folder"])
        elif path.is_file():
            self._client.log_artifact(run_id, str(path), record["folder"])
        else:
            log.warning("the MLflow artifact %s is gone; it is left out", path)

    def _dataset(self, run_id: str, record: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": name, "type": kind, "required": True} for name, kind in record["schema"].items()]
        dataset = Dataset(
            name=record["name"][:500],
            digest=record["digest"][:36],  # MLflow's longest
            source_type="local",
            source=json.dumps({"uri": record["source"]}),
            schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
            profile=json.dumps(record["profile"]),
        )
        tags = {"mlflow.data.context": record["context"], "continual.digest": record["digest"]}
        inputs = DatasetInput(dataset, [InputTag(name, value[:500]) for name, value in tags.items()])
        self._client.log_inputs(run_id, [inputs])


def _groups(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Neighbouring metrics of one run together, up to a request's limit; everything else alone. Keeps the order."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        record = entry.record
        count = len(record["values"]) if record["kind"] == "metrics" else METRICS_PER_REQUEST
        if group and (size + count > METRICS_PER_REQUEST or record["key"] != group[0].record["key"]):
            yield group
            group, size = [], 0
        group.append(entry)
        size += count
    if group:
        yield group


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def _refused(error: Exception) -> bool:
    """Whether sending the same again cannot help: the tracker calls it invalid, or a file may not be read."""
    invalid = getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"
    return invalid or isinstance(error, PermissionError | FileNotFoundError)


def _run(client: Any, run_id: str) -> Any:
    """The run, or None when it was deleted, or its database."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(client: Any, name: str, database: Path | None) -> str:
    """The experiment's id. A new one keeps its artifacts beside the SQLite file, or where the server says."""
    from mlflow.exceptions import MlflowException

    if (experiment := client.get_experiment_by_name(name)) is None:
        location = (database.parent / "mlartifacts").as_uri() if database else None
        try:
            return client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id


def _sqlite_file(uri: str) -> Path | None:
    """The absolute file of a `sqlite:///...` URI, with its folder made; None for any other tracker."""
    if not uri.startswith("sqlite:///"):
        return None
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
