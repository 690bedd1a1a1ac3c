"""`summary.json`: the numbers of a run, from its ledger, its records and the manifests of the artefacts it used."""

import json
from pathlib import Path
from typing import Any, Literal

from continual.config.measured import evaluation_tasks, figure_units, figures_of
from continual.config.schema import Sequence
from continual.evaluation.outcomes import stored_outcomes
from continual.forgetting import Matrix, matrix_as_json, read_matrix, units_of
from continual.ledger.folder import RunFolder
from continual.ledger.ledger import Events, Ledger
from continual.ledger.places import placed_model
from continual.ledger.records import read_records
from continual.ledger.walks import walks_of
from continual.store import Artefact, write_atomic

BY_STAGE = ("stage", "name", "forgetting_by_task", "corrected", "interval", "forgotten", "gained")
"""What the summary keeps of the figures after every stage."""


def token_counts(folder: RunFolder, sequence: Sequence, ledger: Ledger, store: Path) -> dict[str, int]:
    """Return the tokens sampled by this run or found in the store, and trained on, over all resumes."""
    from continual.sampling.sets import tokens_by_maker  # a run that is stored is shown without pyarrow.compute

    used: dict[str, int] = {}
    for event in ledger.all("prepared"):
        used |= {name: max(count, used.get(name, 0)) for name, count in event.get("sampled", {}).items()}
    made = found = 0
    for name, count in used.items():
        samples = Artefact("samples", name, str(store))
        # What this run has sampled beyond its need was paid for and counts; of others' samples, those that it used.
        made += sum(shard["tokens"] for shard in samples.shards() if shard["maker"] == ledger.run_id())
        found += sum(tokens for maker, tokens in tokens_by_maker(samples, count).items() if maker != ledger.run_id())
    files = [folder.stage(number, stage.name).metrics for number, stage in enumerate(sequence.stages, 1)]
    records = [record for file in files for record in read_records(file)]
    trained, task = (sum(record.get(key, 0) for record in records) for key in ("tokens", "task_tokens"))
    return {"generated_tokens": made, "reused_tokens": found, "trained_tokens": trained, "task_tokens": task}


def checkpoints(folder: RunFolder, ledger: Events) -> dict[str, str]:
    """Return the model folder of every finished stage, by the stage's name, where the storage lies now."""
    done = {event["stage"]: event for event in ledger.all("stage_done")}
    return {event["name"]: placed_model(event["model"], folder.path) for _, event in sorted(done.items())}


def _documents(event: dict[str, Any]) -> dict[str, Any]:
    """Return what a `read` event says of the documents of a source."""
    return {key: value for key, value in event.items() if key not in ("event", "time", "rows", "state")}


def _passes(event: dict[str, Any]) -> dict[str, Any]:
    """Return how often a stage read the rows of its streams."""
    return {"stage": event["stage"], "name": event.get("name", ""), "streams": event.get("passes", {})}


def drifts(matrix: Matrix, since: Literal["drift", "drift_stage"]) -> dict[str, list[dict[str, Any]]]:
    """Return how far the model of every stage had drifted, by the texts where that is measured.

    `since`: from the start model, or from the model that the stage began with.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in matrix:
        for text, score in row.scores.items():
            drift, error = getattr(score, since), getattr(score, f"{since}_stderr")
            if drift is not None:
                drifted = {"stage": row.stage, "name": row.name, "drift": drift, "stderr": error}
                found.setdefault(text, []).append(drifted)
    return found


def summarise(
    folder: RunFolder, sequence: Sequence, ledger: Ledger, store: Path, mlflow_run_id: str | None
) -> dict[str, Any]:
    """Compute, write and return the summary. `status` is `done` once every stage is, else `running`."""
    scored = ledger.all("scored")
    matrix = read_matrix(scored)
    done = {event["stage"]: event for event in ledger.all("stage_done")}
    figures = figures_of(sequence, matrix, stored_outcomes(scored, store))
    summary = {
        "name": sequence.name,
        "status": "done" if len(done) == len(sequence.stages) else "running",
        "stages": [stage.name for stage in sequence.stages],
        "tasks": [task.name for task in evaluation_tasks(sequence)] + [text.name for text in sequence.evaluate.texts],
        "matrix": matrix_as_json(matrix),
        **{key: value for key, value in figures.items() if key not in ("history", "fell")},
        "fell": [entry["fell"] for entry in figures["history"]],
        "by_stage": [{key: entry[key] for key in BY_STAGE} for entry in figures["history"]],
        **token_counts(folder, sequence, ledger, store),
        "seconds": ledger.seconds(),
        "mlflow_run_id": mlflow_run_id,
        "checkpoints": checkpoints(folder, ledger),
        "reused_stages": [s.name for n, s in enumerate(sequence.stages, 1) for _ in ledger.of_stage("reused", n)],
        "samples": sorted({name for event in ledger.all("prepared") for name in event["samples"]}),
        "unit": units_of(matrix),
        "figure_unit": figure_units(sequence.model_dump(include={"stages", "evaluate"}), units_of(matrix)),
        "drift": drifts(matrix, "drift"),
        "drift_stage": drifts(matrix, "drift_stage"),
        "passes": list({event["stage"]: _passes(event) for event in ledger.all("prepared")}.values()),
        "documents": list({event["key"]: _documents(event) for event in ledger.all("read")}.values()),
        "candidates": [{key: event[key] for key in ("stage", "name", "scores")} for event in ledger.all("candidate")],
        "walks": walks_of(ledger),
    }
    write_atomic(folder.summary, json.dumps(summary, indent=1))
    return summary
