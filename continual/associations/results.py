"""What associations leave: the matrix as Parquet, its analysis as JSON and as a page, and a picture."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from continual.associations import analysis
from continual.associations.collect import collect
from continual.associations.forecast import FEWEST, ForecastError, evaluate
from continual.associations.likeness import MOST_WORDS, Found, Likeness
from continual.associations.matrix import Associations, write
from continual.associations.picture import draw
from continual.associations.spec import LoadedAssociate
from continual.ledger.folder import AssociationsFolder
from continual.show.associations import SCORES, UNITS
from continual.show.report import write_report
from continual.show.terminal import Terminal
from continual.store.files import write_atomic
from continual.sweep.outputs import Results, Written
from continual.sweep.results import Outcome
from continual.sweep.spec import LoadedAblation

RANKS = (1, 2, 3, 4, 5)
MOST_LISTED = 10
"""Documents and tasks that are listed."""


def results_of(loaded: LoadedAssociate) -> Results:
    """Return what the sweep behind associations leaves."""
    work = Work(loaded)
    left = AssociationsFolder(Path())
    names = tuple(map(str, (left.matrix, left.numbers, left.page, left.picture, left.report)))
    return Results(work.write, names, work.lacks, work.measure)


class Work:
    """What is done with the runs of all tasks: their matrix is read once, when all are done."""

    def __init__(self, loaded: LoadedAssociate):
        self._loaded = loaded
        self._likeness: Likeness | None = None

    def lacks(self, outcomes: list[Outcome]) -> bool:
        """Return whether all tasks are done, and the start model is still to be asked how alike the texts are."""
        return all(each.state == "done" for each in outcomes) and self._of(outcomes).lacks()

    def measure(self, outcomes: list[Outcome], resources: Mapping[str, float], terminal: Terminal) -> None:
        """Ask the start model, in a cluster with these resources."""
        self._of(outcomes).measure(resources, terminal)

    def write(self, folder: Path, source: LoadedAblation, outcomes: list[Outcome]) -> Written:
        """Write all files if all tasks are done; return what is printed, and the numbers for the tracker."""
        missing = [each for each in outcomes if each.state != "done"]
        if missing:
            lines = [f"- {each.trial.loaded.sequence.stages[0].name}: {each.why or each.state}" for each in missing]
            done = len(outcomes) - len(missing)
            return Written("\n".join([f"{done} of {len(outcomes)} tasks are done; the matrix needs all", *lines]))
        return write_results(AssociationsFolder(folder), self._of(outcomes))

    def _of(self, outcomes: list[Outcome]) -> Likeness:
        if self._likeness is None:
            self._likeness = Likeness(collect(self._loaded.associate.upstream, outcomes), self._loaded)
        return self._likeness


def write_results(files: AssociationsFolder, likeness: Likeness) -> Written:
    """Write all files; return the page as text, and the numbers for the tracker."""
    matrix, loaded = likeness.matrix, likeness.loaded
    write(matrix, files.matrix)
    numbers = analyzed(likeness)
    write_atomic(files.numbers, json.dumps(numbers, indent=1))
    draw(matrix, files.picture)
    text = "\n".join(page(matrix, numbers))
    write_atomic(files.page, f"# {loaded.associate.name}\n\n{text}\n\n![Who forgets what]({files.picture.name})\n")
    write_report([files.path], files.report)
    return Written(text, metrics=metrics(numbers))


def metrics(numbers: dict[str, Any]) -> dict[str, float]:
    """Return what the tracker shows of a matrix, by name; `numbers` are those of `analyzed`."""
    found = {f"r_squared/{rank}": share for rank, share in numbers["r_squared"].items()}
    found |= {f"explained/{name}": share for name, share in numbers["variance_explained"].items()}
    found |= {f"forgotten/{each['name']}": each["mean"] for each in numbers["destructive"]}
    errors = [(each["model"], score, of) for each in numbers["forecasts"] for score, of in each["scores"].items()]
    return found | {f"forecast_error/{model}/{score}": of["mean"] for model, score, of in errors if of is not None}


def analyzed(likeness: Likeness) -> dict[str, Any]:
    """Return everything that is said of a matrix, as JSON values."""
    matrix, loaded = likeness.matrix, likeness.loaded
    associate, sequence = loaded.associate, loaded.base.sequence
    ranks = [rank for rank in RANKS if rank <= min(matrix.change.shape)]
    varies = bool(matrix.change.max() > matrix.change.min())
    probes = min(associate.probes, len(matrix.documents) - 1)
    forecasts: list[ForecastError] = []
    if len(matrix.tasks) >= FEWEST and probes > 0:
        forecasts = evaluate(matrix, probes, associate.draws, sequence.seed)
    return {
        "kind": matrix.kind,
        "upstream": associate.upstream,
        "wrong_before": matrix.facts.get("wrong_before", 0),
        "tasks": len(matrix.tasks),
        "documents": len(matrix.documents),
        "mean": float(matrix.change.mean()),
        "r_squared": {str(rank): share for rank, share in analysis.r_squared(matrix.change, ranks).items()}
        if varies
        else {},
        "variance_explained": analysis.variance_explained(matrix.change) if varies else {},
        "destructive": [asdict(each) for each in analysis.destructive(matrix)],
        "fragile": [asdict(each) for each in analysis.fragile(matrix, MOST_LISTED)],
        "probes": probes,
        "probes_asked_for": associate.probes,
        "draws": associate.draws,
        "forecasts": [asdict(each) for each in forecasts],
        "similarity": likeness.of_words(),
        "similarity_of_representations": likeness.of_representations(),
        "represented": likeness.represented(),
    }


def page(matrix: Associations, numbers: dict[str, Any]) -> list[str]:
    """Return the lines that say what was found; `numbers` are those of `analyzed`."""
    unit = UNITS[matrix.kind]
    lines = [
        f"{numbers['tasks']} tasks, {numbers['documents']:,} documents of `{matrix.facts['upstream']}`; "
        f"forgotten on average: {numbers['mean']:+.4f} {unit}"
    ]
    if wrong := matrix.facts.get("wrong_before"):
        lines.append(f"{wrong:,} documents are left out: the start model is wrong about them")
    if numbers["r_squared"]:
        ranks = ", ".join(f"{rank}: {share:.3f}" for rank, share in numbers["r_squared"].items())
        parts = ", ".join(f"{name} {share:.3f}" for name, share in numbers["variance_explained"].items())
        lines += ["", f"R² by rank: {ranks}", f"explained by task and document alone: {parts}"]
    else:
        lines += ["", "all changes are equal: there is nothing to explain"]
    lines += _likeness_lines(numbers)
    lines += ["", f"| task | forgotten, {unit} | ± |", "|---|---:|---:|"]
    lines += [_row(each) for each in numbers["destructive"]]
    lines += ["", f"| most fragile document | forgotten, {unit} | ± |", "|---|---:|---:|"]
    lines += [_row(each) for each in numbers["fragile"]]
    return lines + forecast_table(numbers)


def _likeness_lines(numbers: dict[str, Any]) -> list[str]:
    """Return the lines about the likeness of texts, by their words and by the start model's representations."""
    first = f"first {MOST_WORDS} documents of a task"
    made = numbers["represented"]
    cut = f"; {made['cut']:,} of {made['texts']:,} texts cut to {made['tokens']:,} tokens" if made else ""
    by_model = f"representations: means of the start model's last hidden states, {first}{cut}"
    return [
        f"correlation with the likeness of texts (TF-IDF, {first}): {_correlation(numbers['similarity'])}",
        f"correlation with the likeness of texts ({by_model}): "
        f"{_correlation(numbers['similarity_of_representations'])}",
    ]


