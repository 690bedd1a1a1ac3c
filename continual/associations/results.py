"""What associations leave: the matrix as Parquet, its analysis as JSON and as a page, and a picture."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from continual.associations import analysis
from continual.associations.collect import collect
from continual.associations.forecast import FEWEST, ForecastError, evaluate
from continual.associations.matrix import Associations, write
from continual.associations.picture import draw
from continual.associations.spec import LoadedAssociate
from continual.config.schema import Sequence
from continual.data.chosen import numbered, words_of
from continual.errors import ConfigurationError
from continual.ledger.folder import AssociationsFolder
from continual.show.associations import SCORES, UNITS
from continual.show.report import write_report
from continual.store.files import write_atomic
from continual.sweep.outputs import Results, Written
from continual.sweep.results import Outcome
from continual.sweep.spec import LoadedAblation

RANKS = (1, 2, 3, 4, 5)
MOST_LISTED = 10
"""Documents and tasks that are listed."""
MOST_WORDS = 200
"""Documents of a task that stand for it where texts are compared."""


def results_of(loaded: LoadedAssociate) -> Results:
    """Return what the sweep behind associations leaves."""

    def write_all(folder: Path, source: LoadedAblation, outcomes: list[Outcome]) -> Written:
        missing = [each for each in outcomes if each.state != "done"]
        if missing:
            lines = [f"- {each.trial.loaded.sequence.stages[0].name}: {each.why or each.state}" for each in missing]
            done = len(outcomes) - len(missing)
            return Written("\n".join([f"{done} of {len(outcomes)} tasks are done; the matrix needs all", *lines]))
        return write_results(AssociationsFolder(folder), loaded, collect(loaded.associate.upstream, outcomes))

    left = AssociationsFolder(Path())
    return Results(write_all, tuple(map(str, (left.matrix, left.numbers, left.page, left.picture, left.report))))


def write_results(files: AssociationsFolder, loaded: LoadedAssociate, matrix: Associations) -> Written:
    """Write all files; return the page as text, and the numbers for the tracker."""
    write(matrix, files.matrix)
    numbers = analyzed(matrix, loaded)
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


def analyzed(matrix: Associations, loaded: LoadedAssociate) -> dict[str, Any]:
    """Return everything that is said of a matrix, as JSON values."""
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
        "similarity": _similarity(matrix, associate.upstream, sequence),
    }


def _similarity(matrix: Associations, upstream: str, sequence: Sequence) -> dict[str, float | None] | str:
    """Return the correlation with the likeness of texts, or why there is none."""
    texts = {text.name: text.data for text in sequence.evaluate.texts}
    if upstream not in texts:
        return "not computed, as the documents of a task of lm-eval are no text"
    words = {str(number): words_of(example) for number, example in numbered(texts[upstream])}
    of_task = {}
    for stage in sequence.stages:
        of_task[stage.name] = [words_of(example) for _, example in islice(numbered(stage.data), MOST_WORDS)]
    try:
        return analysis.similarity(matrix, of_task, [words[document] for document in matrix.documents])
    except ConfigurationError as error:
        return f"not computed: {error.problem}"


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
    similar = numbers["similarity"]
    if not isinstance(similar, str):
        of_words = ", ".join(f"{name} {value:+.3f}" for name, value in similar.items() if value is not None)
        similar = of_words or "none, as all are equally alike"
    lines.append(f"correlation with the likeness of texts (TF-IDF, first {MOST_WORDS} documents of a task): {similar}")
    lines += ["", f"| task | forgotten, {unit} | ± |", "|---|---:|---:|"]
    lines += [_row(each) for each in numbers["destructive"]]
    lines += ["", f"| most fragile document | forgotten, {unit} | ± |", "|---|---:|---:|"]
    lines += [_row(each) for each in numbers["fragile"]]
    return lines + forecast_table(numbers)


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
