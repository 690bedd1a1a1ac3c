"""`python -m benchmarks.arithmetic.four_tasks [--short|--published]`: four tasks in a row, five arms, three seeds.

After Marek et al. 2026 (2605.26097), sized for two cores; `--published` has the size of the paper, two arms and one
seed, for a GPU. Runs the sweep with `continual.tune`, then writes a table and a plot of accuracy over steps. Resumable.
"""

from pathlib import Path
from typing import Any

from benchmarks import record, sweeps
from continual.show.plots import borders, style
from continual.show.report.gather import over_steps
from continual.sweep.results import mean_error

HERE = Path(__file__).resolve().parent
SWEEPS = {
    "four-tasks": "four_tasks_arms.yaml",
    "four-tasks-short": "four_tasks_short.yaml",
    "published": "published_arms.yaml",
}
TASKS = ("add", "reversal", "sort", "modadd")


def collect(trials: list[sweeps.Trial]) -> dict[str, Any]:
    """Return, for every arm and seed, the final accuracies, the figures, and the accuracies over the steps."""
    arms: dict[str, Any] = {}
    for trial in trials:
        new = {"seeds": [], "final": {t: [] for t in TASKS}, "figures": {}, "curves": {t: [] for t in TASKS}}
        arm = arms.setdefault(trial.point["mitigation"], new)
        arm["seeds"].append(trial.seed)
        for name in ("average_score", "forgetting", "backward_transfer", "learning_accuracy"):
            arm["figures"].setdefault(name, []).append(trial.run.summary[name])
        for task in TASKS:
            arm["final"][task].append(trial.final(task))
            steps, scores = over_steps(trial.run, task)
            arm["curves"][task].append({"steps": steps, "scores": scores})
    starts = [stage.first for stage in trials[0].run.stages]
    return {"arms": arms, "stages": dict(zip(TASKS, starts, strict=True)), "limit": _limit(trials[0])}


def _limit(trial: sweeps.Trial) -> int:
    return int(trial.run.summary["matrix"][-1]["scores"][TASKS[0]]["n"])


def table(results: dict[str, Any]) -> str:
    """Return the means over the seeds with standard errors, a row per arm."""
    head = ["arm", "seeds", *TASKS, "average score", "forgetting", "learning accuracy"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, arm in results["arms"].items():
        figures = [arm["figures"][key] for key in ("average_score", "forgetting", "learning_accuracy")]
        cells = [str(len(arm["seeds"])), *(record.cell(values) for values in [*arm["final"].values(), *figures])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += ["", f"Exact match on {results['limit']} held-out inputs after the last stage, mean ± standard error."]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per arm: accuracy of each task over optimizer steps, mean over seeds, and a thin line per seed."""
    arms, stages = results["arms"], results["stages"]

    def draw(panel: int, axes: Any) -> None:
        borders(axes, [(first, str(number)) for number, first in enumerate(stages.values(), 1)])
        for number, task in enumerate(TASKS):
            curves = list(arms.values())[panel]["curves"][task]
            for curve in curves:
                axes.plot(curve["steps"], curve["scores"], color=style(number)["color"], alpha=0.3, linewidth=0.8)
            means = [mean_error(list(scores))[0] for scores in zip(*(curve["scores"] for curve in curves), strict=True)]
            axes.plot(curves[0]["steps"], means, label=f"{number + 1} {task}", **style(number))
        axes.set_xlabel("optimizer step")
        if panel == 0:
            axes.set_ylabel("accuracy")
            axes.legend()

    sweeps.figure(path, list(arms), 3.2, 3.4, draw)


def main() -> None:
    flags = {"short": "two arms and one seed", "published": "the same two at the published size, for a GPU"}
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results", **flags)
    name = "published" if options.published else "four-tasks-short" if options.short else "four-tasks"
    code = sweeps.tune(HERE / SWEEPS[name], options)
    results = collect(sweeps.trials(name, options.storage))
    sweeps.finish(name, options.output, results, table(results), plot, code)


if __name__ == "__main__":
    main()
