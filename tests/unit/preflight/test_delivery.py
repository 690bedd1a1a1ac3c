"""Whether samples are streamed: never where training and sampling would wait for each other's resources."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.preflight.delivery import check_placement, chosen_delivery, scores_beside, training_cpus, workers_stay
from continual.preflight.resources import check_resources
from continual.training.resources import worker_cpus

TOKENIZER = "benchmarks.arithmetic.tokenizer:build"
TEXT = {"name": "old", "data": {"type": "text", "path": "old.txt"}}


LIVE: list[dict[str, Any]] = [{"type": "context_free", "samples": 64}]
CACHED: list[dict[str, Any]] = [{"type": "context_free", "samples": 64, "teacher": "cached"}]
FISHER: list[dict[str, Any]] = [{"type": "ewc", "estimate_on": "context_free"}]


def sequence(
    train: dict[str, Any], generate: dict[str, Any], mitigation: list[dict[str, Any]] = LIVE,
    evaluate: dict[str, Any] | None = None,
) -> Sequence:  # fmt: skip
    rows = {"type": "python", "function": "benchmarks.arithmetic.tasks:rows", "arguments": {"task": "sort"}}
    return Sequence.model_validate(
        {
            "name": "s",
            "model": {"type": "python", "build": "benchmarks.arithmetic.model:build", "tokenizer": TOKENIZER},
            "stages": [{"name": "one", "data": rows, "steps": 1}, {"name": "two", "data": rows, "steps": 1}],
            "mitigation": mitigation,
            "train": train,
            "generate": generate,
            "evaluate": evaluate or {},
        }
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "train", "generate", "expected"),
    [
        (2, 0, {}, {}, ("store", "to train and sample at one time takes 3 CPUs of 2")),
        (3, 0, {}, {}, ("stream", "training and sampling fit at one time")),
        (2, 0, {"cpus_per_worker": 0.5}, {"cpus_per_replica": 0.5}, ("stream", "training and sampling fit")),
        (16, 1, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, ("store", "takes 2 GPUs of 1")),
        (16, 2, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, ("stream", "")),
        (16, 8, {"gpus_per_worker": 1, "workers": 4}, {"gpus_per_replica": 1, "replicas": 5}, ("store", "9 GPUs of 8")),
        (None, None, {}, {}, ("store", "unknown")),
        (64, 8, {}, {"delivery": "store"}, ("store", "as `generate.delivery` says")),
        (4, 0, {}, {"delivery": "stream"}, ("stream", "as `generate.delivery` says")),
    ],
)  # fmt: skip
def test_the_choice_and_its_reason(
    cpus: float | None, gpus: float | None, train: dict[str, Any], generate: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = chosen_delivery(sequence(train, generate), cpus, gpus)
    assert found.delivery == expected[0]
    assert expected[1] in found.why


def test_without_samples_nothing_is_streamed() -> None:
    assert chosen_delivery(sequence({}, {"delivery": "stream"}, []), 64, 0).delivery == "store"


@pytest.mark.parametrize(
    ("cpus", "gpus", "train", "generate", "expected"),
    [
        (3, 0, {}, {}, ("store", "to train, sample and score at one time takes 4 CPUs of 3")),
        (4, 0, {}, {}, ("stream", "training, sampling and scoring fit at one time")),
        (2, 0, {"cpus_per_worker": 0.4}, {"cpus_per_replica": 0.3}, ("stream", "")),
        (2, 0, {"cpus_per_worker": 0.4}, {"cpus_per_replica": 0.4}, ("store", "takes 2.2 CPUs of 2")),
        (16, 2, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, ("store", "takes 3 GPUs of 2")),
        (16, 2, {"gpus_per_worker": 1}, {"gpus_per_replica": 0.5}, ("stream", "")),
        # One scorer for several engines: a pass over what is there is faster than sampling it.
        (16, 4, {"gpus_per_worker": 1}, {"gpus_per_replica": 1, "replicas": 2}, ("stream", "")),
    ],
)  # fmt: skip
def test_a_cached_teacher_is_counted(
    cpus: float | None, gpus: float | None, train: dict[str, Any], generate: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = chosen_delivery(sequence(train, generate, CACHED), cpus, gpus)
    assert found.delivery == expected[0]
    assert expected[1] in found.why


def test_what_needs_all_first_says_why() -> None:
    alone = chosen_delivery(sequence({}, {"delivery": "stream"}, FISHER), 64, 0)
    assert alone == ("store", "`ewc` comes first: its Fisher information is a sum over all documents")
    beside = chosen_delivery(sequence({}, {}, [*CACHED, {"type": "easy_samples"}, *FISHER]), 64, 0)
    assert beside.delivery == "stream"
    assert beside.why == (
        "training, sampling and scoring fit at one time; `easy_samples` comes first: its weights need the median of "
        "all losses; `ewc` comes first: its Fisher information is a sum over all documents"
    )


def test_a_stream_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"sampling beside training takes 2 CPUs .* `generate.delivery: store`"
    ):
        check_resources(sequence({}, {"delivery": "stream"}), 2, 0)
    gpus = sequence({"gpus_per_worker": 1}, {"gpus_per_replica": 1, "delivery": "stream"})
    with pytest.raises(ConfigurationError, match=r"sampling beside training takes 2 GPUs, but there are 1; write"):
        check_resources(gpus, 16, 1)
    with pytest.raises(ConfigurationError, match=r"sampling with scoring beside training takes 3 CPUs and .* are 3;"):
        check_resources(sequence({}, {"delivery": "stream"}, CACHED), 3, 0)
    check_resources(sequence({}, {"delivery": "stream"}, CACHED), 4, 0)
    check_resources(sequence({}, {"delivery": "stream"}, FISHER), 2, 0)
    check_resources(sequence({}, {"delivery": "stream"}), 3, 0)


@given(
    cpus=st.integers(1, 8), gpus=st.integers(0, 4), workers=st.integers(1, 4), each=st.sampled_from([None, 0.5, 1, 2]),
    worker_gpus=st.sampled_from([0, 0.5, 1]), replicas=st.integers(1, 4), engine_cpus=st.sampled_from([0.5, 1, 2]),
    engine_gpus=st.sampled_from([0, 0.5, 1, 2]), delivery=st.sampled_from(["auto", "stream", "store"]),
    mitigation=st.sampled_from([LIVE, CACHED, FISHER, [*FISHER, *CACHED]]),
)  # fmt: skip
def test_what_runs_at_one_time_always_fits(
    cpus: int, gpus: int, workers: int, each: float | None, worker_gpus: float, replicas: int, engine_cpus: float,
    engine_gpus: float, delivery: str, mitigation: list[dict[str, Any]],
) -> None:  # fmt: skip
    """Every plan is refused, or engines, a scorer, workers and the reading of rows have theirs at the same time."""
    made = sequence(
        {"workers": workers, "cpus_per_worker": each, "gpus_per_worker": worker_gpus},
        {
            "replicas": replicas, "cpus_per_replica": engine_cpus, "gpus_per_replica": engine_gpus,
            "delivery": delivery,
        },
        mitigation,
    )  # fmt: skip
    try:
        check_resources(made, cpus, gpus)
    except ConfigurationError:
        return
    chosen = chosen_delivery(made, cpus, gpus).delivery
    others = (chosen == "stream") * (replicas + (CACHED[0] in mitigation))
    training = workers * worker_cpus(made.train, training_cpus(made, chosen, cpus))
    assert training + others * engine_cpus < cpus  # something is left for the readers
    assert workers * worker_gpus + others * engine_gpus <= gpus
    if workers_stay(made, chosen, cpus, gpus):
        assert training + max(replicas * engine_cpus, 1) < cpus  # the same, and the reading of another source
        assert workers * worker_gpus + replicas * engine_gpus <= gpus


@pytest.mark.parametrize(
    ("cpus", "gpus", "train", "generate", "evaluate", "expected"),
    [
        (2, 0, {}, {}, {}, (False, "that is 4 CPUs of 2")),
        (4, 0, {}, {}, {}, (True, "both fit")),
        (2, 0, {}, {}, {"overlap": True}, (True, "as `evaluate.overlap` says")),
        (64, 8, {}, {}, {"overlap": False}, (False, "as `evaluate.overlap` says")),
        (64, 8, {}, {}, {"old_tasks": [], "tasks": False}, (False, "nothing is scored")),
        (8, 1, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, {"gpus": 1}, (False, "that is 2 GPUs of 1")),
        (8, 2, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, {"gpus": 1}, (False, "that is 3 GPUs of 2")),
        (8, 3, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, {"gpus": 1}, (True, "both fit")),
        (None, None, {}, {}, {}, (False, "unknown")),
    ],
)  # fmt: skip
def test_scoring_beside_the_next_stage(
    cpus: float | None, gpus: float | None, train: dict[str, Any], generate: dict[str, Any], evaluate: dict[str, Any],
    expected: tuple[bool, str],
) -> None:  # fmt: skip
    scored = evaluate.pop("tasks", True)
    made = sequence(train, generate, evaluate={"texts": [TEXT] if scored else [], **evaluate})
    found = scores_beside(made, chosen_delivery(made, cpus, gpus).delivery, cpus, gpus)
    assert found.beside is expected[0]
    assert expected[1] in found.why


def test_an_overlap_that_does_not_fit_is_refused() -> None:
    asked = sequence(
        {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, evaluate={"texts": [TEXT], "overlap": True, "gpus": 1}
    )
    with pytest.raises(ConfigurationError, match=r"evaluate.overlap: .* takes 3 GPUs, but there are 2; write auto"):
        check_placement(asked, 16, 2)
    check_placement(asked, 16, 3)


@pytest.mark.parametrize(
    ("cpus", "gpus", "train", "generate", "sampled", "expected"),
    [
        (2, 0, {}, {}, True, True),
        (2, 0, {"workers": 2}, {}, True, True),
        (2, 0, {"cpus_per_worker": 1}, {}, True, False),
        (2, 0, {"cpus_per_worker": 1}, {"replicas": 2, "cpus_per_replica": 2}, False, False),
        (3, 0, {"cpus_per_worker": 1}, {"cpus_per_replica": 2}, False, True),
        (3, 0, {"cpus_per_worker": 1}, {"cpus_per_replica": 2}, True, False),
        (8, 1, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, True, False),
        (8, 1, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, False, True),
        (8, 2, {"gpus_per_worker": 1}, {"gpus_per_replica": 1}, True, True),
        (8, 1, {"gpus_per_worker": 0.5}, {"gpus_per_replica": 0.5}, True, True),
    ],
)
def test_workers_stay_where_what_comes_between_stages_fits_beside_them(
    cpus: float, gpus: float, train: dict[str, Any], generate: dict[str, Any], sampled: bool, expected: bool
) -> None:
    assert workers_stay(sequence(train, generate, LIVE if sampled else []), "store", cpus, gpus) is expected
