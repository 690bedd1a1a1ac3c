"""The figures of a report: for one run a line per task or stream, for several a figure each with a line per run."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual.forgetting import tasks_of
from continual.show.heat_map import ScoreMatrix, draw_matrix, largest_changes, matrix_size
from continual.show.plots import COLORS, borders, marker, style
from continual.show.report.draw import Plot, extra_height, legend, save, thin, wrapped
from continual.show.report.gather import RunData, by_stream, over_steps
from continual.show.report.trade_off import TradeOff
from continual.show.report.watched import SINCE, Watched

Scored = tuple[Sequence[float], Sequence[float], Sequence[float] | None]
"""x, y, and standard errors of y."""
Parts = Sequence[Any]
"""The parts of a line, which are drawn with a gap between them: x, y, and the standard errors of y or None."""
DrawLine = Callable[[Any, int, str, Parts], None]
"""Draws on axes line `number` of a figure, with its label."""
HEIGHT = 2.5


class Figures:
    """Draws the figures of `runs`, which are called `labels`, into `folder`."""

    def __init__(self, runs: Sequence[RunData], labels: Sequence[str], folder: Path):
        self.runs, self.labels, self.folder = runs, labels, folder
        self.several = len(runs) > 1
        self._names: set[str] = set()
        self.matrices = [ScoreMatrix.of(run.matrix, run.config, run.summary.get("unit", {})) for run in runs]

    def name(self, *parts: str) -> str:
        """Return a file name that no other figure has."""
        plain = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-").lower()
        name, number = plain, 2
        while name in self._names:
            name, number = f"{plain}-{number}", number + 1
        self._names.add(name)
        return name

    def matrix(self, number: int) -> Plot | None:
        """Draw the heat map of a run's scores; None if it has none."""
        run, label = self.runs[number], self.labels[number]
        if not tasks_of(run.matrix):
            return None
        width, height = matrix_size(run.matrix)
        name, title = self.name("matrix", label if self.several else ""), label if self.several else "Heat map"
        alt = (
            f"Heat map of the scores of {label}: a row per stage, a column per task, red where a score fell since its "
            "task was learned. The table below has the numbers."
        )
        matrix, largest = self.matrices[number], largest_changes(self.matrices)
        return save(self.folder, name, title, alt, lambda axes: draw_matrix(matrix, largest, axes), height, width)

    def over_stages(self) -> list[Plot]:
        """Draw the score of every task over the stages, with standard errors."""
        longest = max((run.matrix for run in self.runs), key=len, default=[])

        def prepare(axes: Any) -> None:
            axes.set_xticks([row.stage for row in longest], [row.title for row in longest], rotation=30, ha="right")
            axes.set_xlabel("after stage")

        def line(run: RunData, task: str) -> Scored:
            scores = {row.stage: row.scores[task] for row in run.matrix if task in row.scores}
            errors = [math.nan if score.stderr is None else score.stderr for score in scores.values()]
            return list(scores), [score.score for score in scores.values()], errors

        return self._by_task("score-over-stages", "over the stages", line, prepare)

    def over_steps(self) -> list[Plot]:
        """Draw the score of every task over the optimizer steps; nothing if no score lies inside a stage."""
        if not any(stage.inside for run in self.runs for stage in run.stages):
            return []

        def line(run: RunData, task: str) -> Scored:
            return *over_steps(run, task), None

        return self._by_task("score-over-steps", "over the optimizer steps", line, self._steps)

    def trade_offs(self, points: Mapping[str, list[TradeOff | None]]) -> list[Plot]:
        """Draw old against new score, a point per run and a figure per kind of old score."""
        return [
            self._trade_off(kind, [(number, point) for number, point in enumerate(by_run) if point])
            for kind, by_run in points.items()
        ]

    def _trade_off(self, kind: str, points: list[tuple[int, TradeOff]]) -> Plot:
        def draw(axes: Any) -> None:
            for number, point in points:
                color, place = style(number)["color"], (point.new.score, point.old.score)
                axes.errorbar(*place, xerr=point.new.stderr, yerr=point.old.stderr, ecolor=color, fmt="none")
                axes.plot(*place, marker(number), color=color, markersize=8, label=wrapped(self.labels[number]))
            axes.set_xlabel(f"new: {points[0][1].new.unit}")
            axes.set_ylabel(f"old: {points[0][1].old.unit}")
            axes.margins(0.15)
            legend(axes, len(points))

        alt = f"A point per run: all stages' tasks when learned against {kind} at the end; up and right is better."
        title, height = f"All stages' tasks against {kind}", 2.7 + extra_height([self.labels[n] for n, _ in points])
        return save(self.folder, self.name("old-against-new", kind), title, alt, draw, height)

    def watched(self, groups: Sequence[Watched]) -> list[Plot]:
        """Draw the old score that was lost against the drift, a point per stage, the markers by run."""
        return [self._watched(group) for group in groups]

    def _watched(self, group: Watched) -> Plot:
        runs = dict.fromkeys(point.run for point in group.points)
        shown = len(runs) <= len(COLORS)

        def draw(axes: Any) -> None:
            for place, run in enumerate(runs):
                points = [point for point in group.points if point.run == run]
                x, y = [point.drift for point in points], [point.lost for point in points]
                errors = [math.nan if point.stderr is None else point.stderr for point in points]
                look = {"color": style(place)["color"]} if shown else {"color": COLORS[0], "alpha": 0.6}
                label = wrapped(self.labels[run]) if shown else None
                axes.errorbar(x, y, yerr=errors, fmt=marker(place if shown else 0), label=label, elinewidth=0.8, **look)
            axes.axhline(0, color="0.7", linewidth=0.8)
            axes.set_xlabel("drift in nats per token")
            axes.set_ylabel(f"lost: {group.unit}")
            axes.margins(0.1)
            legend(axes, len(runs) if shown else 0)

        title = f"{group.stream}: drift from {SINCE[group.since]} against loss of {group.kind}"
        alt = f"{title}, a point per stage of {len(runs)} runs; Spearman's correlation is {group.found.spearman:.2f}."
        height = 2.7 + extra_height([self.labels[run] for run in runs] if shown else [])
        name = self.name("drift-against-loss", group.stream, group.since, group.kind)
        return save(self.folder, name, title, alt, draw, height)

    def streams(self, group: str, unit: str, only: Callable[[str], bool] = lambda name: True) -> list[Plot]:
        """Draw `loss`, `weight` or `drift` over the optimizer steps, by stream; `only` chooses streams by name."""
        by_run = [{n: parts for n, parts in by_stream(run, group).items() if only(n)} for run in self.runs]
        word, names = group.capitalize(), dict.fromkeys(name for streams in by_run for name in streams)
        figures: list[tuple[str, str, list[tuple[str, Parts]]]]
        if self.several:
            pairs = list(zip(self.labels, by_run, strict=True))
            figures = [(f"{word}: {n}", n, [(label, streams.get(n, [])) for label, streams in pairs]) for n in names]
        else:
            figures = [(f"{word} by stream", "", list(streams.items())) for streams in by_run]
        plots = [
            self._lines(self.name(group, name), title, f"{title} in {unit} over the optimizer steps", unit, lines,
                        HEIGHT, self._steps, _stream_line)
            for title, name, lines in figures
        ]  # fmt: skip
        return [plot for plot in plots if plot]

    def seconds(self) -> Plot | None:
        """Draw the seconds by phase, a bar per run; None if no time was recorded."""
        phases = dict.fromkeys(phase for run in self.runs for phase in run.summary["seconds"])
        if not any(sum(run.summary["seconds"].values()) > 0 for run in self.runs):
            return None

        def draw(axes: Any) -> None:
            left = [0.0] * len(self.runs)
            for number, phase in enumerate(phases):
                widths = [run.summary["seconds"].get(phase, 0.0) for run in self.runs]
                axes.barh(range(len(self.runs)), widths, left=left, label=phase, color=style(number)["color"],
                          edgecolor="white", height=0.6)  # fmt: skip
                left = [a + b for a, b in zip(left, widths, strict=True)]
            numbers = [str(number) for number in range(1, len(self.runs) + 1)]
            axes.set_yticks(range(len(self.runs)), numbers if self.several else [""])
            axes.set_ylabel("run" if self.several else "")
            axes.invert_yaxis()
            axes.set_xlabel("seconds")
            legend(axes, 2)

        alt = "Seconds by phase, a bar per run in the order of the table below, which has the numbers."
        height = 1.1 + 0.35 * len(self.runs) + extra_height([*phases, ""])
        return save(self.folder, self.name("seconds"), "Seconds by phase", alt, draw, height)

    def _steps(self, axes: Any) -> None:
        """Label the axis of optimizer steps, and mark the borders of the stages if all runs share them."""
        axes.set_xlabel("optimizer step")
        by_run = [[(stage.first, stage.name) for stage in run.stages] for run in self.runs]
        longest = max(by_run, key=len)
        if all(stages == longest[: len(stages)] for stages in by_run):
            borders(axes, longest)

    def _by_task(
        self, name: str, over: str, line: Callable[[RunData, str], Scored], prepare: Callable[[Any], None]
    ) -> list[Plot]:
        """Draw a figure per unit with a line per task, or of several runs a figure per task with a line per run."""
        tasks = dict.fromkeys(task for run in self.runs for task in run.summary["tasks"])
        units = {task: next(run.unit(task) for run in self.runs if task in run.summary["tasks"]) for task in tasks}
        if self.several:
            pairs = list(zip(self.labels, self.runs, strict=True))
            figures = [(f"{t} {over}", t, units[t], [(label, line(run, t)) for label, run in pairs]) for t in tasks]
        else:
            figures = [
                (f"Score {over} ({unit})", unit, unit, [(t, line(self.runs[0], t)) for t in tasks if units[t] == unit])
                for unit in dict.fromkeys(units.values())
            ]
        plots = [
            self._lines(self.name(name, group), title, f"{title}, in {unit}", unit,
                        [(label, [part] if part[0] else []) for label, part in lines],
                        HEIGHT + 0.3, prepare, _score_line)
            for title, group, unit, lines in figures
        ]  # fmt: skip
        return [plot for plot in plots if plot]

    def _lines(
        self, name: str, title: str, about: str, unit: str, lines: list[tuple[str, Parts]], height: float,
        prepare: Callable[[Any], None], draw_line: DrawLine,
    ) -> Plot | None:  # fmt: skip
        """Draw the lines that have parts; None if there are none. A line looks the same whichever others are left out.

        `about` begins the text for readers who cannot see the figure.
        """
        drawn = [(number, label, parts) for number, (label, parts) in enumerate(lines) if parts]
        if not drawn:
            return None

        def draw(axes: Any) -> None:
            prepare(axes)
            axes.set_ylabel(unit)
            for number, label, parts in drawn:
                draw_line(axes, number, wrapped(label), parts)
            legend(axes, len(drawn))

        ends = "; ".join(f"{label} ends at {parts[-1][1][-1]:.4g}" for _, label, parts in drawn)
        height += extra_height([label for _, label, _ in drawn])
        return save(self.folder, name, title, f"{about}; {ends}.", draw, height)


def _score_line(axes: Any, number: int, label: str, parts: Parts) -> None:
    for x, y, errors in parts:
        axes.errorbar(x, y, yerr=errors, label=label, marker=marker(number), capsize=3, **style(number))
    axes.margins(y=0.1)


def _stream_line(axes: Any, number: int, label: str, parts: Parts) -> None:
    for part, (steps, values, errors) in enumerate(parts):
        x, y = thin(steps, values)
        few = marker(number) if len(x) < 12 else None
        axes.plot(x, y, marker=few, label=None if part else label, **style(number))
        if errors is not None:
            below, above = ([a + sign * b for a, b in zip(y, thin(steps, errors)[1], strict=True)] for sign in (-1, 1))
            axes.fill_between(x, below, above, alpha=0.2, linewidth=0, color=style(number)["color"])
