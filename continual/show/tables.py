"""Tables for the terminal: the score matrix, the figures, and the end of a run with what to type next."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from continual.config.yaml_text import read_yaml
from continual.errors import redacted
from continual.forgetting import FIGURES, Matrix, Score, read_matrix, tasks_of
from continual.ledger.folder import RunFolder, default_tracking_uri

TITLES = {name: name.replace("_", " ") for name in FIGURES} | {"forgetting_old": "forgetting, old"}
TOKENS = {"generated_tokens": "sampled", "reused_tokens": "reused", "trained_tokens": "trained (with loss)"}
"""Everywhere, `tokens` are all positions of the rows, and `trained tokens` those that have a loss."""
FELL = " ↓"
RED, PLAIN = "\x1b[31m", "\x1b[0m"


def closing(summary: dict[str, Any], folder: Path, color: bool = False) -> str:
    """Return the end of a run: the matrix, the figures, where things are, and what to type next."""
    files = RunFolder(folder)
    lines = [f"{summary['name']}: {summary['status']}", ""]
    if summary["tasks"]:
        lines += [matrix_text(read_matrix(summary["matrix"]), summary["tasks"], summary.get("fell", ()), color), ""]
    lines += figures_lines(summary)
    lines += [line] if (line := unpaired(summary)) else []
    lines += drift_lines(summary)
    lines += [f"  {'summary':<18} {files.summary}"]
    models = list(summary.get("checkpoints", {}).values())
    lines += [f"  {'model':<18} {models[-1]}"] if models else []
    lines += ["", "next:"]
    if uri := _tracking_uri(files):
        lines.append(f"  mlflow ui --backend-store-uri {redacted(uri)}    compare runs in a browser")
    return "\n".join([*lines, f"  less {files.log}    read the output of Ray and vLLM"])


def _tracking_uri(folder: RunFolder) -> str | None:
    """Return the tracker of a run folder: its configuration's, else the storage's own file; None if it is off."""
    config = folder.config
    track = read_yaml(config, str(config)).get("track", {}) if config.is_file() else {}
    if not track.get("enabled", True):
        return None
    return track.get("uri") or default_tracking_uri(folder.path.parent)


def matrix_text(matrix: Matrix, tasks: Sequence[str], fell: Sequence[Collection[str]] = (), color: bool = False) -> str:
    """Return the matrix as text: a row per stage, a column per task, in a cell the score with its standard error.

    `fell`: by row, the tasks whose loss is certain (see `continual.forgetting.figures`), which `↓` marks, red with
    `color`.
    """
    rows = [["stage", *tasks]]
    marks = [*fell, *[()] * (len(matrix) - len(fell))]
    rows += [
        [row.title, *(_cell(row.scores.get(task), task in fallen) for task in tasks)]
        for row, fallen in zip(matrix, marks, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        if color:
            cells = [f"{RED}{cell}{PLAIN}" if cell.rstrip().endswith(FELL) else cell for cell in cells]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def matrix_columns(matrix: Matrix) -> dict[str, list[Any]]:
    """Return columns of equal length: stage, name, and score and standard error per task (None if not measured)."""
    columns: dict[str, list[Any]] = {"stage": [row.stage for row in matrix], "name": [row.name for row in matrix]}
    for task in tasks_of(matrix):
        scores = [row.scores.get(task) for row in matrix]
        columns[task] = [score and score.score for score in scores]
        columns[f"{task} stderr"] = [score and score.stderr for score in scores]
    return columns


def _cell(score: Score | None, fell: bool) -> str:
    return _number(score.score, score.stderr) + FELL * fell if score else "-"


def _number(value: float | None, error: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" + ("" if error is None else f" ±{error:.3f}")


def figures_lines(summary: dict[str, Any]) -> list[str]:
    """Return the figures of a summary, one per line, and what they cost."""
    tokens = [f"{summary[key]:,} {word}" for key, word in TOKENS.items() if summary.get(key) is not None]
    seconds = [f"{name} {value:.0f} s" for name, value in (summary.get("seconds") or {}).items()]
    costs = [f"  {title:<18} {', '.join(parts)}" for title, parts in (("tokens", tokens), ("time", seconds)) if parts]
    return score_lines(summary) + costs


def score_lines(summary: dict[str, Any]) -> list[str]:
    """Return the figures of a summary with their units, one per line; `-` where there is nothing to average."""
    errors, corrected = summary.get("stderr") or {}, summary.get("corrected") or {}
    units = {
        key: f" {unit}" for key, unit in (summary.get("figure_unit") or {}).items() if summary.get(key) is not None
    }
    return [
        f"  {title:<18} {_number(summary.get(key), errors.get(key))}{units.get(key, '')}"
        f"{_corrected(summary.get(key), corrected.get(key))}"
        for key, title in TITLES.items()
    ]


def _corrected(value: float | None, corrected: float | None) -> str:
    """Return a loss without the bias of choosing the best stage, where that makes a difference."""
    equal = corrected is None or _number(corrected, None) == _number(value, None)
    return "" if equal else f", corrected {corrected:.3f}"


def drift_lines(summary: dict[str, Any]) -> list[str]:
    """Return how far the last model has drifted, a line per text on which that is measured.

    It has from the start model and, after the first stage, from the model that its own stage began with.
    """
    lines = []
    for key, since in (("drift", "the start model"), ("drift_stage", "the last stage's start")):
        last = {text: each[-1] for text, each in (summary.get(key) or {}).items() if each}
        lines += [
            f"  {'drift':<18} {_number(of['drift'], of['stderr'])} nats/token from {since}, on {text}"
            for text, of in last.items()
            if key == "drift" or of["stage"] > 1
        ]
    return lines


def unpaired(summary: dict[str, Any]) -> str:
    """Return which tasks have errors as if their scores were independent, as a line; "" if none has."""
    tasks = [task for task in summary["tasks"] if task not in summary.get("paired", summary["tasks"])]
    if not tasks or len(summary["matrix"]) < 2:
        return ""
    why = "as if its scores were independent: what each document adds is unknown"
    return f"  {'errors':<18} of {', '.join(tasks)} {why}"
