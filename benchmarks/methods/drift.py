"""`python -m benchmarks.methods.drift`: is a drift budget kept? Three budgets, parts of the plain arm's own drift.

The real model of the stories sequence, 500 steps at a constant learning rate, drift on 8,192 held-out tokens of the
model's own samples. Resumable like the table of methods.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.methods.arms import SEQUENCES, Mitigations, context_free
from benchmarks.methods.runs import ROOT, Arm, run_all
from continual.ledger.lines import read_lines
from continual.show import plots
from continual.sweep.results import mean_error

PARTS = (0.1, 0.3, 0.6)
LAST = 5
"""Measurements whose mean is compared with the budget."""
OVERRIDES = ("stages.0.steps=500", "train.batch_tokens=1024", "evaluate.every=null")
OWN = {"ratio": 1.0, "run_on": True, "samples": 1000, "held_out": 32}


def arm(name: str, mitigation: Mitigations, seed: int) -> Arm:
    return Arm(SEQUENCES["stories"], name, mitigation, seed, OVERRIDES)


def measurements(one: Arm, storage: Path) -> list[dict[str, float]]:
    """Step, drift and the weight of that step, at every measurement."""
    folder = storage / one.run_name / "stages" / one.sequence.stage
    return [
        {"step": r["step"], "drift": r["drift"]["context_free"], "weight": r["weight"]["context_free"]}
        for r in read_lines(folder / "metrics.jsonl")
        if "drift" in r
    ]


def verdict(path: list[dict[str, float]], budget: float) -> dict[str, Any]:
    """The mean of the last measurements against the budget; kept: within 25 % and two standard errors of it."""
    mean, error = mean_error([one["drift"] for one in path[-LAST:]])
    away = abs(mean - budget)
    return {
        "budget": budget,
        "drift": mean,
        "stderr": error,
        "off": mean / budget - 1,
        "kept": away <= 0.25 * budget + 2 * (error or 0.0),
        "weight": path[-1]["weight"],
        "path": path,
    }


def table(results: dict[str, Any]) -> str:
    lines = [
        "| part of the plain drift | budget | drift, last 5 | off | weight at the end | kept |",
        "|---|---|---|---|---|---|",
    ]
    for part, one in results["budgets"].items():
        lines.append(
            f"| {part} | {one['budget']:.4f} | {one['drift']:.4f} ±{one['stderr']:.4f} | {100 * one['off']:+.1f} % "
            f"| {one['weight']:.3f} | {'yes' if one['kept'] else 'NO'} |"
        )
    return "\n".join([*lines, "", f"nats per token; plain fine-tuning drifts by {results['plain_drift']:.4f}."])


def plot(results: dict[str, Any], path: Path) -> None:
    """Drift and weight over the steps, a color per budget, the budget dashed."""
    with plots.figure(8, 7) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for number, (part, one) in enumerate(results["budgets"].items()):
            steps, color = [m["step"] for m in one["path"]], plots.style(number)["color"]
            upper.plot(steps, [m["drift"] for m in one["path"]], color=color, label=f"{part} of the plain drift")
            upper.axhline(one["budget"], color=color, linestyle="--", linewidth=1)
            lower.plot(steps, [m["weight"] for m in one["path"]], color=color)
        upper.set_ylabel("drift, nats per token (dashed: budget)")
        upper.legend()
        lower.set(ylabel="weight", xlabel="optimizer step", yscale="log")
        figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "methods" / "results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    options = parser.parse_args()
    storage = options.storage.resolve()
    # Replay of no weight is plain fine-tuning whose drift is measured.
    plain = arm("drift plain", [context_free(**OWN, weight=0.0)], options.seed)
    failed = run_all([plain], storage, 1, print)
    drift = measurements(plain, storage)[-1]["drift"] if not failed else 0.0
    arms = {
        part: arm(f"drift {part}", [context_free(**OWN, weight="auto", drift_budget=part * drift)], options.seed)
        for part in PARTS
        if not failed
    }
    if failed := failed | run_all(arms.values(), storage, options.jobs, print):
        raise SystemExit(f"failed: {failed}")
    results = {
        "plain_drift": drift,
        "budgets": {str(part): verdict(measurements(one, storage), part * drift) for part, one in arms.items()},
    }
    record.write(results, table(results), options.output, "drift")
    plot(results, options.output / "drift.png")
    print(table(results))


if __name__ == "__main__":
    main()
