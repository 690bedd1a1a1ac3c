"""`python -m benchmarks.associations.replay`: stories chosen by forecast, at random, by surprise, by oracle; resumable.

For each of three tasks and three seeds as many stories are rehearsed; what differs is which. Measured on stories that
are neither replayed nor in the matrix. Needs what `python -m benchmarks.associations.matrix` left in the same storage.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import sweeps
from benchmarks.associations.matrix import NAME as MATRIX
from benchmarks.associations.matrix import source
from continual.associations.matrix import Associations, read
from continual.associations.predicted import chosen_error, write_forecast
from continual.config.yaml_text import yaml_text
from continual.forgetting.completion.complete import probes
from continual.ledger.folder import RunFolder
from continual.show.plots import COLORS
from continual.sweep.results import mean_error

HERE = Path(__file__).resolve().parent
NAME = "associations-replay"
TASKS = ("shakespeare", "gsm8k", "bible-de")
SEEDS = (0, 1, 2)
PROBES = 30
HELD_OUT = "held-out-stories"
STORIES = "benchmarks.associations.tasks:stories"
REPLAY = {"type": "predicted_replay", "documents": 100, "ratio": 0.125}
ARMS = ("none", "random", "surprise", "predicted", "oracle")


def stories(part: str) -> dict[str, Any]:
    """Return the source of some stories."""
    options = {"end_token": False, "overlong": "cut"}
    return {"type": "python", "function": STORIES, "arguments": {"part": part}, **options}


def without(matrix: Associations, row: int) -> Associations:
    """Return the matrix that does not know one of its tasks."""
    tasks = tuple(task for number, task in enumerate(matrix.tasks) if number != row)
    return replace(matrix, tasks=tasks, change=np.delete(matrix.change, row, axis=0))


def arms(task: str, storage: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the mitigation of every arm; write the forecast for the task from the other tasks and its probes."""
    file = storage / MATRIX / f"{MATRIX}.parquet"
    matrix = read(file)
    row, columns = matrix.tasks.index(task), probes(PROBES, len(matrix.documents), 0)
    others, folder = without(matrix, row), storage / NAME / task
    folder.mkdir(parents=True, exist_ok=True)
    print(write_forecast(folder, others, columns, matrix.change[row, columns], chosen_error(others, None, PROBES)))
    replay = {**REPLAY, "data": stories("measured")}
    return {
        "none": [],
        "random": [{**replay, "scores": str(file), "column": "before", "temperature": None}],
        "surprise": [{**replay, "scores": str(file), "column": "before", "temperature": 0}],
        "predicted": [{**replay, "scores": str(RunFolder(folder).forecast_table)}],
        "oracle": [{**replay, "scores": str(file), "column": f"change/{task}"}],
    }


def write_sweep(task: str, storage: Path) -> Path:
    """Write the task's sequence and its sweep over arms and seeds; return the sweep's file."""
    base = yaml.safe_load((HERE / "base.yaml").read_text())
    [stage] = [stage for stage in base["stages"] if stage["name"] == task]
    name, folder = f"{NAME}-{task}", storage / NAME
    texts = [{"name": HELD_OUT, "data": stories("held_out")}]
    named = {"mitigation": {"named": arms(task, storage)}}
    sequence = {**base, "name": f"{name}-base", "stages": [stage], "evaluate": {"texts": texts}}
    (folder / f"{task}-sequence.yaml").write_text(yaml_text(sequence))
    sweep = {
        "name": name, "sequence": f"{task}-sequence.yaml", "space": named, "seeds": list(SEEDS), "metric": HELD_OUT
    }  # fmt: skip
    file = folder / f"{task}.yaml"
    file.write_text(yaml_text(sweep))
    return file


def collect(task: str, trials: Sequence[sweeps.Trial]) -> list[dict[str, Any]]:
    """Return of every trial how much the loss on the held-out stories rose, in nats per token."""
    rows = []
    for trial in trials:
        before = trial.run.summary["matrix"][0]["scores"][HELD_OUT]["score"]
        arm = str(trial.point["mitigation"])
        rows.append({"task": task, "arm": arm, "seed": trial.seed, "forgotten": before - trial.final(HELD_OUT)})
    return rows


def beside_random(rows: Sequence[dict[str, Any]], task: str | None, arm: str) -> tuple[float, float | None]:
    """Return by how much less an arm forgets than random replay, paired by task and seed: mean and standard error."""
    known = {(row["task"], row["seed"], row["arm"]): row["forgotten"] for row in rows}
    pairs = [(t, seed) for t, seed, a in known if a == "random" and task in (None, t)]
    return mean_error([known[t, seed, "random"] - known[t, seed, arm] for t, seed in pairs])


def table(results: dict[str, Any]) -> str:
    """Return what each arm forgets of the held-out stories by task, and the difference to random replay over all."""
    rows = results["trials"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = ["| replay | " + " | ".join(tasks) + " | less than random, all tasks |", "|---" * (len(tasks) + 2) + "|"]
    for arm in ARMS:
        cells = []
        for task in tasks:
            mean, error = mean_error([r["forgotten"] for r in rows if (r["task"], r["arm"]) == (task, arm)])
            cells.append(f"{mean:.4f}" + ("" if error is None else f" ±{error:.4f}"))
        less, error = beside_random(rows, None, arm)
        beside = "" if arm == "random" else f"{less:+.4f}" + ("" if error is None else f" ±{error:.4f}")
        lines.append(f"| {arm} | " + " | ".join([*cells, beside]) + " |")
    runs = f"{len(SEEDS)} seeds; ± is the standard error over seeds, of the last column over tasks and seeds, paired"
    lines += ["", f"Rise of the loss on 830 other stories, nats per token; {REPLAY['documents']} of 2,000 stories"]
    lines += [f"rehearsed, one replay token for 8 of the task; {runs}."]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per task: what each arm forgets, a dot per seed."""
    rows = results["trials"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))

    def draw(panel: int, axes: Any) -> None:
        for number, arm in enumerate(ARMS):
            values = [row["forgotten"] for row in rows if (row["task"], row["arm"]) == (tasks[panel], arm)]
            axes.plot([number] * len(values), values, "o", color=COLORS[number])
        axes.set_xticks(range(len(ARMS)), ARMS, rotation=40)
        if panel == 0:
            axes.set_ylabel("forgotten of held-out stories,\nnats per token")

    sweeps.figure(path, tasks, 2.8, 3.4, draw)


def main() -> None:
    options = sweeps.options(__doc__.splitlines()[0], HERE / "results")
    if not (options.storage / MATRIX / f"{MATRIX}.parquet").is_file():
        raise SystemExit(f"there is no matrix in {options.storage}; run python -m benchmarks.associations.matrix first")
    rows, codes, model = [], 0, source()
    for task in TASKS:
        codes |= sweeps.tune(write_sweep(task, options.storage), options, f"model.source={model}")
        rows += collect(task, sweeps.trials(f"{NAME}-{task}", options.storage))
    results = json.loads(json.dumps({"replay": REPLAY, "probes": PROBES, "trials": rows}))
    sweeps.finish(NAME, options.output, results, table(results), plot, codes)


if __name__ == "__main__":
    main()