def _correlation(found: Found) -> str:
    if isinstance(found, str):
        return found
    numbers = ", ".join(f"{name} {value:+.3f}" for name, value in found.items() if value is not None)
    return numbers or "none, as all are equally alike"


def _row(each: dict[str, Any]) -> str:
    error = "" if each["stderr"] is None else f"{each['stderr']:.4f}"
    return f"| {each['name']} | {each['mean']:+.4f} | {error} |"


def forecast_table(numbers: dict[str, Any]) -> list[str]:
    """Return the lines about how far forecasts of the known tasks are off, or why they were not tried out."""
    forecasts, asked_for = numbers["forecasts"], numbers["probes_asked_for"]
    if not forecasts:
        return ["", f"forecasts are not tried out: that takes {FEWEST} tasks and 2 documents"]
    scores = list(forecasts[0]["scores"])
    fewer = f" (instead of {asked_for}: there are no more)" if numbers["probes"] < asked_for else ""
    tried = f"each task in turn unseen, from {numbers['probes']} probes{fewer}, mean of {numbers['draws']} draws"
    head = " | ".join(f"{SCORES.get(score, score)} | ±" for score in scores)
    lines = [
        "",
        f"forecasts ({tried}):",
        "",
        f"| model | {head} | mean is off by |",
        "|---" * (2 + 2 * len(scores)) + "|",
    ]
    for each in forecasts:
        cells = " | ".join(_estimate(each["scores"][score]) for score in scores)
        lines.append(f"| {each['model']} | {cells} | {each['bias']:+.4f} ± {each['spread']:.4f} |")
    return lines


def _estimate(found: dict[str, Any] | None) -> str:
    if found is None:
        return " | "
    return f"{found['mean']:.4f} | " + ("" if found["stderr"] is None else f"{found['stderr']:.4f}")
