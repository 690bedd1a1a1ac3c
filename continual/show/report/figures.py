"""The figures of a report: for one run a line per task or stream, for several a figure each with a line per run."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from continual.forgetting import tasks_of
from continual.show.plots import borders, draw_matrix, marker, matrix_size, style
from continual.show.report.draw import Plot, extra_height, legend, save, thin, wrapped
from continual.show.report.gather import RunData, by_stream, over_steps
from continual.show.report.trade_off import TradeOff

Line = tuple[Sequence[float], Sequence[float], Sequence[float] | None]
"""x, y, and standard errors of y."""
HEIGHT = 2.5


class Figures:
    """Draws the figures of `runs`, which are called `labels`, into `folder`."""

    def __init__(self, runs: Sequence[RunData], labels: Sequence[str], folder: Path):
        self.runs, self.labels, self.folder = runs, labels, folder
        self._names: set[str] = set()

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
        name = self.name("matrix", label) if len(self.runs) > 1 else self.name("matrix")
        alt = f"Heat map of the scores of {label}: a row per stage, a column per task. The table below has the numbers."
        title = label if len(self.runs) > 1 else "Heat map"
        return save(self.folder, name, title, alt, lambda axes: draw_matrix(run.matrix, axes), height, width)

    def over_stages(self) -> list[Plot]:
        """Draw the score of every task over the stages, with standard errors."""
        longest = max((run.matrix for run in self.runs), key=len)

        def prepare(axes: Any) -> None:
            axes.set_xticks([row.stage for row in longest], [row.title for row in longest], rotation=30, ha="right")
            axes.set_xlabel("after stage")

        return self._by_task("score-over-stages", "over the stages", _after_stages, prepare)

    def over_steps(self) -> list[Plot]:
        """Draw the score of every task over the optimizer steps; nothing if no score lies inside a stage."""
        if not any(stage.inside for run in self.runs for stage in run.stages):
            return []

        def line(run: RunData, task: str) -> Line | None:
            steps, values = over_steps(run, task)
            return (steps, values, None) if steps else None

        return self._by_task("score-over-steps", "over the optimizer steps", line, self._steps)

    def trade_offs(self, points: Mapping[str, list[TradeOff | None]]) -> list[Plot]:
        """Draw old against new score, a point per run and a figure per kind of old score."""
        plots = []
        for kind, by_run in points.items():
            drawn = [(number, point) for number, point in enumerate(by_run) if point is not None]

            def draw(axes: Any, drawn: list[tuple[int, TradeOff]] = drawn) -> None:
                for number, point in drawn:
                    color, place = style(number)["color"], (point.new, point.old)
                    axes.errorbar(*place, xerr=point.new_stderr, yerr=point.old_stderr, ecolor=color, fmt="none")
                    axes.plot(*place, marker(number), color=color, markersize=8, label=wrapped(self.labels[number]))
                first = drawn[0][1]
                axes.set_xlabel(f"new: {first.new_unit}")
                axes.set_ylabel(f"old: {first.old_unit}")
                axes.margins(0.15)
                legend(axes, len(drawn))

            alt = (
                f"A point per run: the score of the last stage's tasks against that of {kind}; up and right is better."
            )
            labels = [self.labels[number] for number, _ in drawn]
            plots.append(save(self.folder, self.name("old-against-new", kind), f"Last stage's tasks against {kind}",
                              alt, draw, 2.7 + extra_height(labels)))  # fmt: skip
        return plots

    def streams(self, group: str, unit: str, only: Callable[[str], bool] = lambda name: True) -> list[Plot]:
        """Draw `loss`, `weight` or `drift` over the optimizer steps, by stream; `only` chooses streams by name."""
        by_run = [{n: v for n, v in by_stream(run, group).items() if only(n)} for run in self.runs]
        names = list(dict.fromkeys(name for streams in by_run for name in streams))
        if not names:
            return []
        if len(self.runs) == 1:
            title = f"{group.capitalize()} by stream"
            lines = [(name, by_run[0][name]) for name in names]
            return [self._streams_plot(self.name(group), title, unit, lines)]
        return [
            self._streams_plot(
                self.name(group, name), f"{group.capitalize()}: {name}", unit,
                [(label, streams.get(name, [])) for label, streams in zip(self.labels, by_run, strict=True)],
            )
            for name in names
        ]  # fmt: skip

    def _streams_plot(
        self, name: str, title: str, unit: str, lines: list[tuple[str, list[tuple[list[int], list[float]]]]]
    ) -> Plot:
        def draw(axes: Any) -> None:
            self._steps(axes)
            axes.set_ylabel(unit)
            for number, (label, parts) in enumerate(lines):
                for part, (steps, values) in enumerate(parts):
                    x, y = thin(steps, values)
                    few = marker(number) if len(x) < 12 else None
                    axes.plot(x, y, marker=few, label=None if part else wrapped(label), **style(number))
            legend(axes, len(drawn))

        drawn = [label for label, parts in lines if parts]
        ends = [f"{label} ends at {parts[-1][1][-1]:.4g}" for label, parts in lines if parts]
        alt = f"{title} in {unit} over the optimizer steps; {'; '.join(ends)}."
        return save(self.folder, name, title, alt, draw, HEIGHT + extra_height(drawn))

    def seconds(self) -> Plot | None:
        """Draw the seconds by phase, a bar per run; None if no time was recorded."""
        phases = list(dict.fromkeys(phase for run in self.runs for phase in run.summary["seconds"]))
        if not any(sum(run.summary["seconds"].values()) > 0 for run in self.runs):
            return None

        def draw(axes: Any) -> None:
            left = [0.0] * len(self.runs)
            for number, phase in enumerate(phases):
                widths = [run.summary["seconds"].get(phase, 0.0) for run in self.runs]
                axes.barh(range(len(self.runs)), widths, left=left, label=phase, color=style(number)["color"],
                          edgecolor="white", height=0.6)  # fmt: skip
                left = [a + b for a, b in zip(left, widths, strict=True)]
            several = len(self.runs) > 1
            axes.set_yticks(range(len(self.runs)), [str(n + 1) for n in range(len(self.runs))] if several else [""])
            axes.set_ylabel("run" if several else "")
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
        self, name: str, title: str, line_of: Callable[[RunData, str], Line | None], prepare: Callable[[Any], None]
    ) -> list[Plot]:
        """Draw a figure per unit with a line per task, or of several runs a figure per task with a line per run."""
        tasks = list(dict.fromkeys(task for run in self.runs for task in run.summary["tasks"]))
        if len(self.runs) == 1:
            [run] = self.runs
            groups = [
                (unit, f"Score {title} ({unit})", unit, [(t, line_of(run, t)) for t in tasks if run.unit(t) == unit])
                for unit in dict.fromkeys(run.unit(task) for task in tasks)
            ]
        else:
            pairs = list(zip(self.labels, self.runs, strict=True))
            units = {task: next(run.unit(task) for run in self.runs if task in run.summary["tasks"]) for task in tasks}
            groups = [(t, f"{t} {title}", units[t], [(label, line_of(run, t)) for label, run in pairs]) for t in tasks]
        plots = [self._lines(self.name(name, group[0]), *group[1:], prepare) for group in groups]
        return [plot for plot in plots if plot]

    def _lines(
        self, name: str, title: str, unit: str, lines: list[tuple[str, Line | None]], prepare: Callable[[Any], None]
    ) -> Plot | None:
        drawn = [(number, label, line) for number, (label, line) in enumerate(lines) if line is not None]
        if not drawn:
            return None

        def draw(axes: Any) -> None:
            prepare(axes)
            axes.set_ylabel(unit)
            for number, label, (x, y, errors) in drawn:
                axes.errorbar(
                    x, y, yerr=errors, label=wrapped(label), marker=marker(number), capsize=3, **style(number)
                )
            axes.margins(y=0.1)
            legend(axes, len(drawn))

        ends = [f"{label} ends at {line[1][-1]:.4g}" for _, label, line in drawn]
        labels = [label for _, label, _ in drawn]
        return save(self.folder, name, title, f"{title}, in {unit}; {'; '.join(ends)}.", draw,
                    HEIGHT + 0.3 + extra_height(labels))  # fmt: skip


def _after_stages(run: RunData, task: str) -> Line | None:
    scores = {row.stage: row.scores[task] for row in run.matrix if task in row.scores}
    if not scores:
        return None
    errors = [math.nan if score.stderr is None else score.stderr for score in scores.values()]
    return list(scores), [score.score for score in scores.values()], errors
