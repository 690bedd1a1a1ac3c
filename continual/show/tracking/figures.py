"""The matrix of scores as a picture and as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def _tasks(matrix: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(task for line in matrix for task in line["scores"]))


def matrix_table(matrix: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of equal length: stage, name, and score and standard error per task (None where not measured).

    `matrix` is the summary's list of {stage, name, scores: {task: {score, stderr, n}}}.
    """
    table: dict[str, list[Any]] = {key: [line[key] for line in matrix] for key in ("stage", "name")}
    for task in _tasks(matrix):
        cells = [line["scores"].get(task, {}) for line in matrix]
        table[task] = [cell.get("score") for cell in cells]
        table[f"{task} stderr"] = [cell.get("stderr") for cell in cells]
    return table


def matrix_figure(matrix: Sequence[dict[str, Any]], path: str | Path) -> None:
    """A heat map as PNG: a row per stage, a column per task, scores in the cells.

    A column whose scores all lie in [0, 1] is coloured on that range, any other on its own: nats and accuracies share
    no scale. The colours (cividis) read the same with colour-vision deficiencies; brighter is better.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: it keeps global state and belongs to the main thread

    figure = Figure(figsize=matrix_size(matrix), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    draw_matrix(matrix, figure.subplots())
    figure.savefig(path, format="png")


def matrix_size(matrix: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Width and height in inches that the heat map needs."""
    names = max((len(f"{line['stage']} {line['name']}") for line in matrix), default=0)
    return max(3.55, 0.7 + 0.085 * names + 0.7 * len(_tasks(matrix))), 1.4 + 0.42 * len(matrix)


def draw_matrix(matrix: Sequence[dict[str, Any]], axes: Any) -> None:
    """The heat map on matplotlib axes."""
    tasks = _tasks(matrix)
    axes.set_facecolor("0.85")
    levels = _levels(matrix, tasks)
    axes.imshow(levels, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, line in enumerate(matrix):
        for column, task in enumerate(tasks):
            score = line["scores"].get(task, {}).get("score")
            dark = score is not None and levels[row][column] < 0.5
            label = "-" if score is None else f"{score:.3f}"
            axes.text(column, row, label, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_yticks(range(len(matrix)), [f"{line['stage']} {line['name']}" for line in matrix])
    axes.set_ylabel("after stage")


def _levels(matrix: Sequence[dict[str, Any]], tasks: list[str]) -> list[list[float]]:
    """Brightness of every cell in [0, 1], rows x tasks; NaN where nothing was measured."""
    columns = []
    for task in tasks:
        scores = [line["scores"].get(task, {}).get("score") for line in matrix]
        known = [score for score in scores if score is not None]
        low, high = min(known, default=0.0), max(known, default=1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        span = high - low or 1.0
        columns.append([float("nan") if score is None else (score - low) / span for score in scores])
    return [list(row) for row in zip(*columns, strict=True)]
