"""`python -m benchmarks.arithmetic.capacity`: measure how size, saturation and rate change forgetting; resumable.

After Marek et al. 2026 (2605.26097): models of two sizes, trained for two lengths of time, learn a second task at five
learning rates, without replay and with the KL on real rows of the first. Coefficient 10 is that of the paper's grid of
learning rates, a quarter of the task's rows that of its other experiments; for size and length it takes the best of
several coefficients, and brings all sizes to one start loss, where here they get the same steps. Arms are compared on
the old score that is lost when the new one first reaches a target.
"""

import math
from pathlib import Path
from typing import Any

from benchmarks import sweeps
from benchmarks.methods.figures import at_new_score
from continual.config.yaml_text import yaml_text
from continual.show.plots import marker, style
from continual.show.report.gather import over_steps

HERE = Path(__file__).resolve().parent
NAME = "capacity"
SIZES = {
    "0.1M": {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 176},
    "0.4M": {"hidden": 128, "layers": 2, "heads": 4, "intermediate": 352},
}
LENGTHS = {"short": 150, "long": 1600}
"""Optimizer steps of the first task."""
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
TARGET = -0.62
"""New score, nats per token, negated. A document predicts 16 tokens, four of them random digits: at best
-4 ln(10) / 16 = -0.576."""
REVERSAL = {
    "type": "python",
    "function": "benchmarks.arithmetic.tasks:rows",
    "arguments": {"task": "reversal", "digits": 4, "count": 10240, "seed": 1},
}
REPLAY = [{"type": "pretraining_subset", "data": REVERSAL, "loss": "kl", "weight": 10.0, "ratio": 0.25}]


def bases() -> dict[str, tuple[str, int, dict[str, int]]]:
    """Return {name of a model: (name of its run, optimizer steps, arguments of its builder)}."""
    return {
        f"{size} {length}": (f"capacity-base-{size.lower()}-{length}", steps, arguments)
        for size, arguments in SIZES.items()
        for length, steps in LENGTHS.items()
    }


def ablation(storage: Path) -> dict[str, Any]:
    """Return the sweep over models, replay and learning rates."""
    models = {name: str(storage / run / "stages" / "1-reversal" / "model") for name, (run, _, _) in bases().items()}
    space = {
        "model.source": {"named": models},
        "mitigation": {"named": {"none": [], "replay": REPLAY}},
        "train.learning_rate": {"grid": list(RATES)},
    }
    return {"name": NAME, "sequence": str(HERE / "capacity.yaml"), "space": space, "metric": ["old", "new"]}


def collect(trials: list[sweeps.Trial]) -> dict[str, Any]:
    """Return every trial with its (new, old) scores from the start model on, and the old score at the target."""
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
    """Return the old score lost at the target and the steps to it, a row per model and arm, a column per learning
    rate."""
    rows = results["trials"]
    rates = list(dict.fromkeys(row["learning_rate"] for row in rows))
    lines = ["| model | old score before | replay | " + " | ".join(f"{rate:g}" for rate in rates) + " |"]
    lines.append("|" + "---|" * (3 + len(rates)))
    for model, arm in dict.fromkeys((row["model"], row["arm"]) for row in rows):
        by_rate = {row["learning_rate"]: row for row in rows if (row["model"], row["arm"]) == (model, arm)}
        start = next(iter(by_rate.values()))["start"]
        cells = [_lost(by_rate[rate]) if rate in by_rate else "-" for rate in rates]
        lines.append(f"| {model} | {start:.3f} | {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Old score lost when the new one first reaches {results['target']:g} (after this many steps), nats per token,",
        "one seed; columns: learning rates of the second task. `not reached`: not in the steps of the stage.",
    ]
    return "\n".join(lines)


def _lost(row: dict[str, Any]) -> str:
    if row["old_at_target"] is None:
        return "not reached"
    lost = round(row["start"] - row["old_at_target"], 3) + 0.0  # no -0.000
    return f"{lost:.3f} ({row['steps_to_target']})"


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per model: old score lost at equal new score over the learning rate, a line per arm; a rate that did
    not reach the new score has no point."""
    rows = results["trials"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    all_rates = [row["learning_rate"] for row in rows]

    def draw(panel: int, axes: Any) -> None:
        for number, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
            shown = [row for row in rows if (row["model"], row["arm"]) == (models[panel], arm)]
            lost = [math.nan if row["old_at_target"] is None else row["start"] - row["old_at_target"] for row in shown]
            rates = [row["learning_rate"] for row in shown]
            axes.plot(rates, lost, marker=marker(number), label=arm, **style(number))
        axes.set_xscale("log")
        axes.set_xlim(min(all_rates) / 1.3, max(all_rates) * 1.3)
        axes.set_xlabel("learning rate")
        if panel == 0:
            axes.set_ylabel("old score lost, nats per token")
            axes.legend()

    sweeps.figure(path, models, 2.8, 3.2, draw)


def main() -> None:
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results")
    for run, steps, arguments in bases().values():
        settings = [f"model.arguments.{key}={value}" for key, value in arguments.items()]
        more = [f"name={run}", f"storage={options.storage}", f"stages.0.steps={steps}", *settings]
        if code := sweeps.call("continual.run", HERE / "capacity_base.yaml", *more):
            raise SystemExit(code)
    sweep = options.storage / f"{NAME}.yaml"
    sweep.write_text(yaml_text(ablation(options.storage)))
    code = sweeps.tune(sweep, options)
    results = collect(sweeps.trials(NAME, options.storage))
    sweeps.finish(NAME, options.output, results, table(results), plot, code)


if __name__ == "__main__":
    main()
