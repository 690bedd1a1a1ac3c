"""How a figure looks: small enough for a phone, colours that colour-blind readers tell apart, SVG and PNG alike."""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH = 3.55
"""Inches: 341 pixels in a browser, what a phone of 375 pixels shows at full size."""
FONT = 10.5
"""Points: 14 pixels in a browser."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, without the yellow that white paper swallows."""
MARKERS = "os^Dv*X"
DASHES = ("-", "--", ":", "-.")
SETTINGS: Any = {
    "font.size": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "legend.fontsize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "axes.labelsize": FONT,
    "svg.hashsalt": "continual",
}
"""The salt makes the ids within an SVG the same every time."""
POINTS = 400
"""Longest line that is drawn point by point; longer ones are drawn as means of neighbouring points."""


@dataclass(frozen=True)
class Plot:
    """A finished figure. `name` is its PNG's; `alt` says what it shows to who cannot see it; `width` in pixels."""

    name: str
    title: str
    alt: str
    svg: bytes
    width: int


def save(
    folder: Path, name: str, title: str, alt: str, draw: Callable[[Any], None], height: float, width: float = WIDTH
) -> Plot:
    """Draw on fresh axes and write `<folder>/<name>.png`; inches. The title is the page's part, and the PNG's."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: it keeps global state and belongs to the main thread

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        vector = io.BytesIO()
        # Without a date the same run gives the same bytes.
        figure.savefig(vector, format="svg", metadata={"Date": None})
        figure.suptitle("\n".join(textwrap.wrap(title, int(width * 11))), fontsize=FONT + 1)
        figure.savefig(folder / f"{name}.png", format="png", dpi=150)
    return Plot(name, title, alt, vector.getvalue(), round(width * 96))


def legend(axes: Any, count: int) -> None:
    """Below the axes, one entry a line, where there is more than one."""
    if count > 1:
        axes.figure.legend(loc="outside lower left", ncols=1, frameon=False)


def extra_height(labels: Sequence[str]) -> float:
    """Inches that a legend of these labels takes."""
    return 0.0 if len(labels) < 2 else 0.2 + 0.19 * sum(1 + wrapped(label).count("\n") for label in labels)


def wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, 34)) or label


def style(number: int) -> dict[str, Any]:
    """Colour and dashes of series `number`: no two of the first 28 look alike, and equal lines show through."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def marker(number: int) -> str:
    return MARKERS[number % len(MARKERS)]


def thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most POINTS points: means over equally many neighbours; shorter lines stay as they are."""
    size = -(-len(steps) // POINTS)
    if size <= 1:
        return list(map(float, steps)), list(values)
    parts = [slice(at, at + size) for at in range(0, len(steps), size)]
    return [_mean(steps[part]) for part in parts], [_mean(values[part]) for part in parts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def borders(axes: Any, stages: Sequence[tuple[int, str]]) -> None:
    """A line where each stage after the first begins, and the stages' names, or numbers where names need more room."""
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
