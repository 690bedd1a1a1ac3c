"""`summary.json`: the numbers of a run, from its ledger, its records and the manifests of the artefacts it used."""

import json
from pathlib import Path
from typing import Any

from continual.config.schema import Sequence
from continual.errors import ForgotTooMuch
from continual.evaluation.service import all_tasks
from continual.forgetting import figures
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Ledger, matrix_of
from continual.ledger.lines import read_lines
from continual.store import Artefact, write_atomic


def old_names(sequence: Sequence) -> list[str]:
    """Return the tasks or texts that `forgetting_old` is the mean of.

    These are `old_tasks`, or without any the texts that no stage learns, so that `--max-forgetting` has something to
    check. Both together would mix units.
    """
    learned = {task.name for stage in sequence.stages for task in stage.tasks}
    texts = [text.name for text in sequence.evaluate.texts if text.name not in learned]
    tasks = [task.name for task in sequence.evaluate.old_tasks]
    return tasks or texts


def figures_of(sequence: Sequence, scored: list[dict[str, Any]]) -> dict[str, Any]:
    """Return forgetting and the other figures of `continual.forgetting` for the stages scored so far."""
    units = {task: value["unit"] for event in scored for task, value in event["scores"].items()}
    stage_tasks = [[task.name for task in stage.tasks] for stage in sequence.stages]
    return figures(matrix_of(scored), stage_tasks, old_names(sequence), units)


def token_counts(folder: RunFolder, sequence: Sequence, ledger: Ledger, store: Path) -> dict[str, int]:
    """Return the tokens sampled by this run or found in the store, and trained on, over all resumes."""
    run_id, made, reused = ledger.run_id(), 0, 0
    used = {name for event in ledger.all("prepared") for name in event["samples"]}
    for name in sorted(used):
        for shard in Artefact("samples", name, str(store)).shards():
            made, reused = (
                (made + shard["tokens"], reused) if shard["maker"] == run_id else (made, reused + shard["tokens"])
            )
    trained = task = 0
    for number, stage in enumerate(sequence.stages, 1):
        for record in read_lines(folder.stage(number, stage.name).metrics):
            trained, task = trained + record["tokens"], task + record["task_tokens"]
    return {"generated_tokens": made, "reused_tokens": reused, "trained_tokens": trained, "task_tokens": task}


def summarise(
    folder: RunFolder, sequence: Sequence, ledger: Ledger, store: Path, mlflow_run_id: str | None
) -> dict[str, Any]:
    """Compute, write and return the summary. `status` is `done` once every stage is, else `running`."""
    scored = ledger.all("scored")
    done = {event["stage"]: event for event in ledger.all("stage_done")}
    results = figures_of(sequence, scored)
    units = {task: value["unit"] for event in scored for task, value in event["scores"].items()}
    summary = {
        "name": sequence.name,
        "status": "done" if len(done) == len(sequence.stages) else "running",
        "stages": [stage.name for stage in sequence.stages],
        "tasks": [task.name for task in all_tasks(sequence)] + [text.name for text in sequence.evaluate.texts],
        "matrix": matrix_of(scored),
        **{key: value for key, value in results.items() if key != "history"},
        **token_counts(folder, sequence, ledger, store),
        "seconds": ledger.seconds(),
        "mlflow_run_id": mlflow_run_id,
        "checkpoints": {sequence.stages[stage - 1].name: event["model"] for stage, event in sorted(done.items())},
        "reused_stages": [sequence.stages[event["stage"] - 1].name for event in ledger.all("reused")],
        "samples": sorted({name for event in ledger.all("prepared") for name in event["samples"]}),
        "unit": units,
        "candidates": [{key: event[key] for key in ("stage", "name", "scores")} for event in ledger.all("candidate")],
    }
    write_atomic(folder.summary, json.dumps(summary, indent=1))
    return summary


def gate(summary: dict[str, Any], limit: float) -> None:
    """Raise ForgotTooMuch if the larger of `forgetting` and `forgetting_old` is above `limit`."""
    losses = {key: summary[key] for key in ("forgetting", "forgetting_old") if summary.get(key) is not None}
    worst = max(losses, key=lambda key: losses[key], default=None)
    if worst is not None and losses[worst] > limit:
        raise ForgotTooMuch(f"{worst} {losses[worst]:.4f} is more than --max-forgetting {limit}")
