"""What every arm keeps at equal new score; errors are paired by document over all arms.

All arms answer the same documents. A cell is a place in a list of models, those of each run in the order of its stages,
and a task; an arm at a new score is a weighted mean of two of its models, and everything told of it a combination of
cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.methods.figures import crossing
from benchmarks.sweeps import Trial, figure
from continual.evaluation.outcomes import stored_outcomes
from continual.forgetting import Score, read_matrix
from continual.forgetting.combination import Cell, Combination, mean
from continual.forgetting.outcomes import Outcomes, same_documents
from continual.forgetting.paired import Paired
from continual.ledger.ledger import read_ledger
from continual.show import plots

NEW = "gsm8k"
PLAIN, CONTEXT_FREE = "plain", "context_free kl"
"""The arm without replay, and the one that every other arm is compared with."""
TASKS = ("old_arc_easy", "old_piqa", "old_hellaswag", "old_winogrande", "old_boolq", "old_lambada")
TEXTS = ("c4", "wikitext", "tinystories", "code", "german")
COLUMNS = ("abilities", "texts", *TEXTS)
"""What is shown: the mean over tasks, the mean over texts, and each text."""
FORGETS = 5.0
"""Standard errors by which the plain arm has to lose something, else there is little to keep."""

Weights = Mapping[int, float]
"""A mean of models: weights by their places in the list of all models."""


@dataclass(frozen=True)
class Models:
    """All models of all runs: their scores by task, what is known of the documents, and the places of each run."""

    scores: dict[Cell, Score]
    paired: dict[str, Paired]
    places: dict[tuple[str, int], list[int]]
    """By arm and seed: its models in the order of training, the start model first."""

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for arm, _ in self.places))

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.places})


def models_of(trials: Sequence[Trial]) -> Models:
    """Read the scores and the records of all runs."""
    scores: dict[Cell, Score] = {}
    outcomes: dict[Cell, Outcomes] = {}
    places: dict[tuple[str, int], list[int]] = {}
    for trial in trials:
        scored = read_ledger(trial.run.folder).all("scored")
        known = stored_outcomes(scored, trial.run.folder.parent / "store")
        first = sum(map(len, places.values()))
        matrix = read_matrix(scored)
        places[trial.point["mitigation"], trial.seed] = [first + row.stage for row in matrix]
        for row in matrix:
            scores |= {(first + row.stage, task): score for task, score in row.scores.items()}
        outcomes |= {(first + stage, task): one for (stage, task), one in known.items()}
    count = sum(map(len, places.values()))
    return Models(scores, paired(scores, outcomes, count), places)


def paired(scores: Mapping[Cell, Score], outcomes: Mapping[Cell, Outcomes], count: int) -> dict[str, Paired]:
    """Return the tasks whose documents are known of all models."""
    found = {}
    for task in dict.fromkeys(task for _, task in scores):
        of_task = [outcomes[place, task] for place in range(count) if (place, task) in outcomes]
        if len(of_task) == count and same_documents(of_task):
            found[task] = Paired([scores[place, task].score for place in range(count)], of_task)
    return found


def equal_score(models: Models) -> float:
    """Return the highest new score that all runs reach: the least of their best."""
    return min(max(models.scores[place, NEW].score for place in places[1:]) for places in models.places.values())


def mixed(models: Models, arm: str, target: float) -> Weights | None:
    """Return the weights of an arm's models that have the new score on average, of all seeds; None if one lacks it."""
    weights: dict[int, float] = {}
    for seed in models.seeds:
        places = models.places[arm, seed]
        found = crossing([models.scores[place, NEW].score for place in places], target)
        if found is None:
            return None
        place, part = found
        for at, share in ((places[place], 1 - part), (places[place + 1], part)):
            weights[at] = weights.get(at, 0.0) + share / len(models.seeds)
    return weights


def starts(models: Models) -> Weights:
    """Return the weights of the start model, which every run has scored."""
    places = [places[0] for (arm, _), places in models.places.items() if arm == PLAIN]
    return dict.fromkeys(places, 1 / len(places))


def change(later: Weights, earlier: Weights, tasks: Sequence[str]) -> Combination:
    """Return the mean over tasks of what `later` scores more than `earlier`."""
    both = {place: later.get(place, 0.0) - earlier.get(place, 0.0) for place in {**later, **earlier}}
    found = mean(Combination({(place, task): weight for place, weight in both.items()}) for task in tasks)
    assert found is not None
    return found


def told(models: Models, combination: Combination) -> list[float | None]:
    """Return a value and its standard error."""
    return [combination.value(models.scores), combination.stderr(models.scores, models.paired)]


