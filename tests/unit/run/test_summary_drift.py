"""The drift of every stage's model in the summary, by the model that it is measured from."""

from typing import Any

from continual.forgetting import Score, StageScores
from continual.run.summary import drifts

MATRIX = [
    StageScores(0, "start", {"c4": Score(-2.0, drift=0.0, drift_stderr=0.0), "task": Score(0.5)}),
    StageScores(1, "one", {"c4": Score(-2.1, drift=0.2, drift_stderr=0.02, drift_stage=0.2, drift_stage_stderr=0.02)}),
    StageScores(2, "two", {"c4": Score(-2.2, drift=0.3, drift_stderr=0.03, drift_stage=0.1)}),
]


def test_each_stage_has_its_drift_from_the_start_model_and_from_its_own_start() -> None:
    def of(stage: int, name: str, drift: float, error: float | None) -> dict[str, Any]:
        return {"stage": stage, "name": name, "drift": drift, "stderr": error}

    first = of(1, "one", 0.2, 0.02)
    assert drifts(MATRIX, "drift") == {"c4": [of(0, "start", 0.0, 0.0), first, of(2, "two", 0.3, 0.03)]}
    assert drifts(MATRIX, "drift_stage") == {"c4": [first, of(2, "two", 0.1, None)]}


def test_a_run_of_an_earlier_version_has_none_from_the_stages_start() -> None:
    old = [StageScores(1, "one", {"c4": Score(-2.1, drift=0.2, drift_stderr=0.02)})]
    assert drifts(old, "drift_stage") == {}
