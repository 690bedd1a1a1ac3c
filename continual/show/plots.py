"""How all figures are drawn: without global state, in one style, and the heat map of the score matrix.

The colors are distinct for readers with color-vision deficiencies too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from continual.forgetting import Matrix, tasks_of

WIDTH = 3.55
"""Inches: 341 pixels in a browser, what a phone of 375 pixels shows at full size."""
FONT = 10.5
"""Points: 14 pixels in a browser."""
DPI = 150
"""Resolution of PNGs."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, without their yellow, which is invisible on white paper."""
MARKERS = "os^Dv*X"
DASHES = ("-", "--", ":", "-.")
SETTINGS: Any = {
    "font.size": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.hashsalt": "continual",
}
"""The salt makes the ids within an SVG the same every time."""


@contextmanager
def figure(width: float, height: float) -> Iterator[Any]:
    """Yield an empty matplotlib figure in our style; inches. Draw and save it inside the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it keeps global state and belongs to the main thread

    with mpl.rc_context(SETTINGS):
        yield Figure(figsize=(width, height), layout="constrained")


def style(number: int) -> dict[str, Any]:
    """Return color and dashes of series `number`: the first 28 all differ, and dashes show equal lines."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number % len(DASHES)]}


def marker(number: int) -> str:
    """Return the marker of series `number`."""
    return MARKERS[number % len(MARKERS)]


def borders(axes: Any, stages: Sequence[tuple[int, str]]) -> None:
    """Draw a line where each stage after the first begins, and the stages' names, or numbers if names need more room.

    `stages`: the first step and the name of each.
    """
    labels = [name for _, name in stages]
    if sum(len(label) + 2 for label in labels) > 34:
        labels = [str(number) for number in range(1, len(stages) + 1)]
    for number, ((first, _), label) in enumerate(zip(stages, labels, strict=True)):
        if number:
            axes.axvline(first, color="0.55", linewidth=1, linestyle=":")
        axes.annotate(
            label, (first, 1), xycoords=("data", "axes fraction"), xytext=(2, 2), textcoords="offset points",
            color="0.25", ha="left", va="bottom",
        )  # fmt: skip


def matrix_figure(matrix: Matrix, path: str | Path) -> None:
    """Write the heat map of the matrix as a PNG."""
    with figure(*matrix_size(matrix)) as picture:
        draw_matrix(matrix, picture.subplots())
        picture.savefig(path, format="png", dpi=DPI)


def matrix_size(matrix: Matrix) -> tuple[float, float]:
    """Return width and height in inches that the heat map needs."""
    names = max((len(row.title) for row in matrix), default=0)
    return max(WIDTH, 0.7 + 0.085 * names + 0.7 * len(tasks_of(matrix))), 1.4 + 0.42 * len(matrix)


def draw_matrix(matrix: Matrix, axes: Any) -> None:
    """Draw the heat map on matplotlib axes: a row per stage, a column per task, scores in the cells.

    A column whose scores all lie in [0, 1] is colored on that range, any other on its own: nats and accuracies share
    no scale. The colors are cividis's; brighter is better.
    """
    tasks = tasks_of(matrix)
    axes.set_facecolor("0.85")
    levels = _levels(matrix, tasks)
    axes.imshow(levels, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for number, row in enumerate(matrix):
        for column, task in enumerate(tasks):
            label = f"{row.scores[task].score:.3f}" if task in row.scores else "-"
            color = "white" if levels[number, column] < 0.5 else "black"
            axes.text(column, number, label, ha="center", va="center", color=color)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_yticks(range(len(matrix)), [row.title for row in matrix])
    axes.set_ylabel("after stage")


def _levels(matrix: Matrix, tasks: list[str]) -> np.ndarray:
    """Return the brightness of every cell in [0, 1], rows x tasks; NaN where nothing was measured."""
    scores = [[row.scores[task].score if task in row.scores else np.nan for task in tasks] for row in matrix]
    values = np.array(scores).reshape(len(matrix), len(tasks))
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    shared = (low >= 0) & (high <= 1)
    low, high = np.where(shared, 0.0, low), np.where(shared, 1.0, high)
    return (values - low) / np.where(high > low, high - low, 1.0)
