"""From runs to `results/<sequence>.json`, the table and the plot of old against new score."""

from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.methods.arms import Sequence
from benchmarks.methods.figures import at_new_score
from benchmarks.methods.runs import Arm, Result, read
from benchmarks.record import cell
from continual.show import plots
from continual.sweep.results import mean_error

FORGETS = 5.0
"""Standard errors by which the plain arm must forget; else there is nothing to compare."""


def least_new(sequence: Sequence, plain: Arm, storage: Path) -> float:
    """The new score that a strength must leave: the plain arm's on the seed of the trials, less `sequence.cost`."""
    return read(plain, storage).final(sequence.new) - sequence.cost


def strongest(
    sequence: Sequence, plain: Arm, trials: dict[tuple[str, float], Arm], storage: Path, failed: dict[str, str]
) -> dict[str, float]:
    """The largest strength that costs at most `sequence.cost` of the plain arm's new score; else the least."""
    limit = least_new(sequence, plain, storage)
    found = {}
    for name, strengths in sequence.strengths.items():
        there = [s for s in strengths if trials[name, s].run_name not in failed]
        within = [s for s in there if read(trials[name, s], storage).final(sequence.new) >= limit]
        if there:
            found[name] = max(within) if within else min(there)
    return found


def curve(sequence: Sequence, result: Result) -> list[tuple[float, float]]:
    """(new, old) from the start of the last stage to its end; of an average, over its share of the new weights."""
    start = (result.before(sequence.new), result.before(sequence.old))
    end = (result.final(sequence.new), result.final(sequence.old))
    candidates = sorted(result.summary["candidates"], key=lambda one: one["name"])
    if candidates:
        points = [(c["scores"][sequence.new]["score"], c["scores"][sequence.old]["score"]) for c in candidates]
        return [start, *sorted([*points, end])]
    inside = [(scores[sequence.new], scores[sequence.old]) for _, scores in sorted(result.curve.items())]
    return [start, *inside, end]


def collect(
    sequence: Sequence,
    arms: list[Arm],
    plain: Arm,
    trials: dict[tuple[str, float], Arm],
    failed: dict[str, str],
    storage: Path,
) -> dict[str, Any]:
    """Everything that the table says, and the values of every seed behind it."""
    rows = {}
    for name in dict.fromkeys(arm.name for arm in arms):
        mine = [arm for arm in arms if arm.name == name and arm.run_name not in failed]
        if mine:
            rows[name] = _row(sequence, mine, storage)
    before, after = rows["plain"]["old_before"], rows["plain"]["old"]
    lost, error = mean_error([b - a for b, a in zip(before, after, strict=True)])
    sampling = max(rows["plain"]["old_stderr"])
    limit = FORGETS * max(sampling, error or 0.0)
    return {
        "sequence": sequence.name,
        "unit": sequence.unit,
        "new": sequence.new,
        "old": sequence.old,
        "target": sequence.target,
        "abilities": sequence.abilities,
        "seeds": sorted({arm.seed for arm in arms}),
        "plain_forgets": {"mean": lost, "stderr_over_seeds": error, "stderr_of_score": sampling, "void": lost < limit},
        "arms": rows,
        "trials": {
            arm.name: {"new": read(arm, storage).final(sequence.new), "old": read(arm, storage).final(sequence.old)}
            for arm in trials.values()
            if arm.run_name not in failed
        },
        "least_new": least_new(sequence, plain, storage),
        "left_out": sequence.left_out,
        "failed": failed,
    }


