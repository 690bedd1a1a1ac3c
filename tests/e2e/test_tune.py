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
    # The trials run with one thread each; the best one must, too, for equal numbers.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    driver = start(GRID, tmp_path)
    driver.wait_for(lambda: len(happened(tmp_path, "sweep", "closed")) >= 2)
    driver.wait_for(in_training(tmp_path, "sweep", "2-sort", 4))
    driver.kill()
    before = {name: lines for name, lines in ledgers(tmp_path, "sweep").items() if lines[-1]["event"] == "closed"}
    assert 2 <= len(before) < 8
    finished = tune(GRID, tmp_path)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]

    # Finished trials are unchanged; every trial is a complete run; each training of a stage began at most twice.
    after = ledgers(tmp_path, "sweep")
    assert len(after) == 8
    assert all(after[name] == lines for name, lines in before.items())
    assert all(json.loads((tmp_path / name / "summary.json").read_text())["status"] == "done" for name in after)

    # Criterion 1: one sample set for each of 2 temperatures x 2 seeds, whatever the loss; stage 1 once for each seed.
    content = result(tmp_path, "sweep")
    assert [trial["state"] for trial in content["trials"]] == ["done"] * 8
    assert len(manifests(tmp_path, "samples")) == content["sample_sets"] == 4
    assert len(happened(tmp_path, "sweep", "reused")) == 6
    assert content["trained_stages"] == content["stages"] - 6 == 10
    settings = [json.loads(path.read_text())["inputs"] for path in manifests(tmp_path, "samples")]
    sets = {(each["model"], each["settings"]["temperature"], each["settings"]["seed"]) for each in settings}
    assert len(sets) == 4
    assert len({model for model, _, _ in sets}) == 2

    check_results(tmp_path, content)
    check_mlflow(tmp_path, content)

    # Again: nothing runs, the table is printed at once.
    begun = time.monotonic()
    again = tune(GRID, tmp_path)
    assert again.returncode == 0
    assert "8 done; 4 sample sets" in again.stdout
    assert time.monotonic() - begun < 30
    assert ledgers(tmp_path, "sweep") == after

    # The best configuration runs, and repeats the trial from which it is taken.
    best = command.run(tmp_path, yaml=tmp_path / "sweep" / "best.yaml")
    assert best.returncode == 0, best.stdout[-3000:] + best.stderr[-3000:]
    point = next(each for each in content["points"] if each["best"])
    trial = next(each for each in content["trials"] if each["point"] == point["point"])
    assert command.summary(tmp_path, "sweep-best")["matrix"] == command.summary(tmp_path, trial["name"])["matrix"]


def check_results(storage: Path, content: dict[str, Any]) -> None:
    """Check the table, the front and the plot against the runs' own summaries."""
    table = (storage / "sweep" / "table.md").read_text()
    assert (storage / "sweep" / "pareto.png").read_bytes().startswith(b"\x89PNG")
    for point in content["points"]:
        trials = [trial for trial in content["trials"] if trial["point"] == point["point"]]
        runs = [command.summary(storage, trial["name"]) for trial in trials]
        first, second = (run["average_score"] for run in runs)
        assert point["n"] == 2
        assert abs(point["mean"]["average_score"] - (first + second) / 2) < 1e-12
        assert abs(point["stderr"]["average_score"] - abs(first - second) / 2) < 1e-12
        assert f"{point['mean']['average_score']:.3f} ±{point['stderr']['average_score']:.3f}" in table
        for run in runs:
            drifted = run["drift"].pop("reversing")
            assert [of["stage"] for of in drifted] == [row["stage"] for row in run["matrix"]]
            assert drifted[0]["drift"] == 0.0, "the start model has not moved"
            assert all(of["drift"] > of["stderr"] > 0.0 for of in drifted[1:])
            assert not run["drift"], "nobody asked for that of the other text"
            [first, *later] = run["drift_stage"].pop("reversing")
            assert first == drifted[1], "the first stage begins with the start model"
            assert [of["stage"] for of in later] == [of["stage"] for of in drifted[2:]]
            assert all(of["drift"] > of["stderr"] > 0.0 for of in later)
            assert not run["drift_stage"]
        finals = [run["matrix"][-1]["scores"] for run in runs]
        old = sum(final["reversing"]["score"] for final in finals) / 2
        new = sum(final["sorting"]["score"] for final in finals) / 2
        assert abs(point["mean"]["old"] - old) < 1e-12
        assert abs(point["mean"]["new"] - new) < 1e-12
    pairs = [(point["mean"]["old"], point["mean"]["new"]) for point in content["points"]]
    beaten = [any(o != p and o[0] >= p[0] and o[1] >= p[1] for o in pairs) for p in pairs]
    assert [point["front"] for point in content["points"]] == [not each for each in beaten]
    lost = [point["mean"]["forgetting"] for point in content["points"]]
    assert [point["best"] for point in content["points"]] == [value == min(lost) for value in lost]


