"""The heat map of the score matrix: scores in the cells, colored by what each task lost or gained."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from continual.config.measured import Measured
from continual.forgetting import Matrix, tasks_of
from continual.show.plots import DPI, WIDTH, figure

COLORS = "RdBu"
"""Red: lost, white: as before, blue: gained; readers with color-vision deficiencies tell them apart."""
BAR = 0.95
"""Inches that the color bar takes."""


@dataclass(frozen=True)
class ScoreMatrix:
    """A run's score matrix with the stage that learns each task (1-based; others are old) and the unit of each task."""

    matrix: Matrix
    learned: Mapping[str, int]
    units: Mapping[str, str]

    @classmethod
    def of(cls, matrix: Matrix, config: Mapping[str, Any], units: Mapping[str, str]) -> "ScoreMatrix":
        """Return the matrix of a run with this config.yaml."""
        stages = Measured.of_config(config).stage_tasks
        learned = {task: stage for stage in range(len(stages), 0, -1) for task in stages[stage - 1]}
        return cls(matrix, learned, units)

    def changes(self) -> np.ndarray:
        """Return every score's change, rows x tasks: since the task was learned, and before that since the start.

        NaN where one of the two scores is missing.
        """
        tasks = tasks_of(self.matrix)
        scores = [[row.scores[task].score if task in row.scores else np.nan for task in tasks] for row in self.matrix]
        values = np.array(scores, dtype=float).reshape(len(self.matrix), len(tasks))
        stages = [row.stage for row in self.matrix]
        changes = np.full_like(values, np.nan)
        for column, task in enumerate(tasks):
            for number, stage in enumerate(stages):
                since = self.learned[task] if stage >= self.learned.get(task, stage + 1) else 0
                if since in stages:
                    changes[number, column] = values[number, column] - values[stages.index(since), column]
        return changes


def largest_changes(runs: Iterable[ScoreMatrix]) -> dict[str, float]:
    """Return the largest change by unit over all runs: the ends of the one scale that they share."""
    largest: dict[str, float] = {}
    for run in runs:
        changes = np.nan_to_num(np.abs(run.changes()))
        for column, task in enumerate(tasks_of(run.matrix)):
            unit = run.units.get(task, "")
            largest[unit] = max(largest.get(unit, 0.0), float(changes[:, column].max(initial=0.0)))
    return largest


def matrix_figure(run: ScoreMatrix, path: str | Path) -> None:
    """Write the heat map of one run as a PNG."""
    with figure(*matrix_size(run.matrix)) as picture:
        draw_matrix(run, largest_changes([run]), picture.subplots())
        picture.savefig(path, format="png", dpi=DPI)


def matrix_size(matrix: Matrix) -> tuple[float, float]:
    """Return width and height in inches that the heat map needs."""
    names = max((len(row.title) for row in matrix), default=0)
    return max(WIDTH, 0.7 + 0.085 * names + 0.7 * len(tasks_of(matrix))), 1.4 + BAR + 0.42 * len(matrix)


def draw_matrix(run: ScoreMatrix, largest: Mapping[str, float], axes: Any) -> None:
    """Draw the heat map on matplotlib axes: a row per stage, a column per task, scores in the cells.

    A cell's color is its change (`ScoreMatrix.changes`) as a part of the `largest` one of its unit: nats and accuracies
    have scales of their own, which all runs with the same `largest` share.
    """
    tasks = tasks_of(run.matrix)
    axes.set_facecolor("0.85")
    ends = np.array([largest.get(run.units.get(task, ""), 0.0) or 1.0 for task in tasks])
    levels = run.changes() / ends
    image = axes.imshow(levels, cmap=COLORS, vmin=-1, vmax=1, aspect="auto")
    for number, row in enumerate(run.matrix):
        for column, task in enumerate(tasks):
            label = f"{row.scores[task].score:.3f}" if task in row.scores else "-"
            color = "white" if abs(levels[number, column]) > 0.6 else "black"
            axes.text(column, number, label, ha="center", va="center", color=color)
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_yticks(range(len(run.matrix)), [row.title for row in run.matrix])
    axes.set_ylabel("after stage")
    used = {unit: end for unit, end in largest.items() if unit in {run.units.get(task, "") for task in tasks}}
    bar = axes.figure.colorbar(image, ax=axes, location="bottom", ticks=[-1, 0, 1], aspect=30)
    least, most = ("\n".join(f"{sign}{end:.3g} {unit}".rstrip() for unit, end in used.items()) for sign in "-+")
    bar.ax.set_xticklabels([least, "0", most])
    bar.set_label("change since learned\n(before: since the start)")
