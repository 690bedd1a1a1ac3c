"""Names of things in MLflow, and values made to fit its limits."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from continual.forgetting import Score

if TYPE_CHECKING:
    from continual.config.schema import Sequence

EXPERIMENT = "continual"
"""The experiment of all runs that name none: MLflow compares the runs of one experiment."""
SEQUENCE = "sequence"
"""The logical key of a run of MLflow for a whole sequence."""
KEY_CHARACTERS, PARAM_CHARACTERS, TAG_CHARACTERS = 250, 6000, 5000
"""MLflow's longest key and parameter; for tags older servers stop at 5,000."""


def stage_key(stage: int) -> str:
    """Return the logical key of a stage's run in MLflow."""
    return f"stage-{stage}"


def shorten(text: str, limit: int) -> str:
    """Return the text, or its beginning and the hash of the whole: equal texts stay equal, different ones different."""
    if len(text) <= limit:
        return text
    mark = f"...{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    return text[: limit - len(mark)] + mark


def clean(name: str) -> str:
    """Return a key that MLflow accepts: letters, digits, `_ - . : /` and space, a path without a detour, <= 250.

    lm-eval's `acc,none` becomes `acc:none`; every other character becomes `_`. A valid name is not changed.
    """
    name = re.sub(r"[^\w\-. :/]", "_", name.replace(",", ":"))
    parts = [part for part in shorten(name, KEY_CHARACTERS).split("/") if part not in ("", ".", "..")]
    return re.sub(r"^\.\.", "__", "/".join(parts)) or "_"


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a nested configuration as parameters, by the dotted keys of overrides: `mitigation.0.weight` -> `1.0`.

    None is `null` and booleans are `true` and `false`, as in YAML; lists of plain values stay one JSON value.
    """
    flat: dict[str, str] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, list) and any(isinstance(part, Mapping) for part in item):
            item = {str(i): part for i, part in enumerate(item)}
        if isinstance(item, Mapping) and item:
            flat |= flatten(item, f"{name}.")
        else:
            flat[name] = item if isinstance(item, str) else json.dumps(item, default=str)
    return flat


def run_tags(kind: Literal["sequence", "stage"], sequence: "Sequence", mitigation: str) -> dict[str, str]:
    """Tags that make the usual questions one filter each, on a sequence's run and on its stages'.

    `kind` parts whole sequences from their stages; `mitigation` are the labels that act, joined by `+`, or `none`.
    """
    return {
        "kind": kind,
        "sequence": sequence.name,
        "mitigation": mitigation,
        "seed": str(sequence.seed),
        "strategy": sequence.train.strategy,
        "world_size": str(sequence.train.workers),
    }


def stage_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a stage's run at step `record["step"]`, from a line of its metrics.jsonl.

    Losses and drift are in nats per token, the standard error of drift is `stderr/drift/<stream>`, `learning_rate` and
    `gradient_norm` are as trained with, and `tokens_per_second` counts the tokens of all streams and workers.
    """
    metrics = {
        f"{group}/{stream}": value
        for group in ("loss", "weight", "drift")
        for stream, value in record.get(group, {}).items()
    }
    metrics |= {f"stderr/drift/{stream}": value for stream, value in record.get("drift_stderr", {}).items()}
    metrics |= {name: record.get(name) for name in ("learning_rate", "gradient_norm")}
    if seconds := record.get("seconds"):
        metrics["tokens_per_second"] = record["tokens"] / seconds
        metrics["data_wait_fraction"] = record.get("data_wait", 0.0) / seconds
        if waited := record.get("evaluation_wait"):
            metrics["evaluation_wait_fraction"] = waited / seconds
    return {name: float(value) for name, value in metrics.items() if value is not None}


_LATE = {"interval": "uncertainty"}
"""MLflow sorts metrics by name and draws the first ones: the ends of intervals are not to stand before the scores."""


def sequence_metrics(figures: Mapping[str, Any], scores: Mapping[str, Score]) -> dict[str, float]:
    """Return the parent run's metrics after a stage; the step is the stage's number.

    `figures` is the stage's entry of the history, e.g. {"forgetting": 0.1, "forgetting_by_task": {"sort": 0.1},
    "stderr": {"forgetting": 0.02}}, and gives `forgetting`, `forgetting/sort` and `stderr/forgetting`. `scores` is its
    row of the matrix, {task: score}, and gives `score/<task>`, `stderr/score/<task>` and what `drift_metrics` gives.
    What is None is undefined at this stage and left out.
    """
    metrics = _numbers({_LATE.get(name, name): value for name, value in figures.items() if name != "stage"})
    metrics |= _numbers({"score": {task: score.score for task, score in scores.items()}})
    metrics |= _numbers({"stderr/score": {task: score.stderr for task, score in scores.items()}})
    return metrics | drift_metrics(scores)


def drift_metrics(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return the drift on texts on which it is measured: `drift/<text>` from the start model, `drift_stage/<text>` from
    the model that the stage began with, and with `stderr/` before these names their standard errors.
    """
    numbers: dict[str, float] = {}
    for drift in ("drift", "drift_stage"):
        numbers |= _numbers({drift: {text: getattr(of, drift) for text, of in scores.items()}})
        errors = {text: getattr(of, f"{drift}_stderr") for text, of in scores.items()}
        numbers |= _numbers({f"stderr/{drift}": errors})
    return numbers


def walk_metrics(walk: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Return the metrics of a stage's run for a walk back: the step is the share of the trained weights in percent.

    `walk` is an entry of summary.json's `walks`. `walk/drift` in nats per token, `stderr/walk/drift`, and
    `walk/loss/<name>` are of each model that was tried; what was not measured is left out.
    """
    return [
        (
            round(100 * one["alpha"]),
            _numbers({"walk/drift": one.get("drift"), "stderr/walk/drift": one.get("stderr")})
            | _numbers({"walk/loss": {name: loss["value"] for name, loss in one.get("losses", {}).items()}}),
        )
        for one in walk["tried"]
    ]


def walk_end(walk: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the whole run for a walk back after a stage: the share that continues, and what it may.

    `walk/undone` is 1 if no model held; then there is no `walk/alpha`.
    """
    undone = walk["alpha"] is None
    return _numbers(
        {"walk/alpha": walk["alpha"], "walk/undone": int(undone), "walk/drift_budget": walk["drift_budget"]}
    )


def _numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers in a nested mapping, by the path to them, without `_by_task` in the names."""
    numbers: dict[str, float] = {}
    for key, value in values.items():
        name = prefix + key.removesuffix("_by_task")
        if isinstance(value, Mapping):
            numbers |= _numbers(value, f"{name}/")
        elif isinstance(value, int | float):
            numbers[name] = float(value)
        elif isinstance(value, list) and len(value) == 2 and all(isinstance(end, float) for end in value):
            numbers |= {f"{name}/lower": value[0], f"{name}/upper": value[1]}
    return numbers
