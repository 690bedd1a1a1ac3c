"""What associations and forecasts have found is in MLflow, each once, also after a tracker that was down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from continual.associations.matrix import write
from continual.associations.recorded import record
from continual.associations.spec import load_associate
from continual.forgetting.completion.complete import probes
from continual.ledger.events import is_event
from continual.ledger.folder import AssociationsFolder, RunFolder
from continual.ledger.ledger import read_events
from continual.show.tracking.client import Client
from continual.sweep.outputs import Written
from continual.sweep.parent_run import Parent
from tests.kits.associations import matrix_of, write_associations, write_forecast_of
from tests.kits.page import Read
from tests.kits.project import sequence, write_project
from tests.kits.runs import KEPT, make_run, publish
from tests.kits.sweep import TASKS
from tests.kits.tracking import client_of, history, runs_of

NAMES = ("mean", "lower", "upper", "measured_mean")


def artifacts(uri: str, run: Any) -> set[str]:
    return {artifact.path for artifact in client_of(uri).list_artifacts(run.info.run_id)}


def test_a_forecast_is_in_the_report_and_in_the_run_of_mlflow_once(uri: str, tmp_path: Path) -> None:
    loaded, folder = make_run(tmp_path / "runs", "told", KEPT, f"track.uri={uri}", "track.experiment=forecasts")
    assert publish(folder, uri, "forecasts").close(30) == 0
    for seed in (0, 0, 1):  # the same command again, and another forecast
        write_forecast_of(folder, seed)
        assert record(loaded) == []
    assert "Documents most at risk".lower() in Read(folder / "report.html").text
    assert len(read_events(folder, "results")) == 2
    runs = runs_of(uri, "forecasts")
    run = runs["told"]
    assert run.info.status == "FINISHED"
    content = json.loads((folder / "forecast.json").read_text())
    expected = [content["mean"], *content["interval"], content["measured_mean"]]
    for name, value in zip(NAMES, expected, strict=True):
        found = history(uri, run, f"forecast/{name}")
        assert [step for step, _ in found] == [1, 1]
        assert run.data.metrics[f"forecast/{name}"] == pytest.approx(value, abs=1e-12)  # the newest
    assert artifacts(uri, run) >= {"forecast.json", "forecast.parquet", "report.html"}


def test_a_forecast_waits_for_a_tracker_that_is_down(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start sends it, and nothing twice, as after a kill before it was sent."""

    def refuse(client: Client, runs: dict[str, str]) -> bool:
        raise ConnectionError("down")

    loaded, folder = make_run(tmp_path / "runs", "told", KEPT, f"track.uri={uri}", "track.experiment=down")
    write_forecast_of(folder)
    with monkeypatch.context() as down:
        down.setattr(Client, "connect", refuse)
        [line] = record(loaded)
    assert "records wait for the tracker" in line
    for _ in range(2):
        assert record(loaded) == []
    assert len(read_events(folder, "results")) == 1
    run = runs_of(uri, "down")["told"]
    assert len(history(uri, run, "forecast/mean")) == 1
    assert "forecast.parquet" in artifacts(uri, run)


def test_a_forecast_is_recorded_without_a_tracker(tmp_path: Path) -> None:
    loaded, folder = make_run(tmp_path / "runs", "told", KEPT, "track.enabled=false")
    write_forecast_of(folder)
    assert record(loaded) == []
    assert not RunFolder(folder).tracker_state.is_file()
    assert "forecast.json#/mean" in {key for _, key in Read(folder / "report.html").numbers}


def test_a_report_that_fails_leaves_the_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    loaded, folder = make_run(tmp_path / "runs", "told", KEPT, "track.enabled=false")
    write_forecast_of(folder)
    monkeypatch.setattr("continual.associations.recorded.write_report", fail)
    [line] = record(loaded)
    assert "its report failed" in line
    assert f"python -m continual.report {folder}" in line
    [event] = read_events(folder, "results")
    assert event["files"] == ["forecast.json", "forecast.parquet"]


