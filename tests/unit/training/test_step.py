"""A step in which nothing is learned fails with a sentence, whatever made it so."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from continual.errors import ContinualError
from continual.training.step import Stepper


def stepper(*streams: Any) -> Stepper:
    made = object.__new__(Stepper)
    made.job = SimpleNamespace(streams=list(streams))  # type: ignore[assignment]
    made.world_size, made.device = 1, torch.device("cpu")
    return made


def stream(name: str, weighed: bool = False) -> Any:
    return SimpleNamespace(name=name, token_weights=("artefact",) if weighed else ())


def batch(**weights: list[list[float]]) -> Any:
    return {name: {"weights": torch.tensor(rows)} for name, rows in weights.items()}


def checked(made: Stepper, rows: Any) -> None:
    counts, _, _ = made.counts(rows, stop=False)
    made.check(6, counts)


@pytest.mark.parametrize("nothing", [[[0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
def test_a_step_without_a_position_to_learn_from_fails(nothing: list[list[float]]) -> None:
    with pytest.raises(ContinualError, match="`task` has no position to learn from in step 7; check its data"):
        checked(stepper(stream("task")), batch(task=nothing))


def test_a_stream_without_a_position_fails_beside_one_that_has_some() -> None:
    rows = batch(task=[[0.0, 1.0]], replay=[[0.0, 0.0]])
    with pytest.raises(ContinualError, match="`replay` has no position"):
        checked(stepper(stream("task"), stream("replay")), rows)


def test_a_method_may_weigh_all_of_a_streams_tokens_to_zero_in_a_step_but_not_all_tokens() -> None:
    both = stepper(stream("task", weighed=True), stream("replay"))
    checked(both, batch(task=[[0.0, 0.0]], replay=[[0.0, 1.0]]))
    with pytest.raises(ContinualError, match="what weighs its tokens"):
        checked(stepper(stream("task", weighed=True)), batch(task=[[0.0, 0.0]]))
