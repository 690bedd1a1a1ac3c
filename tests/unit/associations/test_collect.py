"""The matrix of what runs have stored: increases of losses, or right answers that were lost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from continual.associations import collect as module
from continual.associations.collect import collect
from continual.errors import ContinualError
from continual.evaluation.names import TEXT_UNIT

Values = dict[str, tuple[float, float]]


class Runs:
    """Runs of one stage; `scored` has the values of each document by task and stage (0: the start model)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unit: str, scored: dict[str, tuple[Values, Values]]):
        self.unit, self.scored = unit, scored
        monkeypatch.setattr(module, "read_events", self.events)
        monkeypatch.setattr(module, "stored_values", lambda event, task, store: event["values"])

    def events(self, folder: Path, event: str) -> list[dict[str, Any]]:
        if event == "start_model":
            return [{"hash": "h"}]
        scores = {"up": {"unit": self.unit, "metric": "acc"}}
        return [{"stage": n, "scores": scores, "values": v} for n, v in enumerate(self.scored[folder.name])]

    def outcomes(self) -> list[Any]:
        return [
            SimpleNamespace(trial=SimpleNamespace(name=f"run-{task}", loaded=self._loaded(task)))
            for task in self.scored
        ]

    def _loaded(self, task: str) -> Any:
        sequence = SimpleNamespace(storage="s", seed=3, stages=[SimpleNamespace(name=task)])
        resolved = {"model": {}, "train": {}, "evaluate": {"texts": []}, "stages": [{"steps": 1}]}
        return SimpleNamespace(run_folder=Path(task), sequence=sequence, resolved=resolved)


def test_losses_are_per_token_and_forgetting_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    before: Values = {"up/0": (-10.0, 5.0), "up/7": (-3.0, 1.0)}
    after: Values = {"up/0": (-20.0, 5.0), "up/7": (-2.5, 1.0)}
    runs = Runs(monkeypatch, TEXT_UNIT, {"x": (before, after), "y": (before, before)})
    found = collect("up", runs.outcomes())
    assert (found.kind, found.tasks, found.documents) == ("nats", ("x", "y"), ("0", "7"))
    np.testing.assert_allclose(found.before, [2.0, 3.0])
    np.testing.assert_allclose(found.change, [[2.0, -0.5], [0.0, 0.0]])
    assert found.facts["tasks"]["x"] == {"run": "run-x", "steps": 1}


def test_only_what_was_right_can_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    before: Values = {"up/a": (1.0, 1.0), "up/b": (0.0, 1.0), "up/c": (2.0, 2.0)}
    after: Values = {"up/a": (0.0, 1.0), "up/b": (1.0, 1.0), "up/c": (2.0, 2.0)}
    found = collect("up", Runs(monkeypatch, "accuracy", {"x": (before, after)}).outcomes())
    assert (found.kind, found.documents) == ("lost", ("a", "c"))
    assert found.change.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"up/a": (0.5, 1.0)}, {"up/a": (0.5, 1.0)}, "neither right nor wrong"),
        ({"up/a": (0.0, 1.0)}, {"up/a": (0.0, 1.0)}, "right on no document"),
        ({"up/a": (1.0, 1.0)}, {"up/b": (1.0, 1.0)}, "not all evaluations of `up` are of the same documents"),
        ({"up/a": (1.0, 1.0)}, {}, "gone or damaged"),
    ],
)
def test_what_is_no_matrix_is_told(monkeypatch: pytest.MonkeyPatch, before: Values, after: Values, words: str) -> None:
    with pytest.raises(ContinualError, match=words):
        collect("up", Runs(monkeypatch, "accuracy", {"x": (before, after)}).outcomes())
