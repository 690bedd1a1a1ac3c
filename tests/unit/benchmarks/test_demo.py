"""The demo's last lines: two runs next to each other."""

from typing import Any

from benchmarks.arithmetic.demo import side_by_side
from continual.forgetting import Score, StageScores, matrix_as_json

MATRIX = [
    StageScores(0, "start", {"a": Score(0.0, 0.001), "b": Score(-1.3)}),
    StageScores(1, "first", {"a": Score(0.99, 0.01), "b": Score(-1.3)}),
    StageScores(2, "second", {"a": Score(0.97, 0.01), "b": Score(-2.25)}),
]
SUMMARY: dict[str, Any] = {
    "tasks": ["a", "b"], "matrix": matrix_as_json(MATRIX), "average_score": 0.98, "forgetting": 0.02,
    "stderr": {"forgetting": 0.014},
}  # fmt: skip


def test_two_runs_side_by_side() -> None:
    other = {**SUMMARY, "forgetting": 0.97, "tasks": ["a"]}
    text = side_by_side({"with replay": SUMMARY, "without": other})
    lines = text.splitlines()
    assert lines[0].split("  ")[1] == "with replay"
    assert lines[0].endswith("without")
    assert any(line.count("forgetting ") == 2 and "0.020" in line and "0.970" in line for line in lines)
    assert len({line.index("stage", 10) for line in lines if line.count("stage") == 2}) == 1
