"""Sweeps over the tiny project of `tests.kits.project`, and trials that are finished without running."""

import json
from pathlib import Path
from typing import Any

import yaml

from continual.config.load import load_sequence
from continual.ledger.ledger import Ledger
from continual.sweep.spec import Ablation, LoadedAblation, load_ablation
from continual.sweep.trials import (
    Trial,
    Trials,
    make_trials,
)

TASKS = {"texts": [{"name": name, "data": {"type": "jsonl", "path": "qa.jsonl", "text": "question"}} for name in "ab"]}


def write(folder: Path, **changes: Any) -> Path:
    """A sweep over temperature and loss under two seeds; `changes` replace top-level keys."""
    space = {"mitigation.0.temperature": {"choice": [0.7, 1.0]}, "mitigation.0.loss": {"grid": ["nll", "kl"]}}
    spec = {"name": "ab", "sequence": "seq.yaml", "space": space, "seeds": [0, 1], **changes}
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}, sort_keys=False))
    return path


def load(folder: Path, *arguments: str, **changes: Any) -> LoadedAblation:
    return load_ablation(write(folder, **changes), arguments)


def ablation(**changes: Any) -> Ablation:
    return Ablation.model_validate({"name": "a", "sequence": "s", "search": "random", "trials": 8, **changes})


def base_sequence(project: Path, *changes: str) -> Any:
    return load_sequence(project / "seq.yaml", list(changes)).sequence


def summary(final: dict[str, float], earlier: list[dict[str, float]] | None = None, **figures: Any) -> dict[str, Any]:
    """The summary of a run of two stages with these final scores; `earlier`: those of the start and of stage 1."""
    empty = dict.fromkeys(
        ["average_score", "forgetting", "forgetting_old", "backward_transfer", "forward_transfer", "learning_accuracy"]
    )
    rows = [*enumerate(earlier or []), (2, final)]
    matrix = [
        {"stage": stage, "name": "", "scores": {task: {"score": score} for task, score in row.items()}}
        for stage, row in rows
    ]
    return {
        **empty, "status": "done", "matrix": matrix,
        "unit": dict.fromkeys(final, "nats"),
        "stages": ["one", "two"], "reused_stages": [], "samples": [], "mlflow_run_id": None, **figures,
    }  # fmt: skip


def finish(
    trial: Trial, final: dict[str, float], earlier: list[dict[str, float]] | None = None, **figures: Any
) -> None:
    folder = trial.loaded.run_folder
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(final, earlier, **figures)))
    with Ledger(folder) as ledger:
        ledger.run_id()
        ledger.add("closed")


def swept(project: Path, **changes: Any) -> tuple[LoadedAblation, Trials, list[Trial]]:
    source = load(project, space={"mitigation.0.temperature": {"choice": [0.7, 1.0, 1.3]}}, **changes)
    trials = make_trials(source)
    return source, trials, list(trials.made.values())
