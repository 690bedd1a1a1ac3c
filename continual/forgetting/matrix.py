"""The matrix of scores: a row per stage, a column per task or text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.forgetting.score import Scores, are_scores, scores_from_json


@dataclass(frozen=True)
class StageScores:
    """A row of the matrix: the scores of the model after a stage. Stage 0 is the start model, named `start`."""

    stage: int
    name: str
    scores: Scores

    @property
    def title(self) -> str:
        """The row's name in tables and figures, e.g. `1 sort`."""
        return f"{self.stage} {self.name}"


Matrix = Sequence[StageScores]


def are_rows(entries: Any) -> bool:
    """Return whether a value of JSON is the rows of a matrix, as `read_matrix` takes them."""
    return isinstance(entries, list) and all(
        isinstance(row, dict) and isinstance(row.get("stage"), int) and isinstance(row.get("name"), str)
        and are_scores(row.get("scores"))
        for row in entries
    )  # fmt: skip


def read_matrix(entries: Iterable[Mapping[str, Any]]) -> list[StageScores]:
    """Return the matrix in the order of its stages.

    `entries` are a ledger's `scored` events, of which the newest of each stage counts, or summary.json's matrix.
    """
    newest = {entry["stage"]: entry for entry in entries}
    return [StageScores(k, newest[k]["name"], scores_from_json(newest[k]["scores"])) for k in sorted(newest)]


def matrix_as_json(matrix: Matrix) -> list[dict[str, Any]]:
    """Return the matrix as summary.json has it: {stage, name, scores: {task: {score, stderr, n}}} per row."""
    return [
        {
            "stage": row.stage,
            "name": row.name,
            "scores": {task: {"score": s.score, "stderr": s.stderr, "n": s.n} for task, s in row.scores.items()},
        }
        for row in matrix
    ]


def tasks_of(matrix: Matrix) -> list[str]:
    """Return the columns of the matrix: every scored task and text once, in the order of the rows."""
    return list(dict.fromkeys(task for row in matrix for task in row.scores))


def units_of(matrix: Matrix) -> dict[str, str]:
    """Return the unit of every task's and text's score."""
    return {task: score.unit for row in matrix for task, score in row.scores.items()}
