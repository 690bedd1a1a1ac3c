"""Repair: what was measured on the walks back after the stages, and where each ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.show.plots import marker, style
from continual.show.report.draw import Plot, extra_height, legend, save, wrapped
from continual.show.report.figures import HEIGHT, Figures
from continual.show.report.gather import RunData


@dataclass(frozen=True)
class TriedRow:
    """A line of the table: walk number `walk` and model number `place` of summary.json, and whether it continued."""

    run: RunData
    label: str
    walk: int
    place: int
    continued: bool

    @property
    def stage(self) -> str:
        """The stage's number and name."""
        return f"{self._walk['stage']} {self._walk['name']}"

    def at(self, *path: str | int) -> tuple[str | int, ...]:
        """Return the place in summary.json of something that was measured of the model."""
        return "walks", self.walk, "tried", self.place, *path

    @property
    def toward(self) -> str:
        """What the walk leads to, for reading."""
        return str(self._walk["toward"]).replace("_", " ")

    @property
    def limits(self) -> Mapping[str, float]:
        """The largest losses that hold, by name."""
        return dict(self._walk["limits"])

    @property
    def tried(self) -> Mapping[str, Any]:
        """What was measured of the model."""
        return dict(self._walk["tried"][self.place])

    @property
    def became(self) -> str:
        """What became of the model: it continued, or nothing held at the walk's end, or another one was tried."""
        last = self.place == len(self._walk["tried"]) - 1
        return "continues" if self.continued else "stage undone" if last else ""

    @property
    def _walk(self) -> dict[str, Any]:
        return dict(self.run.summary["walks"][self.walk])


def tried_rows(labels: Sequence[str], runs: Sequence[RunData]) -> list[TriedRow]:
    """Return a line for every model that was tried, in the order of runs and stages."""
    return [
        TriedRow(run, label, number, place, walk["alpha"] is not None and place == len(walk["tried"]) - 1)
        for label, run in zip(labels, runs, strict=True)
        for number, walk in enumerate(run.summary.get("walks", []))
        for place in range(len(walk["tried"]))
    ]


def walk_plots(figures: Figures) -> list[Plot]:
    """Draw the drift of the models that were tried over alpha, a figure per run and a line per stage."""
    pairs = zip(figures.labels, figures.runs, strict=True)
    return [plot for label, run in pairs if (plot := _walks(figures, label, run))]


def _walks(figures: Figures, label: str, run: RunData) -> Plot | None:
    lines = {}
    for walk in run.summary.get("walks", []):
        points = [one for one in walk["tried"] if one.get("drift") is not None]
        if points:
            lines[f"{walk['stage']} {walk['name']}"] = walk, points
    if not lines:
        return None

    def draw(axes: Any) -> None:
        for number, (title, (walk, points)) in enumerate(lines.items()):
            x, y = [one["alpha"] for one in points], [one["drift"] for one in points]
            errors = [math.nan if one.get("stderr") is None else one["stderr"] for one in points]
            look = style(number)
            axes.errorbar(x, y, yerr=errors, label=wrapped(title), marker=marker(number), capsize=3, **look)
            if walk["drift_budget"] is not None:
                axes.axhline(walk["drift_budget"], color=look["color"], linestyle=":", linewidth=1)
        axes.set_xlabel("alpha")
        axes.set_ylabel("nats per token")
        axes.margins(y=0.1)
        legend(axes, len(lines))

    ends = "; ".join(f"{title}: {_end(walk)}" for title, (walk, _) in lines.items())
    title = f"Drift by alpha{f': {label}' if figures.several else ''}"
    alt = f"Drift from the model before each stage by the share of the weights after it; {ends}."
    name = figures.name("drift-by-alpha", label if figures.several else "")
    return save(figures.folder, name, title, alt, draw, HEIGHT + extra_height(list(lines)))


def _end(walk: Mapping[str, Any]) -> str:
    return "the stage was undone" if walk["alpha"] is None else f"alpha {walk['alpha']:g} continues"
