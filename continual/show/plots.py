"""How all figures are drawn: without global state, and in one style.

The colors are distinct for readers with color-vision deficiencies too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
