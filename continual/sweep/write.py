"""The files that a sweep leaves: `sweep.json`, `table.md`, `pareto.png`, `best.yaml`."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from continual.config.schema import Track
from continual.store.files import write_atomic
from continual.sweep.results import NEW, OLD, Outcome, PointResult, as_json, point_results
from continual.sweep.schema import Ablation, LoadedAblation
from continual.sweep.space import described, label, short_keys
from continual.sweep.trials import higher_is_better

TITLES = {OLD: "old score", NEW: "new score"}
FRONT = "*"


def write_results(folder: Path, source: LoadedAblation, outcomes: list[Outcome]) -> tuple[str, list[PointResult]]:
    """Write all files that the outcomes allow; returns the table as text, and the points."""
    ablation = source.ablation
    points = point_results(outcomes, ablation.metric)
    text = report(ablation, outcomes, points)
    write_atomic(folder / "sweep.json", as_json(outcomes, points, ablation.metric))
    write_atomic(folder / "table.md", f"# {ablation.name}\n\n{text}\n")
    pareto_figure(points, folder / "pareto.png")
    best = next((point for point in points if point.best), None)
    if best is not None:
        write_atomic(folder / "best.yaml", best_yaml(source, best, outcomes))
    return text, points


def report(ablation: Ablation, outcomes: list[Outcome], points: list[PointResult]) -> str:
    """The table of points, what its marks mean, and every trial that is not done with its reason."""
    lines = table(ablation, points)
    if any(point.front for point in points):
        lines += ["", f"{FRONT} no other point is better on the old score and the new one (see pareto.png)"]
    best = next((point for point in points if point.best), None)
    if best is not None:
        direction = "highest" if higher_is_better(ablation.metric[0]) else "lowest"
        lines += ["", f"best: the {direction} {ablation.metric[0]}, {described(best.point)}"]
    counts = Counter(one.state for one in outcomes)
    samples = {name for one in outcomes for name in one.summary.get("samples", [])}
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    sets = f"{len(samples)} sample set{'s' * (len(samples) != 1)}"
    lines += ["", f"{len(outcomes)} trials: {states}; {sets}"]
    lines += [f"- {one.trial.title}: {one.why}" for one in outcomes if one.state == "stopped"]
    lines += [f"- {one.trial.title}: failed: {one.why}" for one in outcomes if one.state == "failed"]
    return "\n".join(lines)


def table(ablation: Ablation, points: list[PointResult]) -> list[str]:
    """Lines of a Markdown table, aligned: a point, its seeds, means with standard errors over them, marks."""
    wanted = dict.fromkeys([*ablation.metric, "average_score", "forgetting", "forgetting_old", OLD, NEW])
    columns = [name for name in wanted if any(name in point.values for point in points)]
    short = short_keys(ablation.space)
    rows = [[*short.values(), "seeds", *(TITLES.get(name, name) for name in columns), ""]]
    for point in points:
        marks = [FRONT] * point.front + ["best"] * point.best
        seeds = str(point.n) if point.n == point.of else f"{point.n} of {point.of}"
        cells = [_cell(point.values.get(name)) for name in columns]
        rows.append([*(label(value) for value in point.point.values()), seeds, *cells, " ".join(marks)])
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[at]) for row in rows)) for at in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(f'{c:<{w}}' for c, w in zip(row, widths, strict=True))} |" for row in rows]


def _cell(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "-"
    mean, error = value
    return f"{mean:.3f}" + ("" if error is None else f" ±{error:.3f}")


def pareto_figure(points: list[PointResult], path: Path) -> None:
    """Old against new score as PNG: every point with its standard errors, the front joined. Nothing without scores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: it keeps global state and belongs to the main thread

    shown = [point for point in points if OLD in point.values and NEW in point.values]
    if not shown:
        path.unlink(missing_ok=True)
        return
    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for point in shown:
        (new, new_error), (old, old_error) = point.values[NEW], point.values[OLD]
        # Colours of Okabe and Ito, which read the same with colour-vision deficiencies; the form tells it as well.
        style: dict[str, Any] = {"fmt": "o", "color": "#0072B2"} if point.front else {"fmt": "x", "color": "#767676"}
        axes.errorbar(new, old, xerr=new_error, yerr=old_error, capsize=2, **style)
        axes.annotate(described(point.point), (new, old), xytext=(4, 4), textcoords="offset points", fontsize=7)
    front = sorted((point.values[NEW][0], point.values[OLD][0]) for point in shown if point.front)
    axes.plot([new for new, _ in front], [old for _, old in front], "--", color="#0072B2", linewidth=1)
    axes.margins(x=0.2, y=0.1)  # room for the names
    axes.set_xlabel("new score: the last stage's tasks")
    axes.set_ylabel("old score: what was known before")
    axes.set_title("means over seeds; o: on the Pareto front, x: not", fontsize=9)
    figure.savefig(path, format="png")


def best_yaml(source: LoadedAblation, best: PointResult, outcomes: list[Outcome]) -> str:
    """The best point as a sequence of its own name, with the first of its seeds that is done."""
    trial = next(one.trial for one in outcomes if one.trial.point == best.point and one.state == "done")
    config = dict(trial.loaded.resolved)
    track = Track.model_validate(config["track"])
    swept = {"sweep", *trial.point, "seed"}
    left = {key: {k: v for k, v in getattr(track, key).items() if k not in swept} for key in ("tags", "params")}
    config |= {"name": f"{source.ablation.name}-best", "track": {**config["track"], **left}}
    values = ", ".join(f"{metric} {_cell(best.values[metric])}" for metric in source.ablation.metric)
    head = [
        f"# The best point of the sweep {source.ablation.name} ({source.file}), {described(best.point)}:",
        f"# {values} over {best.n} {'seed' if best.n == 1 else 'seeds'}. Run it with",
        "#   python -m continual.run best.yaml",
    ]
    return "\n".join(head) + "\n" + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
