"""Exports inside a stage that wait for a slow, a failing or a missing scorer: real steps and files, no Ray."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from continual.errors import ContinualError
from continual.evaluation import inside
from continual.evaluation.actors import Evaluators
from continual.evaluation.inside import InsideStage
from continual.ledger.folder import steps_in
from continual.ledger.lines import read_lines
from continual.store import write_atomic
from continual.testing import loop
from continual.testing.toys import context, without_ray
from continual.training import backlog
from continual.training.checkpoints import newest_valid
from continual.training.job import TrainJob
from continual.training.worker import Worker

STEPS, MOST = 8, 2
EVALUATED = list(range(1, STEPS))
"""The steps inside the stage that are exported with `evaluate.every: 1`; the last one has the stage's own model."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    without_ray(monkeypatch)
    made = loop.job_of(context(tmp_path, [], checkpoint_every=100))
    assert made.most_exports == MOST
    monkeypatch.setattr(backlog, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(inside, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(ray, "wait", ready)
    monkeypatch.setattr(ray, "get", lambda call: call.result())
    return replace(made, steps=STEPS, evaluate_every=1)


def ready(calls: list[Future[None]], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
    """Do what `ray.wait` does."""
    done, left = wait(calls, timeout, return_when="FIRST_COMPLETED")
    return list(done), list(left)


@dataclass
class Scorer:
    """Stands for an evaluating process that has begun, takes `seconds` for an export, or fails at those of `fails`.

    It takes longer while `is_slow()`.
    """

    seconds: float
    fails: tuple[int, ...] = ()
    begins: threading.Event | None = None
    asked: list[int] = field(default_factory=list)
    is_slow: Callable[[], bool] = lambda: False

    @property
    def evaluate(self) -> Any:
        return SimpleNamespace(remote=self._remote)

    def _remote(self, export: str, output: str, texts: Any) -> Future[None]:
        call, step = Future[None](), int(Path(output).name.removeprefix("step-"))
        self.asked.append(step)
        threading.Thread(target=self._score, args=(call, step, Path(export), Path(output)), daemon=True).start()
        return call

    def _score(self, call: Future[None], step: int, export: Path, output: Path) -> None:
        if self.begins:
            self.begins.wait(60)
        while self.is_slow():
            time.sleep(0.01)
        time.sleep(self.seconds)
        if step in self.fails:
            call.set_exception(ray.exceptions.RayError("out of memory"))
            return
        assert (export / "model.safetensors").is_file()
        write_atomic(output.with_suffix(".json"), json.dumps({"scores": {"task": {"score": step / 100}}}))
        call.set_result(None)


@dataclass
class Stage:
    """A stage that trains in a thread, while this thread polls its exports as the driver does."""

    job: TrainJob
    scorer: Scorer
    runs: Callable[[Any], bool] = lambda actor: True
    reported: list[int] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        evaluators = Evaluators(lambda: self.scorer, 1, runs=self.runs)
        given: Any = SimpleNamespace(evaluators=evaluators, texts_since=lambda stage_start: {})
        self.inside = InsideStage(
            given, self.job.files, set(), lambda step, scores: self.reported.append(step), self.job.most_exports,
            self.told.append,
        )  # fmt: skip

    def train(self, polls: bool = True) -> None:
        """Train to the stage's end, or to a failed evaluation, which stops it as the driver does. It must end."""
        for leftover in (self.job.files.stop, self.job.files.unscored):
            leftover.unlink(missing_ok=True)
        thread = threading.Thread(target=loop.run, args=(self.job,), daemon=True)
        thread.start()
        try:
            while polls and thread.is_alive():
                self.inside.poll()
                time.sleep(0.01)
        except ContinualError:
            self.job.files.stop.touch()
            raise
        finally:
            thread.join(60)
            assert not thread.is_alive(), "the training waits for ever"

    def weights(self) -> dict[str, torch.Tensor]:
        return {
            name: value.detach() for name, value in loop.worker_of(self.job).strategy.module.model.named_parameters()
        }


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many exports there were after each one."""
    export, counts = Worker.export, list[int]()

    def counting(self: Worker, folder: Path) -> None:
        export(self, folder)
        counts.append(len(steps_in(self.job.files.evaluations)))

    monkeypatch.setattr(Worker, "export", counting)
    yield counts


def test_the_training_waits_for_a_slow_scorer_and_nothing_is_left_out(
    job: TrainJob, peaks: list[int], tmp_path: Path
) -> None:
    free = replace(job, folder=tmp_path / "free", most_exports=None)
    trained = threading.Event()

    def has_room() -> bool:
        return len(steps_in(job.files.evaluations)) < MOST and len(peaks) < len(EVALUATED)

    stages = [Stage(free, Scorer(0.0, begins=trained)), Stage(job, Scorer(0.3, is_slow=has_room))]
    stages[0].train()
    trained.set()
    stages[0].inside.finish()
    assert max(peaks) == len(EVALUATED)
    peaks.clear()
    stages[1].train()
    stages[1].inside.finish()
    assert len(peaks) == len(EVALUATED)
    assert max(peaks) == MOST
    assert [stage.reported for stage in stages] == [EVALUATED, EVALUATED]
    assert [stage.told for stage in stages] == [[], []], "a scorer that works is waited for, however long it takes"
    records = [read_lines(stage.job.files.metrics) for stage in stages]
    waits = [[record["step"] for record in of if "evaluation_wait" in record] for of in records]
    assert waits[0] == []
    assert set(waits[1]) & {4, 5, 6, 7}
    waited = [record for record in records[1] if "evaluation_wait" in record]
    assert all(0 < record["evaluation_wait"] <= record["seconds"] for record in waited)
    assert [record["loss"] for record in records[0]] == [record["loss"] for record in records[1]]
    first, second = (stage.weights() for stage in stages)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_where_no_process_starts_the_training_goes_on_and_says_so(job: TrainJob, peaks: list[int]) -> None:
    begins = threading.Event()
    stage = Stage(job, Scorer(0.0, begins=begins), runs=lambda actor: begins.is_set())
    stage.train()
    assert max(peaks) == len(EVALUATED)
    assert len(stage.told) == 1
    assert "no evaluating process" in stage.told[0]
    assert job.files.unscored.exists()
    begins.set()
    stage.inside.finish()
    assert not job.files.unscored.exists()
    assert stage.reported == EVALUATED
    assert steps_in(job.files.evaluations) == {}


def test_a_failed_evaluation_ends_a_training_that_would_wait_for_it_with_a_checkpoint(
    job: TrainJob, peaks: list[int], tmp_path: Path
) -> None:
    whole = Stage(replace(job, folder=tmp_path / "whole"), Scorer(0.0))
    whole.train()
    stage = Stage(job, Scorer(0.05, fails=(3,)))
    with pytest.raises(ContinualError, match=r"an evaluation inside the stage failed: .*out of memory"):
        stage.train()
    step, _ = newest_valid(job.checkpoints)
    assert 3 < step < STEPS, "it stopped after a step, and kept it"
    assert set(steps_in(job.files.evaluations)) >= {3}, "what could not be scored is there for the next start"
    assert stage.reported == [1, 2]
    again = Stage(job, Scorer(0.0))
    again.train()
    again.inside.finish()
    assert sorted({*stage.reported, *again.reported}) == EVALUATED
    assert [record["step"] for record in read_lines(job.files.metrics)] == list(range(1, STEPS + 1))
    first, second = whole.weights(), again.weights()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_ctrl_c_ends_the_wait_and_keeps_the_export(job: TrainJob) -> None:
    """Nobody scores, as after the death of a driver: the wait does not end by itself."""
    stage = Stage(job, Scorer(0.0))
    stop = threading.Timer(3.0, job.files.stop.touch)
    stop.start()
    stage.train(polls=False)
    assert newest_valid(job.checkpoints)[0] == MOST + 1
    assert list(steps_in(job.files.evaluations)) == [1, 2, 3]
    again = Stage(job, Scorer(0.0))
    again.train()
    again.inside.finish()
    assert again.reported == EVALUATED


def test_a_step_that_was_exported_before_a_resume_is_not_waited_for(job: TrainJob) -> None:
    for step in (3, 4):
        job.files.export(step).mkdir(parents=True)
    asked: list[bool] = []

    def agreed(full: bool) -> bool:
        asked.append(full)
        return False

    assert [backlog.wait_for_scores(job, step, agreed) for step in (3, 5, STEPS)] == [0.0] * 3
    assert asked == [False, True], "the last step exports nothing inside the stage, and asks nobody"
