"""Feeds: the stage goes on with the first rows, waits for the last ones, and hears why none come."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from continual.errors import ContinualError, Interrupted
from continual.run.feed import Feeds, SampleFeed, ScoreFeed
from continual.sampling.sample import Made
from continual.show.progress import Step
from continual.store import Artefact, Store


@pytest.fixture
def step() -> Step:
    return Step("sample", lambda text, last: None, rewrites=False)


def rows_of(store: Store) -> Artefact:
    return store.artefact("rows", {"rows": 1})


def test_the_stage_goes_on_with_the_first_shard(tmp_path: Path, step: Step) -> None:
    store, more = Store(tmp_path), threading.Event()

    def work(progress: Any, stop: threading.Event) -> None:
        with store.write(rows_of(store), {}) as writer:
            assert writer is not None
            writer.put(0, pa.table({"ids": [1]}), held_out=0)
            progress(Made(10, 30, 99))
            assert more.wait(10)
            writer.put(1, pa.table({"ids": [2]}))
            writer.finish()

    with Feeds() as feeds:
        feed = feeds.start(SampleFeed(rows_of(store), rows_of(store), work), step)
        feed.wait_until_usable(step)
        assert not feed.complete
        assert not feed.artefact.complete
        more.set()
        feed.wait(step)
        assert feed.complete
        assert feed.artefact.complete
        assert feeds.progress() == ""


@pytest.mark.parametrize("scores", [False, True])
def test_one_set_is_sampled_or_scored_at_a_time(tmp_path: Path, step: Step, scores: bool) -> None:
    """Two engines or scorers at once are more than the resources were looked at for."""
    running, most = [0], [0]

    def work(stop: threading.Event) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        stop.wait(0.3)
        running[0] -= 1

    rows = rows_of(Store(tmp_path))
    with Feeds() as feeds:
        made = [ScoreFeed(rows, rows, work) if scores else SampleFeed(rows, rows, lambda _, s: work(s)) for _ in "123"]
        started = [feeds.start(feed, step) for feed in made]
        assert [feed.complete for feed in started[:2]] == [True, True]
        started[2].wait(step)
    assert most == [1]


def test_what_is_sampled_stands_in_the_line_of_the_training(tmp_path: Path, step: Step) -> None:
    told = threading.Event()

    def work(progress: Any, stop: threading.Event) -> None:
        progress(Made(1100, 3400, 5))
        told.set()
        stop.wait(10)

    rows = rows_of(Store(tmp_path))
    with Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, work), step)
        assert told.wait(10)
        assert feeds.progress() == ", sampled 1,100 of ~3,400"


def fails(progress: Any, stop: threading.Event) -> None:
    raise ContinualError("the engine does not start")


def test_why_no_rows_come_is_what_the_stage_says(tmp_path: Path, step: Step) -> None:
    rows = rows_of(Store(tmp_path))
    with pytest.raises(ContinualError, match="the engine does not start"), Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, fails), step).wait_until_usable(step)
    with pytest.raises(ContinualError, match="the engine does not start") as told, Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, fails), step)
        raise ContinualError("training failed after step 3")
    assert "training failed" in str(told.value.__cause__)


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, ContinualError])
def test_the_end_of_a_stage_ends_its_feeds(tmp_path: Path, step: Step, ended_by: type[BaseException]) -> None:
    stopped = threading.Event()

    def work(progress: Any, stop: threading.Event) -> None:
        stop.wait(10)
        stopped.set()
        raise Interrupted

    rows = rows_of(Store(tmp_path))
    with pytest.raises(ended_by, match="of the stage"), Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, work), step)
        raise ended_by("the end of the stage")
    assert stopped.is_set()


def test_a_scorer_works_beside_what_samples_its_rows(tmp_path: Path, step: Step) -> None:
    """It does not wait for the rows to be complete, and the line of the training tells what there is of both."""
    store, more = Store(tmp_path), threading.Event()
    rows, columns = rows_of(store), store.artefact("columns", {"of": 1})

    def sample(progress: Any, stop: threading.Event) -> None:
        with store.write(rows, {}) as writer:
            assert writer is not None
            for shard in (0, 1):
                writer.put(shard, pa.table({"ids": [1, 2, 3]}))
            progress(Made(1100, 3400, 5))
            assert more.wait(10)
            writer.finish()

    def score(stop: threading.Event) -> None:
        with store.write(columns, {}) as writer:
            assert writer is not None
            writer.put(0, pa.table({"nll": [1.0, 2.0, 3.0]}))
            assert more.wait(10)

    with Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, sample), step).wait_until_usable(step)
        scored = feeds.start(ScoreFeed(columns, rows, score), step)
        scored.wait_until_usable(step)
        while "scored" not in feeds.progress() or "sampled" not in feeds.progress():
            assert not scored.complete
        assert feeds.progress() == ", sampled 1,100 of ~3,400, scored 3 of 6 rows"
        more.set()
        feeds.wait_for_rows(rows, step)
        feeds.wait_for_kind(ScoreFeed, step)
        assert scored.complete


def test_a_scorer_that_sees_its_rows_end_is_no_reason(tmp_path: Path, step: Step) -> None:
    """When a stage ends, the end of the sampling looks like a failure to the scorer; what the stage says is its own."""
    sampled = threading.Event()

    def sample(progress: Any, stop: threading.Event) -> None:
        stop.wait(10)
        sampled.set()
        raise Interrupted

    def score(stop: threading.Event) -> None:
        sampled.wait(10)
        if stop.is_set():
            raise Interrupted
        raise ContinualError("its writer gave up: Interrupted")

    rows = rows_of(Store(tmp_path))
    with pytest.raises(ContinualError, match="the workers failed"), Feeds() as feeds:
        feeds.start(SampleFeed(rows, rows, sample), step)
        feeds.start(ScoreFeed(rows, rows, score), step)
        raise ContinualError("the workers failed")


def test_the_failure_of_an_earlier_start_is_not_read(tmp_path: Path, step: Step) -> None:
    """The stage goes on when the work has begun anew: until then readers would give up."""
    columns = Store(tmp_path).artefact("columns", {"of": 1})
    columns.path.mkdir(parents=True)
    failed = columns.path / "failed.txt"
    failed.write_text("MemoryError")

    def score(stop: threading.Event) -> None:
        stop.wait(0.5)
        failed.unlink()
        stop.wait(10)

    with Feeds() as feeds:
        feeds.start(ScoreFeed(columns, columns, score), step).wait_until_usable(step)
        assert columns.failure() is None
