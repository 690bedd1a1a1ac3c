"""How often workers start again, and when they end: a scripted group stands for Ray Train's failures."""

import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from continual.config.schema import Train
from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.store import publish_folder
from continual.training import launch
from continual.training.group import Group as Real
from continual.training.job import TrainJob
from continual.training.launch import Workers


class Scripted:
    """A group whose workers do, for every job, what comes next in `script`: train it, or fail for good.

    "die after 1" is a failure after one restart within the stage; "lost", one of the cluster around the workers.
    """

    script: ClassVar[list[str]] = []
    made: ClassVar[list["Scripted"]] = []

    def __init__(self, train: Train, failures: int, folder: Path, cpus: float):
        self.failures, self.done, self.closed = failures, False, False
        self.error: BaseException | None = None
        self.failed_itself = True
        self.ended = threading.Event()
        self.made.append(self)

    @property
    def alive(self) -> bool:
        return not self.closed and not self.ended.is_set()

    def give(self, job: TrainJob) -> threading.Event:
        self.done, over = False, threading.Event()
        over.set()
        step, _, restarts = self.script.pop(0).partition(" after ")
        self._restarts = int(restarts or 0)
        if step == "train":
            (job.folder / ".tmp").mkdir()
            (job.folder / ".tmp" / "config.json").write_text("{}")
            publish_folder(job.folder / ".tmp", job.export, {})
            self.done = True
        else:
            self.failed_itself = step == "die"
            self.error = RuntimeError("the workers failed")
            self.ended.set()
        return over

    def restarts(self) -> int:
        return self._restarts

    def close(self) -> None:
        self.closed = True
        self.ended.set()


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "Group", Scripted)
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(Scripted, "made", [])


def job(folder: Path, number: int) -> TrainJob:
    train = Train(batch_tokens=256, max_failures=2)
    return TrainJob(folder / f"{number}-stage", ModelRef("m", "m"), "m", (), train, 1, seed=0)


def trained(folder: Path, script: list[str], jobs: int) -> list[int]:
    """Train some jobs; return the failures that each group was allowed."""
    Scripted.script = script
    with Workers(folder / "ray", 0.5) as workers:
        for number in range(jobs):
            workers.train(job(folder, number), lambda records: None, stay=True)
    assert not script
    assert all(group.ended.is_set() for group in Scripted.made)
    return [group.failures for group in Scripted.made]


def test_one_group_trains_all_stages(tmp_path: Path) -> None:
    assert trained(tmp_path, ["train", "train", "train"], 3) == [2]


@pytest.mark.parametrize(
    ("script", "groups"),
    [
        # Ray Train gives up although this stage has failed once, since an earlier one had used up what it survives.
        (["train", "die", "train"], [2, 1]),
        (["train", "die after 1", "train"], [2, 0]),
        (["train", "die", "train", "die", "train"], [2, 1, 1]),
    ],
)
def test_failures_are_counted_for_each_stage(tmp_path: Path, script: list[str], groups: list[int]) -> None:
    assert trained(tmp_path, script, script.count("train")) == groups


@pytest.mark.parametrize(
    "script", [["die after 2"], ["train", "die after 2"], ["train", "die", "die after 1"], ["train", "lost"]]
)
def test_more_failures_than_a_stage_survives_end_the_run(tmp_path: Path, script: list[str]) -> None:
    with pytest.raises(ContinualError, match=r"training failed after step 0: .*the workers failed"):
        trained(tmp_path, script, 2)
    assert not script


def test_the_end_of_a_run_waits_for_workers_that_got_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train may still use the connection that is closed next."""

    def close(self: Scripted) -> None:
        self.closed = True
        threading.Timer(0.3, self.ended.set).start()

    monkeypatch.setattr(Scripted, "close", close)
    with Workers(tmp_path / "ray", 0.5) as workers:
        workers.begin(Train(batch_tokens=256))
        workers.finish()
        [group] = Scripted.made
        assert group.closed
        assert not group.ended.is_set()
    assert group.ended.is_set()


def test_workers_that_are_closed_before_they_start_train_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    class Slow:
        def fit(self) -> None:
            raise AssertionError("nobody is to train")

    def trainer() -> Slow:
        begun.set()
        goes_on.wait(10)
        return Slow()

    group = Real.__new__(Real)
    group.ended, group._over, group._closed, group.error = threading.Event(), threading.Event(), False, None
    thread = threading.Thread(target=group._fit, args=(trainer,))
    thread.start()
    assert begun.wait(10)
    group._closed = True
    goes_on.set()
    thread.join()
    assert group.ended.is_set()
    assert group.error is None


def test_a_sentence_of_the_workers_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give = Scripted.give

    def failing(self: Scripted, work: TrainJob) -> threading.Event:
        over = give(self, work)
        if self.error:
            work.files.failed.write_text("the loss is not finite")
        return over

    monkeypatch.setattr(Scripted, "give", failing)
    with pytest.raises(ContinualError, match="the loss is not finite"):
        trained(tmp_path, ["train", "die"], 2)


def test_workers_that_wait_long_end_and_others_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "IDLE_SECONDS", 0.05)
    Scripted.script = ["train", "train"]
    with Workers(tmp_path / "ray", 0.5) as workers:
        workers.begin(Train(batch_tokens=256))
        assert Scripted.made[0].ended.wait(20)
        workers.train(job(tmp_path, 1), lambda records: None, stay=True)
        assert Scripted.made[1].ended.wait(20)
        workers.train(job(tmp_path, 2), lambda records: None)
    assert len(Scripted.made) == 3


@pytest.mark.parametrize("jobs", [0, 1])
def test_no_workers_are_waited_for_without_end(tmp_path: Path, jobs: int) -> None:
    waited: list[float] = []
    Scripted.script = ["train"] * jobs
    with Workers(tmp_path / "ray", 0.5) as workers:
        workers.begin(Train(batch_tokens=256))
        for number in range(jobs):
            workers.train(job(tmp_path, number), lambda records: None)
        ended: Any = Scripted.made[0].ended
        ended.wait = waited.append
    assert waited == [launch.END_SECONDS]


def test_workers_that_train_do_not_end_for_having_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "IDLE_SECONDS", 0.2)
    give = Scripted.give

    def slow(self: Any, work: TrainJob) -> threading.Event:
        time.sleep(0.5)
        assert not self.closed
        return give(self, work)

    monkeypatch.setattr(Scripted, "give", slow)
    Scripted.script = ["train"]
    with Workers(tmp_path / "ray", 0.5) as workers:
        workers.begin(Train(batch_tokens=256))
        workers.train(job(tmp_path, 1), lambda records: None)
    assert len(Scripted.made) == 1


def test_what_the_watch_raises_is_told_when_the_workers_have_written_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed evaluation inside a stage ends it as Ctrl-C does."""
    done: list[object] = []

    def stopped(self: Scripted, work: TrainJob) -> threading.Event:
        over = threading.Event()

        def wait() -> None:
            while not work.files.stop.exists():
                time.sleep(0.01)
            done.append("checkpoint")
            over.set()

        threading.Thread(target=wait, daemon=True).start()
        return over

    def watch(records: object) -> None:
        raise ContinualError("the evaluation failed")

    monkeypatch.setattr(Scripted, "give", stopped)
    workers = Workers(tmp_path / "ray", 0.5)
    with pytest.raises(ContinualError, match="the evaluation failed"):
        workers.train(job(tmp_path, 1), watch, stopping=lambda why: done.append(str(why)))
    assert done == ["the evaluation failed", "checkpoint"]
