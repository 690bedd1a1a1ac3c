"""Run folders as a driver leaves them, and their way to MLflow, without any training."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from continual.config.load import Loaded, load_sequence
from continual.contract.models import ModelRef
from continual.forgetting import read_matrix
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger
from continual.run.events import Status, ended, stage_numbers, stage_tags, started, version
from continual.run.summary import summarise
from continual.show.report.samples import shown_of
from continual.show.tracking import Tracker
from continual.store import Store
from tests.conftest import ROOT

TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
N = 64
Scores = list[tuple[float, float]]
"""Scores of the tasks reversal and sort after stage 0, 1 and 2."""
KEPT: Scores = [(0.0, 0.0), (1.0, 0.0), (0.875, 0.75)]
LOST: Scores = [(0.0, 0.0), (1.0, 0.015625), (0.125, 0.9375)]
HOSTILE = "</table><script>console.error('sample ran')</script> & \"7"


def stderr(score: float) -> float:
    return (score * (1 - score) / (N - 1)) ** 0.5


def score_entry(score: float) -> dict[str, Any]:
    return {"score": score, "stderr": stderr(score), "n": N, "unit": "accuracy", "metric": "exact_match"}


def loaded(storage: Path, name: str, *overrides: str) -> Loaded:
    return load_sequence(TINY, [f"storage={storage}", f"name={name}", *overrides])


def record(step: int, replay: bool) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    line: dict[str, Any] = {
        "step": step, "loss": {"task": 4.0 / step}, "weight": {"task": 1.0}, "tokens": 200, "task_tokens": 200,
        "learning_rate": 1e-3, "gradient_norm": 1.0, "rows": {"task": "0"}, "data_wait": 0.01 * step, "seconds": 0.25,
        "time": 1_700_000_000 + 0.25 * step,
    }  # fmt: skip
    if replay:
        line["loss"]["context_free"], line["weight"]["context_free"] = 0.1 / step, 1.0
        line["tokens"] += 100
    if step % 12 == 0:
        line["drift"] = {"context_free": 0.002 * step} if replay else {}
    return line


def make_run(
    storage: Path, name: str, scores: Scores, *overrides: str, stages: int = 2, inside: bool = True
) -> tuple[Loaded, Path]:
    """A run of tests/e2e/tiny.yaml as its folder would be; finished if `stages` is 2, else in its last stage."""
    run = loaded(storage, name, *overrides)
    folder = run.run_folder
    files = RunFolder(folder)
    folder.mkdir(parents=True)
    files.config.write_text(yaml.safe_dump(run.resolved, sort_keys=False))
    git = {"commit": "abcdef" * 6}
    files.versions.write_text(json.dumps({"versions": {"torch": "2.13.0"}, "git": git}))
    sequence = run.sequence
    replay = bool(sequence.mitigation)
    with Ledger(folder) as ledger:
        ledger.run_id()
        start = ModelRef(str(storage / "start"), "start0")
        ledger.add("start_model", path=start.path, hash=start.hash)
        ledger.add("started", **started(sequence, str(run.path), start, git, files))
        for stage in range(3):
            declared = sequence.stages[stage - 1]
            if stage:
                samples = [_samples(storage)] if replay and stage == 2 else []
                data = {"task": {"content": f"rows{stage}", "path": "store/rows", "counts": {"rows": 9}}}
                ledger.add(
                    "prepared", stage=stage, name=declared.name, samples=samples, steps=24, data=data,
                    tags=stage_tags(sequence, stage), passes={"task": PASSES},
                )  # fmt: skip
                _records(files.stage(stage, declared.name).path, replay and stage == 2, scores[stage], inside)
                ledger.add("phase", phase="train", stage=stage, seconds=6.25 * stage)
            if stage > stages:
                break
            cells = {task: score_entry(value) for task, value in zip(("reversal", "sort"), scores[stage], strict=True)}
            name_then = declared.name if stage else "start"
            scored = {"stage": stage, "name": name_then, "model": f"m{stage}", "scores": cells}
            metrics = stage_numbers(sequence, read_matrix([*ledger.all("scored"), scored]), stage, {})
            ledger.add("scored", **scored, metrics=metrics)
            ledger.add("phase", phase="evaluate", stage=stage, seconds=1.5)
            if stage:
                model = files.stage(stage, declared.name).model
                model.mkdir(parents=True)
                (model / "config.json").write_text(json.dumps({"stage": stage, "run": name}))
                registered = version(sequence, stage, f"m{stage}", metrics, data)
                ledger.add(
                    "stage_done", stage=stage, name=declared.name, model=str(model), hash=f"m{stage}", rows=f"r{stage}",
                    version=registered,
                )  # fmt: skip
        if stages == 2:
            summarise(files, sequence, ledger, storage / "store", "0" * 32)
    return run, folder


PASSES = {"rows_read": 384, "rows": 256, "held_out": 0, "passes": 1.5}


def _records(folder: Path, replay: bool, scores: tuple[float, float], inside: bool) -> None:
    (folder / "scores").mkdir(parents=True)
    lines = [record(step, replay) for step in range(1, 25)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if inside:
        half = {task: score_entry(value / 2) for task, value in zip(("reversal", "sort"), scores, strict=True)}
        (folder / "scores" / "step-00000012.json").write_text(json.dumps({"scores": half}))


def _samples(storage: Path) -> str:
    """A stored set of 60 samples whose model is gone, and its first 50 as some report has scored them."""
    store = Store(storage / "store", maker="somebody else")
    inputs = {"of": "report_kit"}
    samples = store.artefact("samples", inputs)
    with store.write(samples, inputs) as writer:
        if writer is not None:
            bodies = [[3, 4, 5 + number % 5] for number in range(60)]
            columns = {"number": list(range(60)), "start": [[2]] * 60, "tokens": bodies}
            writer.put(0, pa.table(columns), samples=60, failed=0, tokens=180)
            settings = {"temperature": 1.0}
            writer.finish(engine="vllm", model="gone", distinct=5, settings=settings)
    shown = shown_of(samples)
    with store.write(shown, {}) as writer:
        if writer is not None:
            texts = [HOSTILE] + [f"text {number}" for number in range(1, 50)]
            columns = {
                "number": list(range(50)), "start": ["<reversal>"] * 50, "text": texts, "tokens": [3] * 50,
                "log_probability": [-1.5 - number for number in range(50)],
            }  # fmt: skip
            writer.put(0, pa.table(columns))
            writer.finish()
    return samples.hash


def publish(folder: Path, uri: str, experiment: str | None, status: Status = "FINISHED") -> Tracker:
    """Record the end of a run as its driver does, and send the run; returns the open tracker."""
    files = RunFolder(folder)
    with Ledger(folder) as ledger:
        ledger.add("ended", **ended(status, ledger.open_stages(), files))
    return Tracker(files.ledger, uri, experiment)
