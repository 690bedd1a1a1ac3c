"""Feeds: the stage goes on with the first rows, waits for the last ones, and hears why none come."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from continual.errors import ContinualError, Interrupted
from continual.run.feed import Feed, Feeds
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
        feed = feeds.start(rows_of(store), rows_of(store), work, step)
        feed.wait_for_first(step)
        assert not feed.complete
        assert not feed.rows.complete
        more.set()
        feed.wait(step)
        assert feed.complete
        assert feed.rows.complete
        assert feeds.progress() == ""


def test_one_set_is_sampled_at_a_time(tmp_path: Path, step: Step) -> None:
    """Two engines at once are more than the resources were looked at for."""
    running, most = [0], [0]

    def work(progress: Any, stop: threading.Event) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        stop.wait(0.3)
        running[0] -= 1

    rows = rows_of(Store(tmp_path))
    with Feeds() as feeds:
        started = [feeds.start(rows, rows, work, step) for _ in range(3)]
        assert [feed.complete for feed in started[:2]] == [True, True]
        started[2].wait(step)
    assert most == [1]


def test_what_is_sampled_stands_in_the_line_of_the_training(tmp_path: Path) -> None:
    told = threading.Event()

    def work(progress: Any, stop: threading.Event) -> None:
        progress(Made(1100, 3400, 5))
        told.set()
        stop.wait(10)

    with Feeds() as feeds:
        feeds.all.append(Feed(rows_of(Store(tmp_path)), rows_of(Store(tmp_path)), work))
        assert told.wait(10)
        assert feeds.progress() == ", sampled 1,100 of ~3,400"


def fails(progress: Any, stop: threading.Event) -> None:
    raise ContinualError("the engine does not start")


def test_why_no_rows_come_is_what_the_stage_says(tmp_path: Path, step: Step) -> None:
    rows = rows_of(Store(tmp_path))
    with pytest.raises(ContinualError, match="the engine does not start"):
        Feed(rows, rows, fails).wait_for_first(step)
    with pytest.raises(ContinualError, match="the engine does not start") as told, Feeds() as feeds:
        feeds.all.append(Feed(rows, rows, fails))
        raise ContinualError("training failed after step 3")
    assert "training failed" in str(told.value.__cause__)


@pytest.mark.parametrize("ended_by", [KeyboardInterrupt, ContinualError])
def test_the_end_of_a_stage_ends_its_feeds(tmp_path: Path, ended_by: type[BaseException]) -> None:
    stopped = threading.Event()

    def work(progress: Any, stop: threading.Event) -> None:
        stop.wait(10)
        stopped.set()
        raise Interrupted

    rows = rows_of(Store(tmp_path))
    with pytest.raises(ended_by, match="of the stage"), Feeds() as feeds:
        feeds.all.append(Feed(rows, rows, work))
        raise ended_by("the end of the stage")
    assert stopped.is_set()
