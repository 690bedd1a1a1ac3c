"""The real Ray Tune with trials that only pretend to run: a search whose trials fail, and Ctrl-C."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from continual.cli.tune import main
from continual.ledger.ledger import Ledger
from continual.sweep.trainable import Ended
from tests.conftest import ROOT
from tests.e2e.sweeps import result, write

FIGURES = ("forgetting", "forgetting_old", "backward_transfer", "forward_transfer", "learning_accuracy")


def pretend(config: dict[str, Any], environment: dict[str, str], cwd: str, stop: str, given: list[str]) -> None:
    """Write the files that a run would leave, in place of a trial's function; score: minus the squared learning rate.

    The trials of seed 1 fail if the storage has a file `broken`.
    """
    from ray import tune as ray_tune

    from continual.config.load import load_sequence

    os.chdir(cwd)
    request = config["trial"]["request"]
    loaded = load_sequence(request["sequence"], given, request["set"], Path(request["folder"]))
    if loaded.sequence.seed == 1 and (Path(loaded.sequence.storage) / "broken").exists():
        ray_tune.report({"error": "broken on purpose"})
        raise ValueError
    score = -(loaded.sequence.train.learning_rate**2)
    scores = {task: {"score": score} for task in ("reversing", "sorting")}
    summary = {
        **dict.fromkeys(FIGURES), "average_score": score, "status": "done",
        "matrix": [{"stage": 2, "name": "", "scores": scores}],
        "unit": dict.fromkeys(scores, "nats"), "stages": ["a", "b"], "reused_stages": [], "mlflow_run_id": None,
    }  # fmt: skip
    loaded.run_folder.mkdir(parents=True, exist_ok=True)
    (loaded.run_folder / "summary.json").write_text(json.dumps(summary))
    with Ledger(loaded.run_folder) as ledger:
        ledger.run_id()
        ledger.add("closed")
    ray_tune.report({"stage": 2, "average_score": score})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Run the command line in this process, in the project's folder, with a cluster of its own."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return monkeypatch


@pytest.mark.soak
def test_optuna_resumes_after_failures(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    here.setattr("continual.sweep.runner.run_trial", pretend)
    sweep = write(
        tmp_path, name="optuna", space={"train.learning_rate": {"uniform": [0.1, 1.0]}}, seeds=[0, 1],
        search="optuna", trials=5, concurrency=2,
    )  # fmt: skip
    options = [str(sweep), f"storage={tmp_path}", "mitigation=[]", "track.enabled=false"]
    (tmp_path / "broken").touch()
    assert main([*options, "fail_fast=true"]) == 1
    content = result(tmp_path, "optuna")
    assert {trial["state"] for trial in content["trials"]} >= {"failed"}
    assert len(content["points"]) < 5
    assert main(options) == 1
    content = result(tmp_path, "optuna")
    assert [(trial["seed"], trial["state"], trial["why"]) for trial in content["trials"]] == [
        (0, "done", ""), (1, "failed", "broken on purpose"),
    ] * 5  # fmt: skip
    rates = [point["point"]["train.learning_rate"] for point in content["points"]]
    assert len(set(rates)) == 5
    assert all(0.1 <= rate <= 1 for rate in rates)
    (tmp_path / "broken").unlink()
    assert main(options) == 0
    again = result(tmp_path, "optuna")
    assert [point["point"]["train.learning_rate"] for point in again["points"]] == rates
    assert [point["n"] for point in again["points"]] == [2] * 5
    assert [point["best"] for point in again["points"]] == [rate == min(rates) for rate in rates]


def staged(config: dict[str, Any], environment: dict[str, str], cwd: str, stop: str, given: list[str]) -> None:
    """Write and report a score after each of two stages, in place of a trial's function; go on where it was ended."""
    from ray import tune as ray_tune

    from continual.config.load import load_sequence

    os.chdir(cwd)
    request = config["trial"]["request"]
    loaded = load_sequence(request["sequence"], given, request["set"], Path(request["folder"]))
    score = -loaded.sequence.train.learning_rate - 0.01 * loaded.sequence.seed
    scores = {task: {"score": score, "unit": "nats"} for task in ("reversing", "sorting")}
    with Ledger(loaded.run_folder, wait=True) as ledger:
        ledger.run_id()
        for stage in (0, 1, 2):
            if ledger.find("scored", stage=stage) is None:
                ledger.add("scored", stage=stage, name="", scores=scores)
                if stage == 1:
                    ray_tune.report({"stage": 1, "average_score": score})
        matrix = [{"stage": stage, "name": "", "scores": scores} for stage in (0, 1, 2)]
        summary = {
            **dict.fromkeys(FIGURES), "average_score": score, "status": "done", "matrix": matrix,
            "unit": dict.fromkeys(scores, "nats"), "stages": ["a", "b"], "reused_stages": [], "mlflow_run_id": None,
        }  # fmt: skip
        (loaded.run_folder / "summary.json").write_text(json.dumps(summary))
        ledger.add("closed")
    ray_tune.report({"stage": 2, "average_score": score})


@pytest.mark.slow
def test_points_are_halved_with_all_their_seeds(
    tmp_path: Path, here: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here.setattr("continual.sweep.runner.run_trial", staged)
    sweep = write(
        tmp_path, name="halved", space={"train.learning_rate": {"grid": [0.1, 0.5, 0.05]}}, seeds=[0, 1],
        scheduler="asha", metric="average_score",
    )  # fmt: skip
    assert main([str(sweep), f"storage={tmp_path}", "mitigation=[]", "track.enabled=false"]) == 0
    content = result(tmp_path, "halved")
    assert [trial["state"] for trial in content["trials"]] == ["done", "done", "stopped", "stopped", "done", "done"]
    assert [point["n"] for point in content["points"]] == [2, 0, 2]
    why = "stopped after stage 1: average_score -0.505 (mean over 2 seeds), below -0.105"
    assert [trial["why"] for trial in content["trials"][2:4]] == [why, why]
    # The first seed of every point waited for the second.
    assert capfd.readouterr().out.count("waits until all seeds of its point are as far") == 3


def wait(config: dict[str, Any], environment: dict[str, str], cwd: str, stop: str, given: list[str]) -> None:
    """Run as long as the sweep, in place of a trial's function; write a file with the trial's name."""
    (Path(stop).parent / config["trial"]["name"]).touch()
    while not Path(stop).exists():
        time.sleep(0.1)
    raise Ended("the sweep ends")


@pytest.mark.slow
def test_ctrl_c_ends_tune_before_ray(tmp_path: Path, here: pytest.MonkeyPatch) -> None:
    """Waiting trials are not begun, and no loop of Tune outlives the cluster, since it would start one of its own."""
    import ray

    here.setattr("continual.sweep.runner.run_trial", wait)
    sweep = write(tmp_path, name="long", space={"train.learning_rate": {"grid": [0.1, 0.2, 0.3]}})
    left: list[str] = []
    shutdown = ray.shutdown

    def observed() -> None:
        left.extend(thread.name for thread in threading.enumerate() if "(fit)" in thread.name)
        shutdown()

    def interrupt() -> None:
        while not list((tmp_path / "long").glob("long-*")):
            time.sleep(0.1)
        here.setattr(ray, "shutdown", observed)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert main([str(sweep), f"storage={tmp_path}", "mitigation=[]", "track.enabled=false"]) == 130
    assert left == []
    assert not ray.is_initialized()
    assert len(list((tmp_path / "long").glob("long-*"))) == 1
    assert [trial["state"] for trial in result(tmp_path, "long")["trials"]] == ["waiting"] * 3