def collect(trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what `collect_models` does of the models of all runs."""
    return collect_models(models_of(trials))


def collect_models(models: Models) -> dict[str, Any]:
    """Return for every arm what it lost of everything old at the equal new score, and beside PLAIN and CONTEXT_FREE."""
    target, start = equal_score(models), starts(models)
    groups = {"abilities": TASKS, "texts": TEXTS, **{task: (task,) for task in (*TASKS, *TEXTS)}}
    plain, first = (mixed(models, arm, target) if arm in models.arms else None for arm in (PLAIN, CONTEXT_FREE))
    arms: dict[str, Any] = {}
    for arm in models.arms:
        weights = mixed(models, arm, target)
        final = {models.places[arm, seed][-1]: 1 / len(models.seeds) for seed in models.seeds}
        row: dict[str, Any] = {"new at the end": told(models, Combination({(k, NEW): w for k, w in final.items()}))}
        row["at the end"] = {name: told(models, change(final, start, tasks)) for name, tasks in groups.items()}
        if weights and plain:
            row["kept"] = {name: told(models, change(weights, start, tasks)) for name, tasks in groups.items()}
            row["more than plain"] = {
                name: told(models, change(weights, plain, tasks)) for name, tasks in groups.items()
            }
        if weights and first and arm != CONTEXT_FREE:
            row[f"less than {CONTEXT_FREE}"] = {
                name: told(models, change(first, weights, tasks)) for name, tasks in groups.items()
            }
        arms[arm] = row
    lost = {name: _sigmas(*arms[PLAIN]["at the end"][name]) for name in groups}
    return {
        "new": NEW,
        "equal new score": target,
        "before": {name: told(models, change(start, {}, tasks)) for name, tasks in {NEW: (NEW,), **groups}.items()},
        "seeds": models.seeds,
        "paired": sorted(models.paired),
        "plain lost, in standard errors": lost,
        "arms": arms,
    }


def _sigmas(value: float, error: float | None) -> float | None:
    return -value / error if error else None


def _cell(found: Sequence[float | None] | None) -> str:
    value, error = found or (None, None)
    if value is None:
        return ""
    mark = "*" if error and abs(value) > 2 * error else ""
    return f"{value:+.3f}" + (f" ±{error:.3f}{mark}" if error is not None else "")


def table(results: dict[str, Any]) -> str:
    """Return as Markdown what each arm kept at equal new score, and how much more CONTEXT_FREE kept than the others."""
    head = ["arm", "new at the end", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, row in results["arms"].items():
        kept = row.get("kept", {})
        new = f"{-row['new at the end'][0]:.3f}"
        lines.append("| " + " | ".join([arm, new, *(_cell(kept.get(name)) for name in COLUMNS)]) + " |")
    before, target = results["before"], results["equal new score"]
    lines += [
        "",
        f"Change since the start where {results['new']} has reached {-target:.3f} nats per answer token (before: "
        f"{-before[NEW][0]:.3f}): accuracy over {len(TASKS)} tasks, and nats per token of texts (`texts`: the mean of "
        f"the {len(TEXTS)}); below zero is lost. "
        f"± is the standard error, paired by document; * is beyond two of them. Seeds: {results['seeds']}.",
        "",
        f"| {CONTEXT_FREE} keeps more than | " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * (1 + len(COLUMNS)),
    ]
    for arm, row in results["arms"].items():
        if less := row.get(f"less than {CONTEXT_FREE}"):
            lines.append("| " + " | ".join([arm, *(_cell(less[name]) for name in COLUMNS)]) + " |")
    lost = results["plain lost, in standard errors"]
    most = max((name for name in COLUMNS if lost[name] is not None), key=lambda name: lost[name], default=None)
    if most is not None:
        verdict = "" if lost[most] >= FORGETS else f", less than {FORGETS:.0f}: there is little to keep"
        errors = f"{lost[most]:.1f} standard errors"
        lines += ["", f"What plain lost most clearly, at the end: {most}, by {errors}{verdict}."]
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Any) -> None:
    """Draw what each arm has lost at the equal new score: abilities, and the mean of the texts."""
    arms = [arm for arm, row in results["arms"].items() if "kept" in row]

    def draw(number: int, axes: Any) -> None:
        name = COLUMNS[number]
        values = [results["arms"][arm]["kept"][name] for arm in arms]
        axes.barh(arms, [v for v, _ in values], xerr=[e or 0.0 for _, e in values], color=plots.COLORS[0])
        axes.axvline(0, color="gray", linewidth=1)
        axes.invert_yaxis() if not number else None
        axes.set_xlabel("accuracy" if not number else "nats per token")

    figure(path, COLUMNS, 2.6, 3.4, draw)
