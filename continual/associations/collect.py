"""Read the matrix of associations from what the runs have stored."""

from pathlib import Path
from typing import Any

import numpy as np

from continual.associations.matrix import Associations
from continual.errors import ContinualError
from continual.evaluation.names import TEXT_UNIT
from continual.evaluation.outcomes import stored_values
from continual.ledger.ledger import read_events
from continual.sweep.results import Outcome

AGAIN = "run the same command with --fresh"
BEFORE, AFTER = 0, 1
"""Numbers of the stages: the start model, and the one stage of each run."""


def collect(upstream: str, outcomes: list[Outcome]) -> Associations:
    """Return the matrix of runs that are done; `outcomes` are those of the sweep, one per task.

    Z = log-perplexity of a document after the task minus before, in nats per token; of a task of lm-eval 1 where the
    start model was right and the trained one is not, for the documents that it was right on (Jin & Ren, section 2).

    Raises:
        ContinualError: Records of an evaluation are gone or damaged, or an answer is neither right nor wrong.
    """
    rows: list[dict[str, float]] = []
    before: dict[str, float] = {}
    kind = "nats"
    for each in outcomes:
        scored = {event["stage"]: event for event in read_events(each.trial.loaded.run_folder, "scored")}
        unit = scored[BEFORE]["scores"][upstream].get("unit")
        kind = "nats" if unit == TEXT_UNIT else "lost"
        store = Path(each.trial.loaded.sequence.storage) / "store"
        first, last = (_scores(scored[stage], upstream, store, kind, each) for stage in (BEFORE, AFTER))
        before = before or first
        if not before.keys() == first.keys() == last.keys():
            raise ContinualError(f"not all evaluations of `{upstream}` are of the same documents; {AGAIN}")
        rows.append({document: last[document] - first[document] for document in first})
    documents = [name for name in before if kind == "nats" or before[name] == 1]
    change = np.array([[row[name] for name in documents] for row in rows])
    if not documents:
        raise ContinualError(f"the start model is right on no document of `{upstream}`; none can be forgotten")
    return Associations(
        tasks=tuple(_task(each) for each in outcomes),
        documents=tuple(name.rpartition("/")[2] for name in documents),
        before=np.array([before[name] for name in documents]),
        change=np.maximum(-change, 0.0) if kind == "lost" else change,
        kind="lost" if kind == "lost" else "nats",
        facts={**_facts(upstream, outcomes), "wrong_before": len(before) - len(documents)},
    )


def _scores(event: dict[str, Any], upstream: str, store: Path, kind: str, each: Outcome) -> dict[str, float]:
    values = stored_values(event, upstream, store)
    if not values:
        problem = f"the records of `{upstream}` in the run {each.trial.name} are gone or damaged"
        raise ContinualError(f"{problem}; {AGAIN}")
    if kind == "nats":
        return {document: -nats / tokens for document, (nats, tokens) in values.items()}
    answers = {document: total / count for document, (total, count) in values.items()}
    if any(answer not in (0.0, 1.0) for answer in answers.values()):
        metric = event["scores"][upstream].get("metric")
        problem = f"the metric {metric} of `{upstream}` is neither right nor wrong"
        raise ContinualError(f"{problem}; choose a task with exact answers, or a text")
    return answers


def _task(each: Outcome) -> str:
    return each.trial.loaded.sequence.stages[0].name


def _facts(upstream: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return, as JSON values, what the matrix was measured with: runs and stages by task, and what all share."""
    first = outcomes[0].trial.loaded
    start = read_events(first.run_folder, "start_model")[-1]
    return {
        "upstream": upstream,
        "start_model": start["hash"],
        "model": first.resolved["model"],
        "train": first.resolved["train"],
        "texts": first.resolved["evaluate"]["texts"],
        "seed": first.sequence.seed,
        "tasks": {
            _task(each): {"run": each.trial.name, **each.trial.loaded.resolved["stages"][0]} for each in outcomes
        },
    }
