"""What the model answered: documents of a task after the last stage, right and wrong, and a text's worst documents."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.evaluation.outcomes import RECORDS
from continual.forgetting import are_scores
from continual.ledger.ledger import Events
from continual.ledger.lines import read_lines
from continual.store.files import is_whole
from continual.store.json_files import has, known_json
from continual.store.notices import say

SHOWN = 5
"""Documents that are shown of every kind: right, wrong, worst."""
CHARACTERS = 600
"""Longest prompt or answer that is shown whole; of a longer one its end or its beginning is."""


@dataclass(frozen=True)
class Answer:
    """A document of a task with its question, the expected answer and the model's. `right`: None unless yes or no."""

    right: bool | None
    value: float | None
    prompt: str
    expected: str
    given: str


@dataclass(frozen=True)
class Worst:
    """A document of a text by its number in the source, with its loss in nats per token."""

    document: int
    nats_per_token: float
    tokens: int


@dataclass(frozen=True)
class Answers:
    """Documents of a task, or of a text, after a stage; `counts` says how many there are by kind."""

    task: str
    after: str
    metric: str
    counts: dict[str, int]
    answers: list[Answer]
    worst: list[Worst]
    file: str


def gather_answers(ledger: Events, store: Path, known: "Evaluations | None" = None) -> list[Answers]:
    """Return what the model that was scored last answered, by task; [] where the records are gone."""
    scored = ledger.all("scored")
    if not scored:
        return []
    last, by_task, places = scored[-1], dict[str, list[dict[str, Any]]](), dict[str, str]()
    for file in (known or Evaluations()).records_of(store, last):
        found: dict[str, list[dict[str, Any]]] = {}
        for record in read_lines(file, has(task=str)):
            found.setdefault(str(record["task"]), []).append(record)
        for task, records in found.items():
            by_task.setdefault(task, records)
            places.setdefault(task, str(file.relative_to(store.parent)))
    return [
        _of_task(task, score, by_task[task], f"{last['stage']} {last['name']}", places[task])
        for task, score in last["scores"].items()
        if task in by_task
    ]


class Evaluations:
    """The stored evaluations of some storages; each storage is read once, whatever the number of its runs."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, list[Path]]] = {}

    def records_of(self, store: Path, scored: Mapping[str, Any]) -> list[Path]:
        """Return the records of the evaluations that a `scored` event took its scores from; each is stored by itself.

        One that is damaged is left out, and the user is told; the run measures it again when it needs it.
        """
        if store not in self._known:
            self._known[store] = _by_model(store)
        files = []
        for folder in self._known[store].get(str(scored.get("model")), []):
            manifest, result = (known_json(folder / name) for name in ("manifest.json", "scores.json"))
            scores, hashes = result.get("scores"), manifest.get("files")
            listed = {name: str(sha) for name, sha in hashes.items()} if isinstance(hashes, dict) else {}
            whole = all(is_whole(folder / name, listed[name]) for name in ("scores.json", RECORDS) if name in listed)
            if not whole:
                say(f"note: {folder} is damaged; its answers are left out of the report")
            if whole and scores and are_scores(scores) and scores.items() <= scored["scores"].items():
                files.append(folder / RECORDS)
        return files


def _by_model(store: Path) -> dict[str, list[Path]]:
    """Return the folders of all evaluations that have records, by the hash of their model."""
    found: dict[str, list[Path]] = {}
    for file in sorted((store / "scores").glob(f"*/{RECORDS}")):
        inputs = known_json(file.with_name("manifest.json"), has(inputs=dict)).get("inputs", {})
        found.setdefault(str(inputs.get("model")), []).append(file.parent)
    return found


def _of_task(task: str, score: Mapping[str, Any], records: list[dict[str, Any]], after: str, file: str) -> Answers:
    metric, chosen = str(score.get("metric", "")), score.get("filter")
    if "nats_per_token" in records[0]:
        ranked = sorted(records, key=lambda record: -record["nats_per_token"])[:SHOWN]
        worst = [Worst(r["document"], r["nats_per_token"], r["tokens"]) for r in ranked]
        return Answers(task, after, "nats per token", {"documents": len(records)}, [], worst, file)
    mine = [record for record in records if record.get("filter") == chosen] or records
    answers = [_answer(record, metric) for record in mine]
    right, wrong = ([a for a in answers if a.right is kind] for kind in (True, False))
    other = sorted((a for a in answers if a.right is None), key=lambda a: a.value if a.value is not None else 0.0)
    counts = {word: len(kind) for word, kind in (("right", right), ("wrong", wrong), ("other", other)) if kind}
    return Answers(task, after, metric, counts, [*wrong[:SHOWN], *right[:SHOWN], *other[:SHOWN]], [], file)


def _answer(record: Mapping[str, Any], metric: str) -> Answer:
    value = record.get(metric)
    number = float(value) if isinstance(value, bool | int | float) else None
    right = {1.0: True, 0.0: False}.get(number) if number is not None else None
    prompt = record.get("prompt")
    return Answer(right, number, _end(_text(prompt)), _text(record.get("target"))[:CHARACTERS], _given(record))


def _given(record: Mapping[str, Any]) -> str:
    """Return what the model said: of a choice the number of the answer that it found most probable."""
    answers = record.get("filtered_resps") or []
    if len(answers) > 1 and all(isinstance(each, list | tuple) and each for each in answers):
        scores = [float(each[0]) for each in answers]
        chosen = max(range(len(scores)), key=scores.__getitem__)
        choices = (record.get("doc") or {}).get("choices") if isinstance(record.get("doc"), Mapping) else None
        words = choices[chosen] if isinstance(choices, list) and len(choices) == len(scores) else ""
        found = ", ".join(f"{score:.2f}" for score in scores)
        return f"choice {chosen}{f': {words}' if words else ''} (log-likelihoods {found})"
    return _text(answers[0] if len(answers) == 1 else answers)[:CHARACTERS]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _end(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"… {text[-CHARACTERS:]}"
