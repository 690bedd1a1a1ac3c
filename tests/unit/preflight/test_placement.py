"""What a sequence leaves to the hardware: evaluation takes a GPU where that hinders nothing else, and says so."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from continual.config.load import load_sequence
from continual.config.schema import Sequence
from continual.errors import ConfigurationError
from continual.evaluation.service import evaluators_of
from continual.preflight.delivery import check_placement
from continual.preflight.placement import placed
from continual.preflight.plan import make_plan
from continual.preflight.resources import Machine
from tests.kits.project import write_project
from tests.unit.preflight.test_delivery import LIVE, TEXT, sequence

GPU, ENGINE = {"gpus_per_worker": 1}, {"gpus_per_replica": 1}


def made(train: dict[str, Any], generate: dict[str, Any], **evaluate: Any) -> Sequence:
    return sequence(train, generate, LIVE, {"texts": [TEXT], **evaluate})


@pytest.mark.parametrize(
    ("gpus", "given", "chosen", "why"),
    [
        (0, made({}, {}), 0, ""),
        (None, made(GPU, ENGINE), 0, "when the run connects"),
        (1, made(GPU, ENGINE), 1, "a GPU is free"),
        (1, made({}, {}), 1, "a GPU is free"),
        (8, made({**GPU, "workers": 8}, {**ENGINE, "replicas": 8}), 1, "a GPU is free"),
        (1, made(GPU, ENGINE, every=5), 0, "training takes 2 GPUs (1 of them to evaluate), but there are 1"),
        (2, made(GPU, ENGINE, every=5), 1, "a GPU is free"),
        (2, made(GPU, ENGINE, replicas=4), 0, "evaluation takes 4 GPUs"),
        (1, made(GPU, ENGINE, overlap=True), 0, "scoring beside the next stage takes 2 GPUs"),
        (8, made(GPU, ENGINE, gpus=0), 0, ""),
        (8, made(GPU, ENGINE, gpus=0.5), 0.5, ""),
    ],
)
def test_evaluation_takes_a_gpu_where_one_is_free(gpus: float | None, given: Sequence, chosen: float, why: str) -> None:
    found = placed(given, 64, gpus)
    assert found.sequence.evaluate.reserved_gpus == chosen
    assert why in found.why
    assert bool(why) == bool(found.why)
    assert given.model_dump(exclude={"evaluate": {"gpus"}}) == found.sequence.model_dump(exclude={"evaluate": {"gpus"}})


def test_where_nothing_is_measured_nothing_is_chosen() -> None:
    given = sequence(GPU, ENGINE)
    assert placed(given, 64, 8) == (given, "")


def test_a_choice_never_makes_a_sequence_that_fits_one_that_does_not() -> None:
    fits = 0
    for cpus, gpus, workers, every, overlap, delivery, replicas in product(
        (2, 4, 16), (0, 1, 2, 4), (1, 2), (None, 3), ("auto", True), ("auto", "stream"), (1, 2)
    ):
        train, generate = {**GPU, "workers": workers}, {**ENGINE, "delivery": delivery}
        given = made(train, generate, every=every, overlap=overlap, replicas=replicas)
        try:
            check_placement(given, cpus, gpus)
        except ConfigurationError:
            continue
        fits += 1
        check_placement(placed(given, cpus, gpus).sequence, cpus, gpus)
    assert fits > 50


def test_the_plan_says_what_was_chosen_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    text = "evaluate.texts=[{name: old, data: {type: jsonl, path: qa.jsonl, prompt: question, completion: answer}}]"

    def told(gpus: float, *more: str) -> str:
        monkeypatch.setattr("continual.preflight.plan.detect_machine", lambda: Machine(16, gpus))
        return make_plan(load_sequence("seq.yaml", [text, *more])).facts["evaluation"]

    assert told(0) == "old; at the start, after every stage, beside the next one"
    assert told(1).endswith("; hf, 1 process with 1 GPU (a GPU is free for it)")
    training = ("train.gpus_per_worker=1", "evaluate.every=2")
    assert told(1, *training).endswith(
        "; hf, 1 process with CPUs (with a GPU, training takes 2 GPUs (1 of them to evaluate), but there are 1)"
    )
    assert told(1, "evaluate.gpus=0").endswith("beside the next one")
    assert told(1, "evaluate.gpus=null") == told(1)
    with pytest.raises(ConfigurationError, match="at least 0"):
        load_sequence("seq.yaml", ["evaluate.gpus=-1"])


def test_actors_hold_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = evaluators_of(placed(made(GPU, ENGINE), 64, 1).sequence, 1)
    given = evaluators_of(made(GPU, ENGINE), 1)
    assert (chosen._frees, given._frees) == (True, False)