@pytest.fixture
def sweep(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Parent]:
    """What starts and ends the MLflow run of associations, in the folder `z`."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    base = sequence(evaluate=TASKS, mitigation=[], track={"uri": uri, "experiment": "sweeps"})
    (tmp_path / "seq.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "z.yaml").write_text(yaml.safe_dump({"name": "z", "sequence": "seq.yaml", "upstream": "a"}))
    loaded = load_associate(tmp_path / "z.yaml")
    return lambda: Parent(tmp_path / "z", loaded.sweep, loaded.base)


FILES = tuple(path.name for path in vars(AssociationsFolder(Path("z"))).values() if path != Path("z"))


def test_associations_are_in_the_run_of_their_sweep(uri: str, tmp_path: Path, sweep: Callable[[], Parent]) -> None:
    written = write_associations(tmp_path / "z")
    for _ in range(2):  # a start, and another one that finds everything done
        parent = sweep()
        parent.begin()
        assert parent.end("FINISHED", written, 4, FILES) == 0
    assert sweep().add(written, 4, FILES) == 0
    [run] = runs_of(uri, "sweeps").values()
    numbers, matrix = json.loads((tmp_path / "z" / "associations.json").read_text()), matrix_of()
    expected = {f"forgotten/{task}": row.mean() for task, row in zip(matrix.tasks, matrix.change, strict=True)}
    expected |= {f"explained/{name}": numbers["variance_explained"][name] for name in ("additive", "multiplicative")}
    expected |= {f"r_squared/{rank}": numbers["r_squared"][str(rank)] for rank in range(1, 5)}
    for each in numbers["forecasts"]:
        expected[f"forecast_error/{each['model']}/rmse"] = each["scores"]["rmse"]["mean"]
    assert run.data.metrics == pytest.approx(expected)
    assert history(uri, run, "r_squared/1") == [(4, pytest.approx(numbers["r_squared"]["1"]))]
    assert artifacts(uri, run) == {"associations.parquet", "associations.json", "associations.md", "associations.png",
                                   "report.html"}  # fmt: skip


def test_another_analysis_of_the_same_runs_is_sent(uri: str, tmp_path: Path, sweep: Callable[[], Parent]) -> None:
    """As where earlier versions recorded none: the run is finished, and stays so."""
    parent = sweep()
    parent.begin()
    assert parent.end("FINISHED", Written(""), 4, FILES) == 0
    written = write_associations(tmp_path / "z")
    for _ in range(2):
        assert sweep().add(written, 4, FILES) == 0
    [run] = runs_of(uri, "sweeps").values()
    assert run.info.status == "FINISHED"
    assert len(history(uri, run, "explained/additive")) == 1
    assert "report.html" in artifacts(uri, run)


def test_a_damaged_line_of_results_is_none() -> None:
    good = {"event": "results", "time": 1.0, "step": 1, "metrics": {"a": 0.5}, "files": ["forecast.json"]}
    assert is_event(good)
    for name, value in (("step", "1"), ("metrics", []), ("files", None), ("files", ["../../secret"])):
        assert not is_event({**good, name: value}), name


def test_the_command_line_hands_its_forecast_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a run that is done, and measured as the first task of the matrix was."""
    from continual.cli.forecast import main

    loaded, folder = make_run(tmp_path / "runs", "told", KEPT, "track.enabled=false")
    matrix = matrix_of()
    write(matrix, tmp_path / "associations.parquet")
    monkeypatch.setattr("continual.associations.measure.load_task", lambda *given: loaded)
    monkeypatch.setattr("continual.associations.measure.measured", lambda _, matrix, columns: matrix.change[0][columns])
    monkeypatch.setattr("continual.preflight.check.check", lambda loaded: [])
    monkeypatch.setattr("continual.run.execute.execute", lambda *given, **options: {})
    command = ["--matrix", str(tmp_path / "associations.parquet"), "--task", "task.yaml", "--probes", "5"]
    assert main(command) == 0
    assert "from 5 of 12 documents of `old`" in capsys.readouterr().out
    measured = Read(folder / "report.html").numbers["told", "forecast.json#/measured_mean"][0]
    [event] = read_events(folder, "results")
    assert event["metrics"]["forecast/measured_mean"] == measured
    assert measured == pytest.approx(matrix.change[0][probes(5, 12, 0)].mean())