def check_mlflow(storage: Path, content: dict[str, Any]) -> None:
    """Check for a run of the sweep, one of every trial below it, one of every stage below these, all closed."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "continual"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == 1 + 8 + 16
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_id for run in trials} == {trial["mlflow_run_id"] for trial in content["trials"]}
    for trial in content["trials"]:
        run = next(run for run in trials if run.info.run_id == trial["mlflow_run_id"])
        swept = {**{key: str(value) for key, value in trial["point"].items()}, "seed": str(trial["seed"])}
        assert {key: run.data.params[key] for key in swept} == swept == {key: run.data.tags[key] for key in swept}
        below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == run.info.run_id]
        assert sorted(each.data.tags["stage"] for each in below) == ["1", "2"]
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"sweep.json", "table.md", "pareto.png", "best.yaml"} <= kept
    best = next(point for point in content["points"] if point["best"])
    assert parent.data.metrics["best/forgetting"] == best["mean"]["forgetting"]


def test_halving_stops_a_ruinous_rate_after_the_first_rung(tmp_path: Path) -> None:
    # One after the other, so that a modest rate sets the threshold. Steps of 1.0 with Adam ruin the weights.
    sweep = write(
        tmp_path, name="halving", space={"train.learning_rate": {"grid": [0.001, 1.0, 0.003]}},
        scheduler="asha", metric="average_score",
    )  # fmt: skip
    done = tune(sweep, tmp_path, "mitigation=[]")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    content = result(tmp_path, "halving")
    modest, ruined, _ = content["trials"]
    assert [each["state"] for each in content["trials"]] == ["done", "stopped", "done"]
    runs = ledgers(tmp_path, "halving")
    scored = {name: [e for e in lines if e["event"] == "scored" and e["stage"] == 1] for name, lines in runs.items()}
    value, threshold = (scored[each["name"]][0]["scores"]["reversing"]["score"] for each in (ruined, modest))
    assert value < threshold
    why = f"stopped after stage 1: average_score {value:.3g}, below {threshold:.3g}"
    assert ruined["why"] == why
    assert f"learning_rate=1.0 seed=0: {why}" in (tmp_path / "halving" / "table.md").read_text()
    assert why in done.stdout
    assert [e["stage"] for e in runs[ruined["name"]] if e["event"] == "stage_done"] == [1]
    best = max(trial["values"]["average_score"] for trial in content["trials"] if trial["state"] == "done")
    marked = [trial["name"] for trial, point in zip(content["trials"], content["points"], strict=True) if point["best"]]
    assert marked == [trial["name"] for trial in content["trials"] if trial["values"].get("average_score") == best]

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "continual"]
    (stopped,) = client.search_runs([experiment.experiment_id], f"tags.stopped = '{why}'")
    assert stopped.info.status == "KILLED"
    assert stopped.data.params["train.learning_rate"] == "1.0"

    # What was stopped stays stopped.
    again = tune(sweep, tmp_path, "mitigation=[]")
    assert again.returncode == 0
    assert why in again.stdout
    assert ledgers(tmp_path, "halving") == runs


def test_a_failing_trial_is_reported_and_ctrl_c_leaves_an_orderly_state(tmp_path: Path) -> None:
    # The first arm's text ends in a line that is not JSON, far beyond what the checks read.
    arms = {}
    for name in ("bad", "good"):
        lines = [json.dumps({"text": f"<sort>{n:03d}|___="}) for n in range(200)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([*lines, "{no json" if name == "bad" else "{}"]) + "\n")
        data = {"type": "jsonl", "path": str(path), "text": "text", "limit": None if name == "bad" else 200}
        arms[name] = [{"type": "pretraining_subset", "ratio": 0.5, "data": data}]
    sweep = write(tmp_path, name="arms", space={"mitigation": {"named": arms}})

    driver = start(sweep, tmp_path)
    driver.wait_for(in_training(tmp_path, "arms", "1-reversal", 4))
    assert driver.interrupt() == 130
    output = driver.output.read_text()
    assert "interrupted; run the same command again to resume" in output
    (waiting,) = [each for each in result(tmp_path, "arms")["trials"] if "mitigation-good" in each["name"]]
    assert waiting["state"] == "waiting"
    assert not happened(tmp_path, "arms", "closed")

    ended = tune(sweep, tmp_path)
    assert ended.returncode == 1
    assert "1 trial of 2 failed" in ended.stderr
    by_arm = {each["point"]["mitigation"]: each for each in result(tmp_path, "arms")["trials"]}
    assert by_arm["good"]["state"] == "done"
    assert by_arm["bad"]["state"] == "failed"
    assert "bad.jsonl" in by_arm["bad"]["why"]
    assert f"mitigation=bad seed=0: failed: {by_arm['bad']['why']}" in ended.stdout
    steps = command.records(tmp_path, "1-reversal", by_arm["good"]["name"])
    assert [record["step"] for record in steps] == list(range(1, 13))
