"""`python -m continual.tune` with real Ray Tune and vLLM: a grid, killed and resumed; halving; a failure; Ctrl-C."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e import command
from tests.e2e.sweeps import happened, in_training, ledgers, manifests, result, start, tune, write

pytestmark = pytest.mark.soak
GRID = ROOT / "tests" / "e2e" / "sweep.yaml"


def test_a_grid_is_killed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The trials run with one thread each, and so has the best one to, for equal numbers.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    driver = start(GRID, tmp_path)
    driver.wait_for(lambda: len(happened(tmp_path, "sweep", "closed")) >= 2)
    driver.wait_for(in_training(tmp_path, "sweep", "2-sort", 4))
    driver.kill()
    before = {name: lines for name, lines in ledgers(tmp_path, "sweep").items() if lines[-1]["event"] == "closed"}
    assert 2 <= len(before) < 8
    finished = tune(GRID, tmp_path)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    # What was finished stayed as it was; every trial is a whole run; each training of a stage began at most twice.
    after = ledgers(tmp_path, "sweep")
    assert len(after) == 8
    assert all(after[name] == lines for name, lines in before.items())
    assert all(json.loads((tmp_path / name / "summary.json").read_text())["status"] == "done" for name in after)

    # Criterion 1: one sample set for each of 2 temperatures x 2 seeds, whatever the loss; stage 1 once for each seed.
    found = result(tmp_path, "sweep")
    assert [trial["state"] for trial in found["trials"]] == ["done"] * 8
    assert len(manifests(tmp_path, "samples")) == found["sample_sets"] == 4
    assert len(happened(tmp_path, "sweep", "reused")) == 6
    assert found["trained_stages"] == found["stages"] - 6 == 10
    settings = [json.loads(path.read_text())["inputs"] for path in manifests(tmp_path, "samples")]
    told = {(one["model"], one["settings"]["temperature"], one["settings"]["seed"]) for one in settings}
    assert len(told) == 4
    assert len({model for model, _, _ in told}) == 2

    check_results(tmp_path, found)
    check_mlflow(tmp_path, found)

    # Again: nothing is done, the table is printed at once.
    begun = time.monotonic()
    again = tune(GRID, tmp_path)
    assert again.returncode == 0
    assert "8 done; 4 sample sets" in again.stdout
    assert time.monotonic() - begun < 30
    assert ledgers(tmp_path, "sweep") == after

    # The best configuration runs, and repeats the trial that it is taken from.
    best = command.run(tmp_path, yaml=tmp_path / "sweep" / "best.yaml")
    assert best.returncode == 0, best.stdout[-3000:] + best.stderr[-3000:]
    point = next(one for one in found["points"] if one["best"])
    trial = next(one for one in found["trials"] if one["point"] == point["point"])
    assert command.summary(tmp_path, "sweep-best")["matrix"] == command.summary(tmp_path, trial["name"])["matrix"]


def check_results(storage: Path, found: dict[str, Any]) -> None:
    """Table, front and picture against the runs' own summaries."""
    table = (storage / "sweep" / "table.md").read_text()
    assert (storage / "sweep" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    for point in found["points"]:
        trials = [trial for trial in found["trials"] if trial["point"] == point["point"]]
        runs = [command.summary(storage, trial["name"]) for trial in trials]
        first, second = (run["average_score"] for run in runs)
        assert point["n"] == 2
        assert abs(point["mean"]["average_score"] - (first + second) / 2) < 1e-12
        assert abs(point["stderr"]["average_score"] - abs(first - second) / 2) < 1e-12
        assert f"{point['mean']['average_score']:.3f} ±{point['stderr']['average_score']:.3f}" in table
        finals = [run["matrix"][-1]["scores"] for run in runs]
        old = sum(final["reversing"]["score"] for final in finals) / 2
        new = sum(final["sorting"]["score"] for final in finals) / 2
        assert abs(point["mean"]["old"] - old) < 1e-12
        assert abs(point["mean"]["new"] - new) < 1e-12
    pairs = [(point["mean"]["old"], point["mean"]["new"]) for point in found["points"]]
    beaten = [any(o != p and o[0] >= p[0] and o[1] >= p[1] for o in pairs) for p in pairs]
    assert [point["front"] for point in found["points"]] == [not one for one in beaten]
    lost = [point["mean"]["forgetting"] for point in found["points"]]
    assert [point["best"] for point in found["points"]] == [one == min(lost) for one in lost]


def check_mlflow(storage: Path, found: dict[str, Any]) -> None:
    """A run of the sweep, one of every trial below it, one of every stage below these; all of them closed."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "sweep"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == 1 + 8 + 16
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_id for run in trials} == {trial["mlflow_run_id"] for trial in found["trials"]}
    for trial in found["trials"]:
        run = next(run for run in trials if run.info.run_id == trial["mlflow_run_id"])
        swept = {**{key: str(value) for key, value in trial["point"].items()}, "seed": str(trial["seed"])}
        assert {key: run.data.params[key] for key in swept} == swept == {key: run.data.tags[key] for key in swept}
        below = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert sorted(one.data.tags["stage"] for one in below) == ["1", "2"]
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"sweep.json", "table.md", "pareto.png", "best.yaml"} <= kept
    best = next(point for point in found["points"] if point["best"])
    assert parent.data.metrics["best/forgetting"] == best["mean"]["forgetting"]


def test_halving_stops_a_ruinous_rate_after_the_first_rung(tmp_path: Path) -> None:
    # One after the other, so that a modest rate sets the threshold. Steps of 1.0 under Adam ruin the weights.
    sweep = write(
        tmp_path, name="halving", space={"train.learning_rate": {"grid": [0.001, 1.0, 0.003]}},
        scheduler="asha", metric="average_score",
    )  # fmt: skip
    done = tune(sweep, tmp_path, "mitigation=[]")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = result(tmp_path, "halving")
    modest, ruined, _ = found["trials"]
    assert [one["state"] for one in found["trials"]] == ["done", "stopped", "done"]
    runs = ledgers(tmp_path, "halving")
    scored = {name: [e for e in lines if e["event"] == "scored" and e["stage"] == 1] for name, lines in runs.items()}
    value, threshold = (scored[one["name"]][0]["scores"]["reversing"]["score"] for one in (ruined, modest))
    assert value < threshold
    why = f"stopped after stage 1: mean score {value:.3g}, below {threshold:.3g}"
    assert ruined["why"] == why
    assert f"learning_rate=1.0 seed=0: {why}" in (tmp_path / "halving" / "table.md").read_text()
    assert why in done.stdout
    assert [e["stage"] for e in runs[ruined["name"]] if e["event"] == "stage_done"] == [1]
    best = max(trial["values"]["average_score"] for trial in found["trials"] if trial["state"] == "done")
    marked = [trial["name"] for trial, point in zip(found["trials"], found["points"], strict=True) if point["best"]]
    assert marked == [trial["name"] for trial in found["trials"] if trial["values"].get("average_score") == best]

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "halving"]
    (stopped,) = client.search_runs([experiment.experiment_id], f"tags.stopped = '{why}'")
    assert stopped.info.status == "KILLED"
    assert stopped.data.params["train.learning_rate"] == "1.0"

    # What was stopped stays so.
    again = tune(sweep, tmp_path, "mitigation=[]")
    assert again.returncode == 0
    assert why in again.stdout
    assert ledgers(tmp_path, "halving") == runs


def test_a_failing_trial_is_told_and_ctrl_c_leaves_an_orderly_state(tmp_path: Path) -> None:
    # The first arm's text ends in a line that is no JSON, far behind what the checks look at.
    arms = {}
    for name in ("bad", "good"):
        lines = [json.dumps({"text": f"<sort>{n:03d}|___="}) for n in range(200)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([*lines, "{no json" if name == "bad" else "{}"]) + "\n")
        data = {"type": "jsonl", "path": str(path), "text": "text", "limit": None if name == "bad" else 200}
        arms[name] = [{"type": "pretraining_subset", "share": 0.5, "data": data}]
    sweep = write(tmp_path, name="arms", space={"mitigation": {"named": arms}})

    driver = start(sweep, tmp_path)
    driver.wait_for(in_training(tmp_path, "arms", "1-reversal", 4))
    assert driver.interrupt() == 130
    said = driver.output.read_text()
    assert "interrupted; the same command goes on" in said
    (waiting,) = [one for one in result(tmp_path, "arms")["trials"] if "mitigation-good" in one["name"]]
    assert waiting["state"] == "waiting"
    assert not happened(tmp_path, "arms", "closed")

    ended = tune(sweep, tmp_path)
    assert ended.returncode == 1
    assert "1 trial of 2 failed" in ended.stderr
    found = {one["point"]["mitigation"]: one for one in result(tmp_path, "arms")["trials"]}
    assert found["good"]["state"] == "done"
    assert found["bad"]["state"] == "failed"
    assert "bad.jsonl" in found["bad"]["why"]
    assert f"mitigation=bad seed=0: failed: {found['bad']['why']}" in ended.stdout
    steps = command.records(tmp_path, "1-reversal", found["good"]["name"])
    assert [record["step"] for record in steps] == list(range(1, 13))
