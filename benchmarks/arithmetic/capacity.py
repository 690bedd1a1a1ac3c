"""`python -m benchmarks.arithmetic.capacity`: how size, saturation and learning rate change forgetting; resumable.

After Marek et al. 2026 (2605.26097): models of two sizes, trained for two lengths of time, learn a second task at five
learning rates, without replay and with the KL on real rows of the first (coefficient 10, a quarter of the task's rows,
as published). Arms are compared on the old loss where the new loss first reaches a target.
"""

from pathlib import Path
from typing import Any

import yaml

from benchmarks import record, sweeps
from benchmarks.methods.figures import at_new_score
from continual.report.draw import marker, style
from continual.report.gather import over_steps

HERE = Path(__file__).resolve().parent
NAME = "capacity"
SIZES = {
    "0.1M": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 176},
    "0.4M": {"hidden": 128, "layers": 2, "heads": 4, "intermediate": 352},
}
LENGTHS = {"short": 400, "long": 1600}
"""Optimizer steps of the first task."""
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
TARGET = -0.62
"""New score, nats per token, negated. Four random digits in 17 tokens leave at best -4 ln(10) / 17 = -0.542."""
REVERSAL = {
    "type": "python",
    "rows": "benchmarks.arithmetic.tasks:rows",
    "arguments": {"task": "reversal", "digits": 4, "count": 10240, "seed": 1},
}
REPLAY = [{"type": "pretraining_subset", "data": REVERSAL, "loss": "kl", "weight": 10.0, "share": 0.25}]


def bases() -> dict[str, tuple[str, int, dict[str, int]]]:
    """{what a model is called: (name of its run, steps, arguments of its builder)}."""
    return {
        f"{size} {length}": (f"capacity-base-{size.lower()}-{length}", steps, arguments)
        for size, arguments in SIZES.items()
        for length, steps in LENGTHS.items()
    }


def ablation(storage: Path) -> dict[str, Any]:
    """The sweep over models, replay and learning rates."""
    models = {name: str(storage / run / "stages" / "1-reversal" / "model") for name, (run, _, _) in bases().items()}
    space = {
        "model.source": {"named": models},
        "mitigation": {"named": {"none": [], "replay": REPLAY}},
        "train.learning_rate": {"grid": list(RATES)},
    }
    return {"name": NAME, "sequence": str(HERE / "capacity.yaml"), "space": space, "metric": ["old", "new"]}


def collect(trials: list[sweeps.Trial]) -> dict[str, Any]:
    """Every trial with its way from the start model on, (new, old) score, and the old score at the target."""
    rows = []
    for trial in trials:
        (steps, new), (_, old) = (over_steps(trial.run, task) for task in ("new", "old"))
        curve = list(zip(new, old, strict=True))
        rows.append({
            "model": trial.point["model.source"],
            "arm": trial.point["mitigation"],
            "learning_rate": trial.point["train.learning_rate"],
            "start": old[0],
            "old_at_target": at_new_score(curve, TARGET),
            "steps_to_target": next((s for s, value in zip(steps, new, strict=True) if value >= TARGET), None),
            "end": {"new": new[-1], "old": old[-1]},
            "curve": curve,
        })  # fmt: skip
    return {"target": TARGET, "trials": rows}


def table(results: dict[str, Any]) -> str:
    """Old score at the target, a line per model and arm, a column per learning rate."""
    rows = results["trials"]
    rates = list(dict.fromkeys(row["learning_rate"] for row in rows))
    lines = ["| model | before | replay | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|" + "---|" * (3 + len(rates)))
    for model, arm in dict.fromkeys((row["model"], row["arm"]) for row in rows):
        mine = {row["learning_rate"]: row for row in rows if (row["model"], row["arm"]) == (model, arm)}
        first = next(iter(mine.values()))
        cells = [record.cell([mine[rate]["old_at_target"]]) if rate in mine else "-" for rate in rates]
        lines.append(f"| {model} | {first['start']:.3f} | {arm} | " + " | ".join(cells) + " |")
    lines += ["", f"Old score where the new one first reaches {results['target']:g}, nats per token, one seed;"]
    lines += ["columns: learning rates of the second task. Not extrapolated: `not reached` within the steps."]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """A panel per model: old score at equal new score over the learning rate, a line per arm."""
    rows = results["trials"]
    models = list(dict.fromkeys(row["model"] for row in rows))

    def draw(at: int, axes: Any) -> None:
        mine = [row for row in rows if row["model"] == models[at] and row["old_at_target"] is not None]
        for number, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
            points = [(row["learning_rate"], row["old_at_target"]) for row in mine if row["arm"] == arm]
            axes.plot(*zip(*points, strict=True), marker=marker(number), label=arm, **style(number)) if points else None
        axes.axhline(next(row["start"] for row in rows if row["model"] == models[at]), color="0.55", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        if at == 0:
            axes.set_ylabel("old score at equal new score")
            axes.legend()

    sweeps.figure(path, models, 2.8, 3.2, draw)


def main() -> None:
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results")
    for run, steps, arguments in bases().values():
        settings = [f"model.arguments.{key}={value}" for key, value in arguments.items()]
        more = [f"name={run}", f"storage={options.storage}", f"stages.0.steps={steps}", *settings]
        sweeps.call("continual.run", HERE / "capacity_base.yaml", *more)
    sweep = options.storage / f"{NAME}.yaml"
    sweep.write_text(yaml.safe_dump(ablation(options.storage), sort_keys=False))
    sweeps.tune(sweep, options)
    results = collect(sweeps.trials(NAME, options.storage))
    record.write(results, table(results), options.output, NAME)
    plot(results, options.output / f"{NAME}.png")
    print(table(results))


if __name__ == "__main__":
    main()
