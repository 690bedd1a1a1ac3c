"""What became of the documents of a source: read, trained whole or cut, dropped, skipped, left out."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from continual.contract.source import Source
from continual.data.formats import CUT, DROPPED, EMPTY, LOST, PROBLEM, UNLEARNABLE, WHOLE
from continual.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_REASONS = 20
"""Different reasons that are listed; documents with further ones are counted together."""
OTHER = "other reasons"
LOSSES = {
    "cut": "cut",
    "dropped": "dropped, too long",
    "lost_answers": "answers lost, too long for a row",
    "nothing_to_learn": "with nothing to learn",
    "empty": "empty",
    "skipped": "skipped, not usable",
    "left_out": "left out, not asked for",
}
"""What is said of documents, by the key of the manifest that counts them."""
COUNTED = ("read", "documents", *LOSSES, "skipped_for")
"""The keys of a manifest that say what became of the documents."""


@dataclass
class Pieces:
    """Pieces of documents in their order; `origins` are the numbers of the documents, counted as they are read."""

    ids: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)

    def take(self, count: int) -> "Pieces":
        """Remove and return the first `count` pieces."""
        taken = Pieces(self.ids[:count], self.weights[:count], self.outcome[:count], self.origins[:count])
        del self.ids[:count], self.weights[:count], self.outcome[:count], self.origins[:count]
        return taken


def split(column: "pa.ChunkedArray") -> list[np.ndarray]:
    """Return the lists of a column as arrays, without a copy."""
    made = []
    for chunk in column.chunks:
        values, places = chunk.values.to_numpy(), chunk.offsets.to_pylist()
        made += [values[start:stop] for start, stop in pairwise(places)]
    return made


class Tally:
    """Counts the documents of one reading of a source, and stops it at the first that cannot be used.

    Args:
        source: The source, whose `limit` and `on_bad` hold.
    """

    def __init__(self, source: Source):
        self.source = source
        self.selection = source.selection()
        self.outcomes = np.zeros(PROBLEM + 1, np.int64)
        self.read = 0
        self.chat = False
        """Whether a document was a conversation."""
        self.full = False
        """Whether `limit` was reached."""
        self._reasons: dict[str, dict[str, Any]] = {}

    def pieces(self, tables: "Iterable[pa.Table]") -> Iterator[Pieces]:
        """Yield the pieces of tables that `Tokenize` has made, and count them.

        Raises:
            ConfigurationError: A document cannot be used and `on_bad` is `refuse`, or a part cannot be read on.
        """
        for table in tables:
            pieces = Pieces()
            ids, weights = split(table.column("ids")), split(table.column("weights"))
            outcomes, first, problems, ends = (
                table.column(name).to_pylist() for name in ("outcome", "first", "problem", "end")
            )
            for number, outcome in enumerate(outcomes):
                if not self._counts(problems[number], ends[number], first[number]):
                    continue
                if self.full:
                    break
                pieces.ids.append(ids[number])
                pieces.weights.append(weights[number])
                pieces.outcome.append(outcome)
                pieces.origins.append(self.read - 1)
            self.chat = self.chat or any(table.column("chat").to_pylist())
            self.outcomes += np.bincount(np.asarray(pieces.outcome, np.int64), minlength=PROBLEM + 1)
            yield pieces
            if self.full:
                return

    def _counts(self, problem: str, end: str, first: bool) -> bool:
        """Return whether the next row holds a piece; count what it holds instead."""
        if end:
            if problem:
                raise ConfigurationError(*json.loads(problem))
            self.selection.add(json.loads(end))
            return False
        if first and self.read == self.source.limit:
            self.full = True
            return True
        self.read += bool(first)
        if not problem:
            return True
        error = ConfigurationError(*json.loads(problem))
        if self.source.on_bad == "refuse":
            raise error
        self.outcomes[PROBLEM] += 1
        self._skip(error)
        return False

    def _skip(self, error: ConfigurationError) -> None:
        place, _, problem = error.problem.partition(": ")
        reason = ": ".join(part for part in (error.key, problem.partition(" (")[0]) if part)
        if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
            reason = OTHER
        known = self._reasons.setdefault(reason, {"reason": reason, "count": 0, "first": place})
        known["count"] += 1

    def facts(self) -> dict[str, Any]:
        """Return the counts for the manifest."""
        outcomes = self.outcomes.tolist()
        return {
            "documents": outcomes[WHOLE] + outcomes[CUT],
            "cut": outcomes[CUT],
            "dropped": outcomes[DROPPED],
            "empty": outcomes[EMPTY],
            "read": self.read,
            "conversations": self.chat,
            "lost_answers": outcomes[LOST],
            "nothing_to_learn": outcomes[UNLEARNABLE],
            "skipped": outcomes[PROBLEM],
            "left_out": self.selection.left_out,
            "skipped_for": list(self._reasons.values()),
        }

    def check(self, row_tokens: int) -> None:
        """Check, after everything was read, that something is left to train on. Raises ConfigurationError."""
        if self.read != self.source.limit:
            self.selection.check(self.read)
        facts = self.facts()
        if facts["documents"]:
            return
        lost = facts["dropped"] + facts["lost_answers"]
        fix = "raise `train.row_tokens` or set `overlong: cut`" if lost else "check the source"
        if not facts["dropped"] and facts["lost_answers"]:
            fix = "raise `train.row_tokens`"
        why = f"{losses(facts) or 'nothing was read'}, rows of {row_tokens} tokens"
        raise ConfigurationError(self.source.documents_key, f"the source has no usable document ({why})", fix)


def losses(facts: Mapping[str, Any]) -> str:
    """Return in words what a manifest's counts say of documents that were not trained whole; "" if all were."""
    return ", ".join(f"{facts[key]} {words}" for key, words in LOSSES.items() if facts.get(key))


def skipped(facts: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each reason for which documents were skipped."""
    listed = facts.get("skipped_for") or []
    return [f"{reason['count']} skipped: {reason['reason']} (first {reason['first']})" for reason in listed]
