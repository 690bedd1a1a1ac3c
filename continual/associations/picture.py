"""The heat map of a matrix of associations, most fragile documents and most destructive tasks first."""

from pathlib import Path

import numpy as np

from continual.associations.analysis import order_by_factor
from continual.associations.matrix import Associations
from continual.show.plots import DPI, WIDTH, figure

MOST_COLUMNS = 200
"""Columns of the picture; of more documents several in a row are averaged."""
ROW = 0.22
"""Inches of a task."""
COLORS = "RdBu_r"
"""Red: forgotten, as in the heat map of scores."""


def draw(matrix: Associations, path: Path) -> None:
    """Draw tasks x documents, both in the order of the first factor; the color is the mean change of a column's."""
    rows, columns = order_by_factor(matrix.change)
    ordered = matrix.change[rows][:, columns]
    groups = np.array_split(np.arange(len(columns)), min(MOST_COLUMNS, len(columns)))
    cells = np.stack([ordered[:, group].mean(axis=1) for group in groups], axis=1)
    # A few extreme documents would leave everything else white.
    largest = float(np.quantile(np.abs(cells), 0.98)) or float(np.abs(cells).max()) or 1.0
    with figure(WIDTH * 2, 1.1 + ROW * len(rows)) as picture:
        axes = picture.add_subplot()
        image = axes.imshow(cells, cmap=COLORS, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(rows)), [matrix.tasks[row] for row in rows])
        axes.set_xticks([])
        axes.set_xlabel(f"{len(columns):,} documents, the most fragile first")
        label = "forgotten, nats per token" if matrix.kind == "nats" else "share forgotten"
        picture.colorbar(image, ax=axes, label=label, extend="both", pad=0.01)
        picture.savefig(path, dpi=DPI)
