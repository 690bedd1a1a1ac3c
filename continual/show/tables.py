"""Tables for the terminal: the score matrix, the figures, and the end of a run with what to type next."""

from collections.abc import Sequence
from math import hypot
from pathlib import Path
from typing import Any

from continual.config.yaml_text import read_yaml
from continual.forgetting import Matrix, Score, read_matrix, tasks_of
from continual.ledger.folder import RunFolder, default_tracking_uri

FIGURES = (
    ("average_score", "average score"),
    ("forgetting", "forgetting"),
    ("forgetting_old", "forgetting, old"),
    ("backward_transfer", "backward transfer"),
    ("forward_transfer", "forward transfer"),
    ("learning_accuracy", "learning accuracy"),
)
TOKENS = (
    ("generated_tokens", "sampled"),
    ("reused_tokens", "reused"),
    ("trained_tokens", "trained on"),
)
SURE = 2.0
"""Standard errors of the difference by which a score must have fallen to be marked."""
RED, PLAIN = "\x1b[31m", "\x1b[0m"


def closing(summary: dict[str, Any], folder: Path, color: bool = False) -> str:
    """Return the end of a run: the matrix, the figures, where things are, and what to type next."""
    files = RunFolder(folder)
    lines = [f"{summary['name']}: {summary['status']}", ""]
    if summary["tasks"]:
        lines += [matrix_text(read_matrix(summary["matrix"]), summary["tasks"], color), ""]
    lines += figures_lines(summary)
    lines += [f"  {'summary':<18} {files.summary}"]
    models = list(summary.get("checkpoints", {}).values())
    lines += [f"  {'model':<18} {models[-1]}"] if models else []
    lines += ["", "next:"]
    if uri := _tracking_uri(files):
        lines.append(f"  mlflow ui --backend-store-uri {uri}    compare runs in a browser")
    return "\n".join([*lines, f"  less {files.log}    read the output of Ray and vLLM"])


def _tracking_uri(folder: RunFolder) -> str | None:
    """Return the tracker of a run folder: its configuration's, else the storage's own file; None if it is off."""
    config = folder.config
    track = read_yaml(config, str(config)).get("track", {}) if config.is_file() else {}
    if not track.get("enabled", True):
        return None
    return track.get("uri") or default_tracking_uri(folder.path.parent)


def matrix_text(matrix: Matrix, tasks: Sequence[str], color: bool = False) -> str:
    """Return the matrix as text: a row per stage, a column per task, in a cell the score with its standard error.

    `↓` (red, with `color`) marks a score that is certainly below the task's best so far.
    """
    rows = [["stage", *tasks]]
    marked = set()
    for number, entry in enumerate(matrix):
        cells = [entry.title]
        for column, task in enumerate(tasks, 1):
            cells.append(_cell(entry.scores.get(task)))
            if _fell(matrix, number, task):
                cells[-1] += " ↓"
                marked.add((number + 1, column))
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(tasks) + 1)]
    lines = []
    for number, row in enumerate(rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        if color:
            cells = [f"{RED}{cell}{PLAIN}" if (number, i) in marked else cell for i, cell in enumerate(cells)]
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


def _cell(score: Score | None) -> str:
    return "-" if score is None else _number(score.score, score.stderr)


def _number(value: float, error: float | None) -> str:
    return f"{value:.3f}" + ("" if error is None else f" ±{error:.3f}")


def _fell(matrix: Matrix, row: int, task: str) -> bool:
    """Return whether the score in `row` is below the best before it by more than SURE errors of the difference."""
    now = matrix[row].scores.get(task)
    before = [entry.scores[task] for entry in matrix[:row] if task in entry.scores]
    if now is None or not before:
        return False
    best = max(before, key=lambda score: score.score)
    return best.score - now.score > SURE * hypot(now.stderr or 0.0, best.stderr or 0.0)


def figures_lines(summary: dict[str, Any]) -> list[str]:
    """Return the figures of a summary, one per line, and what they cost."""
    tokens = [f"{summary[key]:,} {word}" for key, word in TOKENS if summary.get(key) is not None]
    seconds = [f"{name} {value:.0f} s" for name, value in (summary.get("seconds") or {}).items()]
    costs = [f"  {title:<18} {', '.join(parts)}" for title, parts in (("tokens", tokens), ("time", seconds)) if parts]
    return score_lines(summary) + costs


def score_lines(summary: dict[str, Any]) -> list[str]:
    """Return the figures of a summary, one per line; `-` where there is nothing to average."""
    errors = summary.get("stderr") or {}
    lines = []
    for key, title in FIGURES:
        value = summary.get(key)
        lines.append(f"  {title:<18} {'-' if value is None else _number(value, errors.get(key))}")
    return lines


def side_by_side(left: dict[str, Any], right: dict[str, Any], titles: tuple[str, str]) -> str:
    """Return two summaries next to each other, in a terminal's width: matrices, then figures."""
    columns = []
    for summary, title in ((left, titles[0]), (right, titles[1])):
        table = matrix_text(read_matrix(summary["matrix"]), summary["tasks"]).splitlines()
        columns.append([f"  {title}", "", *table, "", *score_lines(summary)])
    height = max(len(column) for column in columns)
    padded = [column + [""] * (height - len(column)) for column in columns]
    width = max(len(line) for line in padded[0]) + 4
    return "\n".join(f"{first:<{width}}{second}".rstrip() for first, second in zip(*padded, strict=True))
