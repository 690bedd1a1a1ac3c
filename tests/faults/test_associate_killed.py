"""kill -9 in the middle of `continual.associate` and `continual.forecast`, then the same command: the same numbers."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.e2e import command

pytestmark = pytest.mark.soak
HERE = command.ROOT / "tests" / "e2e"
YAML = HERE / "associations.yaml"
ONE_AFTER_ANOTHER = ("concurrency=1", "track.enabled=false")


def columns(path: Path) -> dict[str, list[Any]]:
    """What a table says; its metadata name the runs."""
    found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return found


def trials(storage: Path) -> list[str]:
    return sorted(path.name for path in storage.glob("assoc-stages-*"))


def done(storage: Path) -> list[str]:
    return [name for name in trials(storage) if command.events(storage, "done", name)]


def associated(storage: Path) -> Path:
    finished = command.run(storage, *ONE_AFTER_ANOTHER, yaml=YAML, module="associate")
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return storage / "assoc" / "associations.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the matrix of a command that nobody disturbed."""
    storage = tmp_path_factory.mktemp("whole")
    associated(storage)
    return storage


def test_a_killed_matrix_is_the_undisturbed_one(whole: Path, tmp_path: Path) -> None:
    driver = command.start(tmp_path, *ONE_AFTER_ANOTHER, yaml=YAML, module="associate")

    def inside_the_second() -> bool:
        """One task is done, and the stage of the next has trained."""
        finished = done(tmp_path)
        others = [name for name in trials(tmp_path) if name not in finished]
        return len(finished) == 1 and any(command.events(tmp_path, "prepared", name) for name in others)

    driver.wait_for(inside_the_second)
    [first] = done(tmp_path)
    driver.kill()
    before = (tmp_path / first / "ledger.jsonl").read_bytes()
    again = associated(tmp_path)
    assert columns(again) == columns(whole / "assoc" / "associations.parquet")
    assert (tmp_path / first / "ledger.jsonl").read_bytes() == before, "the task that was done is not run again"
    assert len(done(tmp_path)) == 3


def test_a_killed_forecast_is_the_undisturbed_one(whole: Path, tmp_path: Path) -> None:
    base = yaml.safe_load((HERE / "associations_base.yaml").read_text())
    unseen = {**base["stages"][0], "name": "unseen", "steps": 24}
    task = tmp_path / "task.yaml"
    task.write_text(yaml.safe_dump({**base, "name": "one", "stages": [unseen]}))
    matrix = str(whole / "assoc" / "associations.parquet")
    options = (
        "train.checkpoint_every=4",
        "track.enabled=false",
        "--matrix",
        matrix,
        "--probes",
        "12",
        "--task",
        str(task),
    )
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"

    driver = command.start(killed, *options, yaml=None, module="forecast")
    driver.wait_for(lambda: any(command.steps_done(killed, "1-unseen", run) >= 6 for run in forecasts(killed)))
    driver.kill()
    for storage in (killed, undisturbed):
        finished = command.run(storage, *options, yaml=None, module="forecast")
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert forecast(killed) == forecast(undisturbed)


def forecasts(storage: Path) -> list[str]:
    return [path.name for path in storage.glob("one-probes-*")]


def forecast(storage: Path) -> list[Any]:
    """What a forecast says, the scores that it is from, and the weights."""
    [name] = forecasts(storage)
    numbers = json.loads((storage / name / "forecast.json").read_text())
    scores = [event["scores"] for event in command.events(storage, "scored", name)]
    [weights] = [event["hash"] for event in command.events(storage, "stage_done", name)]
    return [numbers, columns(storage / name / "forecast.parquet"), scores, weights]
