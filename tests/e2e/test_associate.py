"""`continual.associate`, `continual.forecast` and `predicted_replay` through the command line, on real parts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e import command
from tests.kits.page import Read

pytestmark = pytest.mark.soak
HERE = ROOT / "tests" / "e2e"
DOCUMENTS, PROBES = 96, 12


def call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", f"continual.{module}", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def losses(storage: Path, run: str, stage: int) -> list[float]:
    """The loss of each document as the run's own evaluation has it, in nats per token."""
    [event] = [event for event in command.events(storage, "scored", run) if event["stage"] == stage]
    records = storage / "store" / "scores" / event["evaluations"]["sums"] / "scores.samples.jsonl"
    return [json.loads(line)["nats_per_token"] for line in records.read_text().splitlines()]


def tracked(storage: Path, which: str) -> list[Any]:
    """The runs in MLflow that a filter chooses."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()], which))


def test_the_matrix_the_forecast_and_the_replay_of_it(tmp_path: Path) -> None:
    storage = f"storage={tmp_path}"
    first = call("associate", str(HERE / "associations.yaml"), storage)
    assert "3 tasks, 96 documents of `sums`" in first.stdout
    folder = tmp_path / "assoc"
    table = pq.read_table(folder / "associations.parquet")
    assert table.column("document").to_pylist() == [str(number) for number in range(DOCUMENTS)]
    trials = {path.name.split("-")[2]: path.name for path in tmp_path.glob("assoc-stages-*")}
    assert sorted(trials) == ["modadd", "reversal", "sort"]
    for task, run in trials.items():
        expected = np.subtract(losses(tmp_path, run, 1), losses(tmp_path, run, 0))
        np.testing.assert_allclose(table.column(f"change/{task}").to_numpy(), expected, atol=1e-12)
    numbers = json.loads((folder / "associations.json").read_text())
    change = np.array([table.column(f"change/{task}").to_numpy() for task in sorted(trials)])
    left = np.linalg.svd(change, compute_uv=False)[1:] ** 2
    assert numbers["r_squared"]["1"] == pytest.approx(1 - left.sum() / np.sum((change - change.mean()) ** 2))
    assert {each["model"] for each in numbers["forecasts"]} >= {"additive", "factors", "mean"}
    assert (folder / "associations.png").stat().st_size > 1000
    assert "associations.json#/r_squared/1" in {key for _, key in Read(folder / "report.html").numbers}
    [swept] = tracked(tmp_path, "tags.kind = 'sweep'")
    assert swept.data.metrics["r_squared/1"] == pytest.approx(numbers["r_squared"]["1"])
    assert set(numbers["similarity_of_representations"]) == {"pearson", "spearman"}
    assert numbers["represented"] == {"texts": DOCUMENTS + 3 * 200, "cut": 0, "tokens": 56}

    # Again: nothing runs, and the page is the same.
    again = call("associate", str(HERE / "associations.yaml"), storage)
    assert "3 tasks, 96 documents of `sums`" in again.stdout
    assert "tracker:" not in again.stdout

    # What the start model says of the texts is lost, or was never asked: it alone is asked again.
    shutil.rmtree(tmp_path / "store" / "representations")
    third = call("associate", str(HERE / "associations.yaml"), storage)
    assert "likeness of texts" in third.stdout
    assert "stage 1" not in third.stdout
    assert json.loads((folder / "associations.json").read_text()) == numbers

    # A task that the matrix does not know: only the probes are scored.
    base = yaml.safe_load((HERE / "associations_base.yaml").read_text())
    [unseen] = [{**base["stages"][0], "name": "unseen", "steps": 2}]
    sequence: dict[str, Any] = {**base, "name": "one", "stages": [unseen], "storage": str(tmp_path)}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(sequence))
    matrix = ("--matrix", str(folder / "associations.parquet"), "--probes", str(PROBES))
    said = call("forecast", *matrix, "--task", str(tmp_path / "task.yaml")).stdout
    assert f"from {PROBES} of {DOCUMENTS} documents of `sums`" in said
    [made] = [path.parent for path in tmp_path.glob("one-probes-*/forecast.json")]
    assert len(losses(tmp_path, made.name, 1)) == PROBES
    forecast = pq.read_table(made / "forecast.parquet")
    measured = forecast.column("measured").to_numpy(zero_copy_only=False)
    assert measured.sum() == PROBES
    found = np.subtract(losses(tmp_path, made.name, 1), losses(tmp_path, made.name, 0))
    np.testing.assert_allclose(forecast.column("forecast").to_numpy()[measured], found, atol=1e-12)

    assert "forecast.json#/mean" in {key for _, key in Read(made / "report.html").numbers}
    [run] = tracked(tmp_path, f"tags.sequence = '{made.name}' AND tags.kind = 'sequence'")
    assert run.data.metrics["forecast/measured_mean"] == pytest.approx(found.mean())
    assert (Path(run.info.artifact_uri.removeprefix("file://")) / "forecast.parquet").is_file()

    # And replayed: only documents that were not measured.
    replay = {"type": "predicted_replay", "data": base["evaluate"]["texts"][0]["data"], "documents": 32}
    sequence |= {"name": "two", "mitigation": [{**replay, "scores": str(made / "forecast.parquet"), "ratio": 0.5}]}
    (tmp_path / "replay.yaml").write_text(yaml.safe_dump(sequence))
    assert "predicted_replay" in call("run", str(tmp_path / "replay.yaml")).stdout
