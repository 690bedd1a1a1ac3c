"""A step in which nothing is learned fails with a sentence, whatever made it so."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.order import first_ranks, rank_share
from continual.training.step import Stepper, micro_batches


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


@given(
    rows=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    ranks=st.integers(1, 6),
    size=st.none() | st.integers(1, 4),
    strategy=st.sampled_from(["ddp", "fsdp"]),
)
def test_every_row_goes_through_once_and_padding_through_no_pass_but_those_that_ranks_share(
    rows: list[int], ranks: int, size: int | None, strategy: str
) -> None:
    train = Train.model_validate({"strategy": strategy, "micro_rows": size})
    streams: list[Any] = [SimpleNamespace(name=str(number), rows_per_step=count) for number, count in enumerate(rows)]
    job: Any = SimpleNamespace(train=train, streams=streams)
    passes = [micro_batches(job, rank, ranks) for rank in range(ranks)]
    firsts = first_ranks(streams, ranks)
    for made in streams:
        read: list[int] = []
        for rank in range(ranks):
            share = rank_share(np.arange(made.rows_per_step), rank, ranks, firsts[made.name])
            for part in (share[part] for stream, part in passes[rank] if stream is made):
                assert len(part) >= 1
                assert size is None or len(part) <= size
                # Padding is alone in its pass, and there is such a pass only where others wait for it.
                assert len(part) == 1 or part.min() >= 0
                assert part.min() >= 0 or strategy == "fsdp" or len(passes[rank]) == 1
                read += part[part >= 0].tolist()
        assert sorted(read) == list(range(made.rows_per_step))
    if strategy == "fsdp":
        assert len({len(each) for each in passes}) == 1


def test_a_pass_over_padding_alone_is_short() -> None:
    """It has to be made, since other ranks make it, and takes two tokens of a row."""
    seen: list[tuple[int, ...]] = []

    def strategy(ids: torch.Tensor, *others: torch.Tensor, columns: Any, **_: Any) -> torch.Tensor:
        seen.append((*ids.shape, *columns["top_ids"].shape[1:]))
        return ids.sum() * 0.0

    made = stepper()
    made.job.train, made.strategy, made.teachers = Train(), strategy, {}  # type: ignore[assignment, misc]
    made.borders = False
    shape = (2, 8)
    rows = {name: torch.zeros(shape) for name in ("ids", "positions", "weights")} | {"top_ids": torch.zeros(*shape, 3)}
    rows["weights"][0, 5] = 1.0
    replay: Any = SimpleNamespace(loss=None, teacher=None)
    for part in (slice(0, 1), slice(1, 2), slice(0, 2)):
        made.loss_sum(replay, rows, part)
    assert seen == [(1, 8, 8, 3), (1, 2, 2, 3), (2, 8, 8, 3)]
