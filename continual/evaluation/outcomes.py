"""Reads what a model did on each document from the records of its evaluation."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from continual.errors import ContinualError
from continual.forgetting import Score
from continual.forgetting.outcomes import Outcomes, Values, outcomes_of
from continual.ledger.lines import read_lines
from continual.store import Artefact
from continual.store.json_files import has

RECORDS = "scores.samples.jsonl"
"""The file of an evaluation's artefact that holds a record per document, and per filter of lm-eval."""


def stored_outcomes(scored: Iterable[Mapping[str, Any]], store: Path) -> dict[tuple[int, str], Outcomes]:
    """Return the outcomes behind the scores of `scored` events, by stage and task, as far as they are known.

    The newest event of a stage counts. A score is left out where its evaluation is gone or damaged, where an earlier
    version of this program did not say which it was, and where its documents do not add up to it.
    """
    newest = {event["stage"]: event for event in scored}
    found = {}
    for stage, event in newest.items():
        for task, address in event.get("evaluations", {}).items():
            score = event["scores"].get(task)
            if score and (outcomes := _read(Artefact("scores", address, str(store)), task, Score(**score))):
                found[stage, task] = outcomes
    return found


def stored_values(event: Mapping[str, Any], task: str, store: Path) -> Values:
    """Return what the model of a `scored` event did on each document of a task or text: a sum and its divisor.

    The logarithm of the likelihood and the number of tokens of a text's document, the score and 1 of a task's. Empty
    where the records are gone or damaged, or not numbers.
    """
    score, address = event["scores"].get(task), event.get("evaluations", {}).get(task)
    if not score or not address:
        return {}
    parts = _values(Artefact("scores", address, str(store)), task, Score(**score)) or []
    return {document: value for part in parts for document, value in part.items()}


@lru_cache(maxsize=4096)
def _read(evaluation: Artefact, task: str, score: Score) -> Outcomes | None:
    parts = _values(evaluation, task, score)
    return None if parts is None else outcomes_of(score, parts)


def _values(evaluation: Artefact, task: str, score: Score) -> list[Values] | None:
    try:
        file = evaluation.file(RECORDS)
    except (OSError, ContinualError):
        return None
    records = [
        record for record in read_lines(file, has(task=str)) if record.get("filter", score.filter) == score.filter
    ]
    return _parts(records, task, score.metric)


def _parts(records: list[dict[str, Any]], task: str, metric: str) -> list[Values]:
    """Return the values of the documents of a task or text, or of each member of a group.

    The evaluation of a group holds the records of its members and nothing else.
    """
    own = [record for record in records if record["task"] == task]
    members: dict[str, dict[str, tuple[float, float]]] = {}
    for record in own or records:
        value = _value(record, metric)
        if value is None:
            return []
        name = f"{record['task']}/{record.get('doc_hash') or record.get('doc_id', record.get('document'))}"
        of_member = members.setdefault(record["task"], {})
        # A document that is asked twice, or repeated in the data, is one document.
        before = of_member.get(name, (0.0, 0.0))
        of_member[name] = before[0] + value[0], before[1] + value[1]
    return list(members.values())


def _value(record: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """Return what a record adds to the sum and to the divisor of a score; None if its metric is not a number."""
    if "nats_per_token" in record:
        return -record["nats_per_token"] * record["tokens"], float(record["tokens"])
    value = record.get(metric)
    return (float(value), 1.0) if isinstance(value, bool | int | float) else None
