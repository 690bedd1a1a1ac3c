"""`python -m benchmarks.stories.temperature`: temperature and share of context-free replay, `nll` and `kl`; resumable.

The ablation that Bansal & Sanghavi 2025 (2505.13811) announce, on a real model moved to another text. Runs the sweep
with `continual.tune`, then writes a table and a plot. Needs the shared models and data, see texts.py.
"""

import os
from pathlib import Path
from typing import Any

from benchmarks import sweeps
from benchmarks.stories.lm_eval.documents import shared
from continual.show.plots import marker, style

HERE = Path(__file__).resolve().parent
NAME = "stories-temperature"
OLD, NEW = "tinystories", "shakespeare"


def collect(trials: list[sweeps.Trial]) -> dict[str, Any]:
    """Return every trial's point with its final scores, and the scores of the start model, which all trials share."""
    before = trials[0].run.summary["matrix"][0]["scores"]
    rows = [
        {
            **{key.rpartition(".")[2]: value for key, value in trial.point.items()},
            "old": trial.final(OLD),
            "new": trial.final(NEW),
            "old_stderr": trial.run.summary["matrix"][-1]["scores"][OLD]["stderr"],
        }
        for trial in trials
    ]
    return {"before": {"old": before[OLD]["score"], "new": before[NEW]["score"]}, "trials": rows}


def series(results: dict[str, Any]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Return {(loss, share): trials by rising temperature}."""
    lines: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in sorted(results["trials"], key=lambda row: (row["loss"], row["ratio"], row["temperature"])):
        lines.setdefault((row["loss"], row["ratio"]), []).append(row)
    return lines


def table(results: dict[str, Any]) -> str:
    """Return old and new score, a row per loss and share, a column per temperature."""
    temperatures = sorted({row["temperature"] for row in results["trials"]})
    lines = ["| loss | share | " + " | ".join(f"T = {temperature:g}" for temperature in temperatures) + " |"]
    lines.append("|" + "---|" * (2 + len(temperatures)))
    for (loss, share), rows in series(results).items():
        scores = {row["temperature"]: f"{row['old']:.3f} / {row['new']:.3f}" for row in rows}
        cells = [scores.get(temperature, "-") for temperature in temperatures]
        lines.append(f"| {loss} | 1:{1 / share:g} | " + " | ".join(cells) + " |")
    before = results["before"]
    error = max(row["old_stderr"] for row in results["trials"])
    lines += [
        "",
        f"Old / new score: minus the loss on {OLD} / {NEW} in rows of 64 tokens, nats per token, one seed; the",
    ]
    lines += [f"standard error of an old score over its rows is {error:.3f} or less, mostly shared by all cells."]
    lines += [f"Before the stage: {before['old']:.3f} / {before['new']:.3f}."]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per loss: old against new score, a line per share through its temperatures."""
    curves = series(results)
    losses = list(dict.fromkeys(loss for loss, _ in curves))

    def draw(panel: int, axes: Any) -> None:
        lines = [(share, rows) for (loss, share), rows in curves.items() if loss == losses[panel]]
        for number, (share, rows) in enumerate(lines):
            x, y = ([row[key] for row in rows] for key in ("new", "old"))
            axes.plot(x, y, marker=marker(number), label=f"1:{1 / share:g}", **style(number))
            for row in rows:
                where = (row["new"], row["old"])
                axes.annotate(f"{row['temperature']:g}", where, xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.axhline(results["before"]["old"], color="0.55", linewidth=1)
        axes.set_xlabel(f"new: {NEW}, -nats per token")
        if panel == 0:
            axes.set_ylabel(f"old: {OLD}, -nats per token\n(grey: before the stage)")
            axes.legend(title="replay : task")

    sweeps.figure(path, losses, 4.2, 3.8, draw)


def main() -> None:
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results")
    source = shared().resolve() / "models" / "stories260k-hd32"
    if not source.is_dir():
        raise SystemExit(f"there is no {source}; CONTINUAL_SHARED names the folder that has models and data")
    os.environ["CONTINUAL_SHARED"] = str(shared().resolve())
    code = sweeps.tune(HERE / "temperature_sweep.yaml", options, f"model.source={source}")
    results = collect(sweeps.trials(NAME, options.storage))
    sweeps.finish(NAME, options.output, results, table(results), plot, code)


if __name__ == "__main__":
    main()
