"""A finished figure of the report: small enough for a phone, as SVG in the page and as PNG next to it."""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from continual.show.plots import DPI, FONT, WIDTH, figure

POINTS = 400
"""Longest line that is drawn point by point; longer ones are drawn as means of neighboring points."""


@dataclass(frozen=True)
class Plot:
    """A finished figure. `name` is its PNG's; `alt` describes it to readers who cannot see it; `width` in pixels.

    `image` is what the page shows: an SVG, or a PNG that was drawn before.
    """

    name: str
    title: str
    alt: str
    image: bytes
    width: int
    kind: Literal["svg+xml", "png"] = "svg+xml"


def save(
    folder: Path, name: str, title: str, alt: str, draw: Callable[[Any], None], height: float, width: float = WIDTH
) -> Plot:
    """Draw on fresh axes and write `<folder>/<name>.png`; inches. The page shows the title, and so does the PNG."""
    with figure(width, height) as picture:
        draw(picture.subplots())
        vector = io.BytesIO()
        # Without a date the same run gives the same bytes.
        picture.savefig(vector, format="svg", metadata={"Date": None})
        picture.suptitle("\n".join(textwrap.wrap(title, int(width * 11))), fontsize=FONT + 1)
        picture.savefig(folder / f"{name}.png", format="png", dpi=DPI)
    return Plot(name, title, alt, vector.getvalue(), round(width * 96))


def legend(axes: Any, count: int) -> None:
    """Draw a legend below the axes, one entry per line, if there is more than one."""
    if count > 1:
        axes.figure.legend(loc="outside lower left", ncols=1, frameon=False)


def extra_height(labels: Sequence[str]) -> float:
    """Return the inches that a legend of these labels takes."""
    return 0.0 if len(labels) < 2 else 0.2 + 0.19 * sum(1 + wrapped(label).count("\n") for label in labels)


def wrapped(label: str) -> str:
    """Return a label in lines that fit a phone."""
    return "\n".join(textwrap.wrap(label, 34)) or label


def thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return at most POINTS points: means over equally many neighbors; shorter lines stay as they are."""
    size = -(-len(steps) // POINTS)
    if size <= 1:
        return list(map(float, steps)), list(values)
    parts = [slice(first, first + size) for first in range(0, len(steps), size)]
    return [fmean(steps[part]) for part in parts], [fmean(values[part]) for part in parts]
