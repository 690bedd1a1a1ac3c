"""Every strategy with 1, 2 and 4 gloo processes, without Ray: the losses are those of one process under ddp."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from continual.testing import loop, two_ranks
from continual.testing.toys import context, without_ray
from continual.testing.two_ranks import STEPS, Losses
from continual.training.checkpoints import step_folder
from continual.training.job import TrainJob

pytestmark = pytest.mark.slow
HALF = STEPS // 2
ZERO3 = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
"""Small parameters would stay whole on every rank."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3, "deepspeed": ZERO3},
}
KL = {"type": "context_free", "loss": "kl", "held_out": 2}
METHODS: dict[str, list[dict[str, Any]]] = {
    "nll": [],
    "live kl": [KL],
    "cached kl": [{**KL, "teacher": "cached", "teacher_top_k": 8}],
    "l2_start": [{"type": "l2_start", "weight": 10.0}],
    "ewc": [{"type": "ewc", "weight": 10.0, "documents": 8}],
    # Of its matrices with two rows, two of four ranks hold nothing.
    "lora": [{"type": "lora", "rank": 2, "alpha": 64.0}],
}
TRAIN: dict[str, dict[str, Any]] = {"lora": {"epsilon": 1e-4}}
"""Half of an adapter begins with gradients of 0: with 1e-8 Adam makes full steps of what is rounded in the next ones,
and after 20 steps the losses of one and of two ranks differ by 1.8e-5, under ddp, too.
"""
RESUMED = [(method, name) for method in ("live kl", "lora") for name in ("fsdp", "zero3")]
CASES = [(method, name) for method in METHODS for name in STRATEGIES]
Found = dict[str, dict[str, Losses]]
"""The losses by method and strategy."""


def job(folder: Path, method: str, name: str, ranks: int, at: str = "") -> TrainJob:
    """Return a job in `folder`, by default one of its own; methods share what they store, and it is made once."""
    ctx = context(
        folder / method,
        METHODS[method],
        workers=ranks,
        checkpoint_every=HALF,
        **STRATEGIES[name],
        **TRAIN.get(method, {}),
    )
    return loop.job_of(ctx, folder / method / (at or f"{name} {ranks}"))


def jobs_of(folder: Path, ranks: int) -> dict[str, dict[str, TrainJob]]:
    jobs: dict[str, dict[str, TrainJob]] = {}
    for method, name in CASES:
        jobs.setdefault(method, {})[name] = job(folder, method, name, ranks)
    return jobs


def resumed(folder: Path, method: str, name: str, ranks: int) -> TrainJob:
    """Return a job that goes on from what two ranks have saved in the middle."""
    made = job(folder, method, name, ranks, f"{name} from 2 to {ranks}")
    saved = step_folder(job(folder, method, name, 2).checkpoints, HALF)
    shutil.copytree(saved, step_folder(made.checkpoints, HALF))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        yield tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Losses]:
    """The losses of one process under ddp, of which no group is made."""
    losses = {}
    for method in METHODS:
        records, _ = loop.run(job(folder, method, "ddp", 1, "alone"))
        losses[method] = [record["loss"] for record in records]
        assert losses[method][-1]["task"] < losses[method][0]["task"], "a step that is left out would show"
    return losses


@pytest.fixture(scope="module")
def two(folder: Path) -> Found:
    return two_ranks.losses_of(jobs_of(folder, 2), folder)


@pytest.fixture(scope="module", params=[1, 4])
def others(request: pytest.FixtureRequest, folder: Path, two: Found) -> Found:
    """The losses with other numbers of ranks, of the whole stage and of what was left when two had saved."""
    ranks = request.param
    jobs = jobs_of(folder, ranks)
    for method, name in RESUMED:
        jobs[method][f"{name}, resumed"] = resumed(folder, method, name, ranks)
    (place := folder / str(ranks)).mkdir()
    return two_ranks.losses_of(jobs, place, ranks)


@pytest.mark.parametrize(("method", "name"), CASES)
def test_two_ranks_train_as_one_alone(two: Found, expected: dict[str, Losses], method: str, name: str) -> None:
    two_ranks.assert_equal({"ddp": expected[method], f"{name} of two": two[method][name]})


@pytest.mark.parametrize(("method", "name"), CASES)
def test_one_rank_and_four_train_as_one_alone(
    others: Found, expected: dict[str, Losses], method: str, name: str
) -> None:
    two_ranks.assert_equal({"ddp": expected[method], f"{name} of others": others[method][name]})


@pytest.mark.parametrize(("method", "name"), [case for case in CASES if case[0] in ("live kl", "cached kl")])
def test_two_ranks_measure_the_drift_of_one_alone_and_its_error(
    folder: Path, two: Found, expected: dict[str, Losses], method: str, name: str
) -> None:
    found, alone = (loop.read_lines(job(folder, method, *of).files.metrics) for of in ((name, 2), ("ddp", 1, "alone")))
    measured = [record for record in alone if "drift" in record]
    assert measured
    for record, other in zip(measured, [record for record in found if "drift" in record], strict=True):
        for key in ("drift", "drift_stderr"):
            assert record[key]["context_free"] > 0
            assert other[key] == pytest.approx(record[key], rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize(("method", "name"), RESUMED)
def test_what_two_ranks_saved_goes_on_with_others(
    two: Found, others: Found, expected: dict[str, Losses], method: str, name: str
) -> None:
    after = others[method][f"{name}, resumed"]
    assert len(after) == STEPS - HALF, "it began anew"
    two_ranks.assert_equal({"ddp": expected[method], name: two[method][name][:HALF] + after})
