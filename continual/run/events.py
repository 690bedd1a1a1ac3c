"""What the ledger's events say for the tracker, in addition to what a run itself needs."""

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from continual.config.measured import Measured
from continual.config.schema import Sequence
from continual.config.yaml_text import read_yaml
from continual.contract.models import ModelRef
from continual.forgetting import FIGURES, Matrix, last_figures, read_matrix
from continual.ledger.events import is_record
from continual.ledger.folder import RunFolder, StageFolder
from continual.ledger.ledger import Events
from continual.ledger.lines import read_last_lines
from continual.ledger.places import stored
from continual.preflight.stages import acting
from continual.show.heat_map import ScoreMatrix, matrix_figure
from continual.show.tracking import flatten, run_tags, sequence_metrics, stage_metrics
from continual.store import Artefact
from continual.store.json_files import known_json

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended, in MLflow's words."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""
SECTIONS = ("model", "mitigation", "train", "generate")
"""The parts of a configuration that are parameters of a run."""
USUAL = {"model": {"source", "build"}, "train": {"learning_rate", "batch_tokens", "row_tokens", "workers", "precision"}}
"""Options that are parameters also where they were not written."""
DRIFT = ("drift", "drift_stderr")
"""What the record of a step says of the drift."""


def labels(sequence: Sequence, stage: int | None = None) -> str:
    """Return the mitigations that act in a stage, or in any, joined by `+`; `none` for plain fine-tuning."""
    stages = range(1, len(sequence.stages) + 1) if stage is None else [stage]
    names = (mitigation.label for number in stages for _, mitigation in acting(sequence, number))
    return "+".join(dict.fromkeys(names)) or "none"


def started(sequence: Sequence, source: str, start: ModelRef, git: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Return the facts of a `started` event: the run's name, tags, parameters and files. `source` is its YAML."""
    methods = labels(sequence)
    tags = run_tags("sequence", sequence, methods) | {"start_model": start.hash}
    # MLflow's own tags: it shows them as the run's user, source and description.
    tags |= {"mlflow.user": _user(), "mlflow.source.name": source, "mlflow.source.type": "LOCAL"}
    tags |= {"git_commit": git["commit"], "mlflow.source.git.commit": git["commit"]} if git else {}
    tags |= {NOTE: note(sequence)}
    params = options(sequence) | {"seed": str(sequence.seed), "stages": ",".join(s.name for s in sequence.stages)}
    return {
        "name": sequence.name,
        "tags": {**tags, **sequence.track.tags},
        "params": {**params, "mitigation": methods, **sequence.track.params},
        "files": [folder.config.name, folder.versions.name],
    }


def options(sequence: Sequence) -> dict[str, str]:
    """Return the options that a run is compared by: those that were written, and the USUAL ones.

    The others have their defaults in every run; the whole configuration is an artifact of the run.
    """
    written = sequence.model_dump(mode="json", include=set(SECTIONS), exclude_unset=True, exclude_none=True)
    usual = sequence.model_dump(mode="json", include=USUAL, exclude_none=True)
    return flatten(usual) | flatten(written)


def note(sequence: Sequence, summary: dict[str, Any] | None = None) -> str:
    """Return the description of a run in Markdown: what it learns from what and how, and what became of it."""
    tasks = " → ".join(stage.name for stage in sequence.stages)
    model = sequence.model.source or sequence.model.build
    text = f"**{sequence.name}**: {tasks}, from `{model}`, mitigation {labels(sequence)}, seed {sequence.seed}"
    if not summary:
        return text
    units = {name: f" {unit}" for name, unit in summary["figure_unit"].items()}
    known = {name: summary[name] for name in FIGURES if summary[name] is not None}
    lines = [f"- {name.replace('_', ' ')}: {value:.4f}{units.get(name, '')}" for name, value in known.items()]
    if fell := (summary.get("fell") or [[]])[-1]:
        lines.append(f"- fell significantly, after Holm's correction: {', '.join(f'`{task}`' for task in fell)}")
    return "\n".join([text, "", *lines])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def stage_tags(sequence: Sequence, stage: int) -> dict[str, str]:
    """Return the tags of a stage's run; stages count from 1."""
    tags = run_tags("stage", sequence, labels(sequence, stage))
    return tags | {"stage": str(stage), "stage_name": sequence.stages[stage - 1].name}


def streams(rows: dict[str, Artefact], storage: Path) -> dict[str, Any]:
    """Return the content of the streams that are complete, by name."""
    manifests = {name: (artefact, artefact.manifest()) for name, artefact in rows.items() if artefact.complete}
    return {
        name: {"content": manifest["content"], "path": stored(artefact.path, storage), "counts": manifest["counts"]}
        for name, (artefact, manifest) in manifests.items()
    }


def stage_numbers(
    sequence: Sequence, matrix: Matrix, stage: int, outcomes: Mapping[tuple[int, str], Any]
) -> dict[str, float]:
    """Return the run's metrics after a stage of the matrix; `outcomes` as `figures` takes them."""
    names = Measured.of(sequence)
    figures = last_figures(matrix[: stage + 1], names.stage_tasks, names.old, outcomes)
    return sequence_metrics(figures, matrix[stage].scores)


def drift_numbers(files: StageFolder, model: ModelRef) -> dict[str, float]:
    """Return the drift after a stage's last step as metrics of the whole run, beside the scores of the same model.

    {} if `model` is not the trained one: an average or a repaired model has drifted otherwise.
    """
    records = read_last_lines(files.metrics, good=is_record) if Path(model.path) == files.model else []
    return stage_metrics({key: value for key, value in records[-1].items() if key in DRIFT}) if records else {}


def version(
    sequence: Sequence, stage: int, model: str, metrics: dict[str, float], data: dict[str, Any]
) -> dict[str, Any] | None:
    """Return name and tags of the model version that a stage becomes with `track.register`: its scores and data."""
    if sequence.track.register is None:
        return None
    tags = stage_tags(sequence, stage) | {"model": model}
    tags |= {key: repr(value) for key, value in metrics.items()}
    tags |= {f"data/{name}": stream["content"] for name, stream in data.items()}
    return {"name": sequence.track.register, "tags": tags}


def add_results(events: Events, step: int, metrics: dict[str, float], files: list[str], **key: str) -> None:
    """Record for the tracker what was found from what is done, unless it is what was recorded last.

    `files`: names of files next to the events. `key`: names the run of MLflow if it is not the sequence's.
    """
    known = events.find("results")
    if known is None or known["metrics"] != metrics:
        events.add("results", **key, step=step, metrics=metrics, files=files)


def ended(status: Status, open_stages: set[int], folder: RunFolder) -> dict[str, Any]:
    """Return the facts of an `ended` event: the status of the run and its open stages; of a finished run its results.

    Draws the matrix of a finished run.
    """
    summary = known_json(folder.summary) if status == "FINISHED" else {}
    matrix = summary["matrix"] if summary.get("tasks") else None
    config = read_yaml(folder.config, str(folder.config)) if summary else {}
    if matrix:
        matrix_figure(ScoreMatrix.of(read_matrix(matrix), config, summary["unit"]), folder.matrix)
    files = [folder.matrix, folder.summary, folder.report, folder.figures] if summary else []
    names = [path.name for path in files if path.exists()]
    tags = {NOTE: note(Sequence.model_validate(config), summary)} if summary else {}
    return {"status": status, "open": sorted(open_stages), "matrix": matrix, "files": names, "tags": tags}
