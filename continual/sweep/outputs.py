"""Write the files that a sweep leaves: `sweep.json`, `table.md`, `pareto.png`, `best.yaml`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.config.measured import LEAST_GAIN
from continual.config.schema import Track
from continual.config.yaml_text import yaml_text
from continual.show import plots
from continual.show.terminal import Terminal
from continual.store.files import write_atomic
from continual.sweep.points import Point, described, label, short_keys
from continual.sweep.results import FLATTERING, Outcome, PointResult, best_of, point_results
from continual.sweep.spec import Ablation, LoadedAblation
from continual.sweep.trials import NEW, OLD, higher_is_better

TITLES = {OLD: "old score", NEW: "new score"}
FRONT, LITTLE = "*", "learned little"
COLOR, GREY = plots.COLORS[0], "#767676"
LINE = 0.2
"""Inches that a name in the figure takes."""


@dataclass(frozen=True)
class Written:
    """What was found: `text` is printed, `points` were compared, `metrics` are numbers for the tracker."""

    text: str
    points: list[PointResult] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """What a sweep leaves: `write` writes it all. `files` are the names of the files that the tracker keeps.

    While `lacks` says that something is to be measured beside the runs, `measure` does that in the cluster, whose
    resources it gets, before `write`.
    """

    write: Callable[[Path, LoadedAblation, list[Outcome]], Written]
    files: tuple[str, ...]
    lacks: Callable[[list[Outcome]], bool] = lambda outcomes: False
    measure: Callable[[list[Outcome], Mapping[str, float], Terminal], None] = lambda *given: None


def write_results(folder: Path, source: LoadedAblation, outcomes: list[Outcome]) -> Written:
    """Write all files that the outcomes allow; return the table as text, and the points."""
    ablation = source.ablation
    points = point_results(outcomes, ablation.metric, ablation.trade_off)
    text = report(ablation, outcomes, points)
    write_atomic(folder / "sweep.json", as_json(outcomes, points, ablation.metric))
    write_atomic(folder / "table.md", f"# {ablation.name}\n\n{text}\n")
    pareto_figure(points, folder / "pareto.png")
    if best := best_of(points):
        write_atomic(folder / "best.yaml", best_yaml(source, best, outcomes))
    return Written(text, points)


COMPARISON = Results(write_results, ("sweep.json", "table.md", "pareto.png", "best.yaml"))
"""What a sweep leaves that compares points."""


def report(ablation: Ablation, outcomes: list[Outcome], points: list[PointResult]) -> str:
    """Return the table of points, what its marks mean, and every trial that was stopped or failed, with the reason."""
    lines = table(ablation, points)
    if any(point.front for point in points):
        lines += ["", f"{FRONT} no other point is better on the old score and the new one (see pareto.png)"]
    if not all(point.learned for point in points):
        part = f"less than {LEAST_GAIN:.0%} of what the point that learned most gained"
        lines += ["", f"{LITTLE}: its stages' tasks gained {part}; it has little to forget, and is never the best"]
    if best := best_of(points):
        lines += ["", f"best: {_rule(ablation, best)}, {described(best.point)}"]
    states = ", ".join(f"{count} {state}" for state, count in Counter(each.state for each in outcomes).items())
    sets = len(_sample_sets(outcomes))
    lines += ["", f"{len(outcomes)} trials: {states}; {sets} sample set{'s' * (sets != 1)}"]
    lines += [f"- {each.trial.title}: {each.why}" for each in outcomes if each.state == "stopped"]
    lines += [f"- {each.trial.title}: failed: {each.why}" for each in outcomes if each.state == "failed"]
    return "\n".join(lines)


def _rule(ablation: Ablation, best: PointResult) -> str:
    """Return in words by what the best point was chosen (`point_results`)."""
    if ablation.trade_off and best.front:
        return (
            "the trade-off, the highest mean of old and new score on the front, each scaled from its lowest to highest"
        )
    direction = "highest" if higher_is_better(ablation.metric[0]) else "lowest"
    return f"the {direction} {ablation.metric[0]}{' on the front' * (ablation.metric[0] in FLATTERING and best.front)}"


def _sample_sets(outcomes: list[Outcome]) -> set[str]:
    return {name for each in outcomes for name in each.summary.get("samples", [])}


def table(ablation: Ablation, points: list[PointResult]) -> list[str]:
    """Return the lines of a Markdown table: each point, its seeds, means with standard errors over them, and marks."""
    wanted = dict.fromkeys([*ablation.metric, "average_score", "forgetting", "forgetting_old", OLD, NEW])
    columns = [name for name in wanted if any(name in point.values for point in points)]
    rows = [[*short_keys(ablation.space).values(), "seeds", *(TITLES.get(name, name) for name in columns), ""]]
    for point in points:
        marks = [FRONT] * point.front + ["best"] * point.best + [LITTLE] * (not point.learned)
        seeds = str(point.n) if point.n == point.of else f"{point.n} of {point.of}"
        cells = [_cell(point.values.get(name)) for name in columns]
        rows.append([*(label(value) for value in point.point.values()), seeds, *cells, " ".join(marks)])
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(f'{c:<{w}}' for c, w in zip(row, widths, strict=True))} |" for row in rows]


def _cell(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "-"
    mean, error = value
    return f"{mean:.3f}" + ("" if error is None else f" ±{error:.3f}")


def pareto_figure(points: list[PointResult], path: Path) -> None:
    """Draw old against new score as PNG, with standard errors and the front joined; without scores remove the file."""
    shown = [point for point in points if OLD in point.values and NEW in point.values]
    if not shown:
        path.unlink(missing_ok=True)
        return
    with plots.figure(8.0, max(4.8, 1.2 + LINE * len(shown))) as figure:
        draw_front(shown, figure.subplots())
        figure.savefig(path, format="png", dpi=plots.DPI)


def draw_front(points: list[PointResult], axes: Any) -> None:
    """Draw points that have both scores; marker and color both tell the front, what learned little, and the rest.

    The names stand in a column of their own to the right, in the order of the old scores, joined to their points: so
    that no two lie on each other, however close the points are.
    """
    front = sorted((point.values[NEW][0], point.values[OLD][0]) for point in points if point.front)
    axes.plot([new for new, _ in front], [old for _, old in front], "--", color=COLOR, linewidth=1)
    for point in points:
        (new, new_error), (old, old_error) = point.values[NEW], point.values[OLD]
        style: dict[str, Any] = {"fmt": "o", "color": COLOR} if point.front else {"fmt": "x", "color": GREY}
        if not point.learned:
            style = {"fmt": "v", "color": GREY, "markerfacecolor": "white"}
        axes.errorbar(new, old, xerr=new_error, yerr=old_error, capsize=2, **style)
        if point.best:
            axes.plot(new, old, "o", color=plots.COLORS[1], markersize=13, fillstyle="none")
    ranked = sorted(points, key=lambda point: point.values[OLD][0])
    for place, point in enumerate(ranked):
        notes = [" (best)"] * point.best + [f" ({LITTLE})"] * (not point.learned)
        axes.annotate(
            varied(point.point, points) + "".join(notes),
            (point.values[NEW][0], point.values[OLD][0]),
            xytext=(1.04, (place + 0.5) / len(ranked)), textcoords="axes fraction", va="center", fontsize=8,
            fontweight="bold" if point.best else "normal",
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 4},
        )  # fmt: skip
    axes.margins(0.1)
    axes.set_xlabel("new score: the last stage's tasks")
    axes.set_ylabel("old score: what was known before")
    axes.set_title("means over seeds; o: on the Pareto front, x: not, v: learned little; ring: best", fontsize=9)


def varied(point: Point, points: list[PointResult]) -> str:
    """Name a point by what varies among `points`: one key by its values alone, several as `key=value`."""
    short = short_keys(point)
    keys = [key for key in point if any(other.point.get(key) != point[key] for other in points)]
    if len(keys) == 1:
        return label(point[keys[0]])
    return " ".join(f"{short[key]}={label(point[key])}" for key in keys) or described(point)


def best_yaml(source: LoadedAblation, best: PointResult, outcomes: list[Outcome]) -> str:
    """Write the best point as a sequence with a name of its own, under the first of its seeds that is done."""
    trial = next(each.trial for each in outcomes if each.trial.point == best.point and each.state == "done")
    config = dict(trial.loaded.resolved)
    track = Track.model_validate(config["track"])
    swept = {"sweep", *trial.point, "seed"}
    kept = {key: {k: v for k, v in getattr(track, key).items() if k not in swept} for key in ("tags", "params")}
    config |= {"name": f"{source.ablation.name}-best", "track": {**config["track"], **kept}}
    values = ", ".join(f"{metric} {_cell(best.values[metric])}" for metric in source.ablation.metric)
    head = [
        f"# The best point of the sweep {source.ablation.name} ({source.file}), {described(best.point)}:",
        f"# {values} over {best.n} {'seed' if best.n == 1 else 'seeds'}. Run it with",
        "#   python -m continual.run best.yaml",
    ]
    return "\n".join(head) + "\n" + yaml_text(config)


def as_json(outcomes: list[Outcome], points: list[PointResult], metrics: list[str]) -> str:
    """Return `sweep.json`: every trial with its state and values, every point with means and standard errors."""
    summaries = [each.summary for each in outcomes if each.summary]
    stages = sum(len(summary["stages"]) for summary in summaries)
    content = {
        "metric": metrics,
        "sample_sets": len(_sample_sets(outcomes)),
        "stages": stages,
        "trained_stages": stages - sum(len(summary.get("reused_stages", [])) for summary in summaries),
        "trials": [
            {
                "name": each.trial.name,
                "point": each.trial.point,
                "seed": each.trial.seed,
                "state": each.state,
                "why": each.why,
                "values": each.values,
                "mlflow_run_id": each.summary.get("mlflow_run_id"),
            }
            for each in outcomes
        ],
        "points": [
            {
                "point": point.point,
                "n": point.n,
                "mean": {name: mean for name, (mean, _) in point.values.items()},
                "stderr": {name: error for name, (_, error) in point.values.items()},
                "gain": point.gain,
                "learned": point.learned,
                "front": point.front,
                "best": point.best,
            }
            for point in points
        ],
    }
    return json.dumps(content, indent=1)