def _row(sequence: Sequence, arms: list[Arm], storage: Path) -> dict[str, Any]:
    results = [read(arm, storage) for arm in arms]
    row: dict[str, Any] = {
        "mitigation": arms[0].mitigation,
        "seeds": [arm.seed for arm in arms],
        "new": [result.final(sequence.new) for result in results],
        "old": [result.final(sequence.old) for result in results],
        "old_before": [result.before(sequence.old) for result in results],
        "old_stderr": [result.stderr(sequence.old) for result in results],
        "old_at_target": [at_new_score(curve(sequence, result), sequence.target) for result in results],
        "curves": [curve(sequence, result) for result in results],
        "train_seconds": [result.summary["seconds"].get("train") for result in results],
    }
    if sequence.abilities:
        count = len(sequence.abilities)
        row["abilities"] = [sum(map(result.final, sequence.abilities)) / count for result in results]
        row["abilities_before"] = [sum(map(result.before, sequence.abilities)) / count for result in results]
    return row


def table(results: dict[str, Any]) -> str:
    """The table as Markdown, best old score first."""
    abilities = any("abilities" in row for row in results["arms"].values())
    head = ["method", f"old: {results['old']}", f"new: {results['new']}", f"old where new is {results['target']:g}"]
    head += ["BLiMP"] if abilities else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = sorted(results["arms"].items(), key=lambda item: -mean_error(item[1]["old"])[0])
    for name, row in order:
        cells = [name, cell(row["old"]), cell(row["new"]), cell(row["old_at_target"])]
        cells += [cell(row["abilities"])] if abilities else []
        lines.append("| " + " | ".join(cells) + " |")
    forgets = results["plain_forgets"]
    lines.append("")
    lines.append(
        f"{results['unit']}, mean ± standard error over seeds {results['seeds']}. Before the stage the old score is "
        f"{cell(results['arms']['plain']['old_before'])}; plain fine-tuning loses {forgets['mean']:.3f}"
        + (", too little: THE TABLE IS VOID." if forgets["void"] else ".")
    )
    if abilities:
        before = cell(results["arms"]["plain"]["abilities_before"])
        lines[-1] += f" BLiMP is the mean of {' and '.join(results['abilities'])}, {before} before."
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(results))])


def notes(results: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know besides: strengths that cost too much, what is left out, what failed."""
    found = [
        f"{name} is the weakest tried; none left a new score of {results['least_new']:.3f} on the seed of the trials."
        for name, trial in results["trials"].items()
        if name in results["arms"] and trial["new"] < results["least_new"]
    ]
    found += [
        f"{name}: its right column is read between averages of other alphas, not on its way through training."
        for name, row in results["arms"].items()
        if any(item["type"] == "weight_average" for item in row["mitigation"])
    ]
    found += [f"{name} is left out: {why}." for name, why in results["left_out"].items()]
    return found + [f"{name} failed: {why}" for name, why in results["failed"].items()]


def plot(results: dict[str, Any], path: Path) -> None:
    """Old against new score: every arm's end with its errors, and its way there."""
    with plots.figure(10, 6.5) as figure:
        axes = figure.subplots()
        for number, (name, row) in enumerate(results["arms"].items()):
            new, old = mean_error(row["new"]), mean_error(row["old"])
            color = f"C{number % 10}"  # more arms than our own colors
            for points in row["curves"]:
                axes.plot(*zip(*points, strict=True), color=color, alpha=0.25, linewidth=1)
            axes.errorbar(
                new[0], old[0], xerr=new[1], yerr=old[1], color=color, label=name,
                marker="osD^vP*X"[number // 10 * 4 + number % 4], markersize=8, linestyle="none",
            )  # fmt: skip
        axes.axvline(results["target"], color="gray", linestyle=":", linewidth=1)
        axes.set_xlabel(f"new: {results['new']} ({results['unit']}; right is better)")
        axes.set_ylabel(f"old: {results['old']} ({results['unit']}; up is better)")
        axes.set_title(f"{results['sequence']}: old against new, ends with errors over seeds, and the way there")
        figure.legend(loc="outside right", fontsize=9)
        figure.savefig(path, dpi=120)


def write(results: dict[str, Any], output: Path) -> str:
    """`<sequence>.json`, `.md` and `.png` in `output`; returns the table."""
    text = table(results)
    record.write(results, text, output, results["sequence"])
    plot(results, output / f"{results['sequence']}.png")
    return text
