"""The names of a run's files and folders, in one place."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote


def step_name(step: int) -> str:
    """Return the name of what belongs to one optimizer step: `step-00000012`."""
    return f"step-{step:08d}"


def steps_in(folder: Path, suffix: str = "") -> dict[int, Path]:
    """Return the entries `step-*<suffix>` of a folder by step, in ascending order; none if the folder is missing."""
    names = {path.name.removeprefix("step-").removesuffix(suffix): path for path in folder.glob(f"step-*{suffix}")}
    return dict(sorted((int(name), path) for name, path in names.items() if name.isdecimal()))


def default_tracking_uri(storage: Path) -> str:
    """Return the MLflow URI that a run uses without `track.uri`: a SQLite file in the storage."""
    return sqlite_uri(storage / "mlflow.db")


def sqlite_uri(file: Path) -> str:
    """Return the URI of a SQLite file, the inverse of `sqlite_file`."""
    # In a URI, `%` begins an escape and `?` the options.
    return "sqlite:///" + str(file).replace("%", "%25").replace("?", "%3F")


def sqlite_file(uri: str) -> Path | None:
    """Return the absolute file of a `sqlite:///...` URI; None for any other tracker."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])).absolute()


Entries = Iterator[tuple[Path, bool]]
"""What has a place in a storage, whether it is there or not, and whether it is a folder."""


def _entries(owner: object, folders: Iterable[Path]) -> Entries:
    """Yield the paths that an object names, of which some are `folders`."""
    known = set(folders)
    yield from ((path, path in known) for path in vars(owner).values() if isinstance(path, Path))


class StageFolder:
    """`<run>/stages/<number>-<name>`: what the training of one stage leaves.

    `metrics` has one line per optimizer step; `parts` has the models at the steps where the stage's streams change.
    `stop` asks the workers to stop after their step; `failed` holds the sentence with which they failed. `fed` exists
    when all streams have their first rows, and sampling may pause for the training. `unscored` exists while nobody
    scores what is in `evaluations`, and the training need not wait for it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations"
        self.parts = path / "parts"
        self.scores = path / "scores"
        self.model = path / "model"
        self.stop = path / "stop"
        self.failed = path / "failed.txt"
        self.fed = path / "fed"
        self.unscored = path / "unscored"

    def entries(self) -> Entries:
        """Yield everything that a stage keeps in its folder, the folder itself first."""
        yield from _entries(self, [self.path, self.checkpoints, self.evaluations, self.parts, self.scores, self.model])

    def export(self, step: int) -> Path:
        """Return the folder of the model inside the stage after `step`, which is scored and deleted."""
        return self.evaluations / step_name(step)

    def score_file(self, step: int) -> Path:
        """Return the file of the scores inside the stage after `step`."""
        return self.scores / f"{step_name(step)}.json"

    def part_model(self, step: int) -> Path:
        """Return the folder of the model with which the part of the stage that begins after `step` steps begins."""
        return self.parts / step_name(step)

    def score_files(self) -> dict[int, Path]:
        """Return the files of all scores inside the stage, by step."""
        return steps_in(self.scores, ".json")


class RunFolder:
    """`<storage>/<name>`: everything that a run keeps outside the store."""

    def __init__(self, path: Path):
        self.path = path
        self.storage = path.parent
        self.ledger = path / "ledger.jsonl"
        self.lock = path / "lock"
        self.identity = path / "identity.json"
        self.config = path / "config.yaml"
        self.versions = path / "versions.json"
        self.summary = path / "summary.json"
        self.log = path / "log.txt"
        self.reserve = path / "reserve"
        self.ray = path / "ray"
        self.report = path / "report.html"
        self.figures = path / "report"
        self.matrix = path / "matrix.png"
        self.forecast = path / "forecast.json"
        self.forecast_table = path / "forecast.parquet"
        self.tracker_state = path / "mlflow" / "state.json"

    def entries(self, stages: Iterable[str]) -> Entries:
        """Yield everything that a run of these stages keeps, from the storage and the run's folder on."""
        folders = [self.storage, self.path, self.figures, self.ray, self.tracker_state.parent, self.path / "stages"]
        yield self.storage, True
        yield from ((folder, True) for folder in folders[-2:])
        yield from _entries(self, folders)
        for number, name in enumerate(stages, 1):
            yield from self.stage(number, name).entries()

    def stage(self, number: int, name: str) -> StageFolder:
        """Return the folder of a stage; `number` counts from 1."""
        return StageFolder(self.path / "stages" / f"{number}-{name}")


class AssociationsFolder:
    """`<storage>/<name>` of associations: what they leave, beside what their sweep keeps there."""

    def __init__(self, path: Path):
        self.path = path
        self.matrix = path / "associations.parquet"
        self.numbers = path / "associations.json"
        self.page = path / "associations.md"
        self.picture = path / "associations.png"
        self.report = path / "report.html"
