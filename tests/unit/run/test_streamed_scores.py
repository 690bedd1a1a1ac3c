"""A stage that samples, scores and trains at one time: nothing waits in a circle, and the columns are the same."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.data.packing import Arrays
from continual.data.rows import RowReader
from continual.errors import ContinualError, Interrupted
from continual.run.feed import Feeds, SampleFeed, ScoreFeed
from continual.sampling.engine import Engine, Sample
from continual.sampling.pace import Pace
from continual.sampling.sample import sample_rows, sampled_artefacts
from continual.sampling.settings import SampleSettings
from continual.sampling.wanted import Wanted
from continual.scoring import score, score_growing, score_inputs
from continual.show.progress import Step
from continual.store import Artefact, Store

MODEL, ROW, STEP_ROWS, STEPS, AHEAD = ModelRef("nowhere", "m"), 32, 6, 200, 1
SETTINGS, CONFIG = SampleSettings(((1,),), tokens=ROW), Generate(shard_samples=256)
WANTED = Wanted(ROW, rows=STEP_ROWS * STEPS, held_out=4)


class Scripted(Engine):
    """Answers at once, with lengths by the sample's number."""

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        for number in numbers:
            random = np.random.default_rng(number)
            yield number, random.integers(3, 50, random.integers(1, 21)).astype(np.int32)


class Stoppable(Pace):
    """Ends a pause as the end of its process does."""

    stop: threading.Event

    def shards(self, starts: list[int], held_out: int) -> int | None:
        if self.stop.is_set():
            raise Interrupted
        return super().shards(starts, held_out)


def nll(model: Any, rows: Arrays) -> Arrays:
    """What stands for a model's opinion of a token: another function of it."""
    return {"nll": (rows["ids"] * 2 + rows["positions"]).astype(np.float32)}


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine and scorer work in the threads of their feeds; looks follow each other closely."""

    def run(stop: threading.Event | None, work: Any, *arguments: Any) -> Iterator[Any]:
        try:
            for made in work(*arguments):
                yield made
                if stop and stop.is_set():
                    raise Interrupted
        except ContinualError as error:
            if stop and stop.is_set():  # the real one looks at it first
                raise Interrupted from error
            raise

    monkeypatch.setattr("continual.sampling.sample.in_cluster", lambda work, *arguments: run(None, work, *arguments))
    monkeypatch.setattr("continual.sampling.sample.in_cluster_until", run)
    monkeypatch.setattr(score, "in_cluster_with", lambda cpus, gpus, *others: run(*others))
    monkeypatch.setattr(score, "load_model", lambda *_: None)
    monkeypatch.setattr("continual.scoring.columns.nll_columns", nll)
    monkeypatch.setattr(ENGINES, "load", lambda name: Scripted)
    monkeypatch.setattr("continual.sampling.fill.LOOK_SECONDS", 0.01)
    monkeypatch.setattr(score, "LOOK_SECONDS", 0.01)


def started(store: Store, folder: Path, feeds: Feeds, paused: list[int]) -> tuple[Artefact, Artefact]:
    """Rows and columns that are made from now on, as `StageContext` does it, for a training that has begun."""
    # Before that the engine does not pause, and a fast machine would be done with all shards.
    (folder / "fed").touch()
    step = Step("", lambda text, last: None, rewrites=False)
    how = (store, MODEL, "float32", SETTINGS, CONFIG, WANTED)
    rows, samples = sampled_artefacts(*how)
    pace = Stoppable(folder / "metrics.jsonl", folder / "fed", STEP_ROWS, AHEAD)

    def sample(progress: Any, stop: threading.Event) -> None:
        def told(made: Any) -> None:
            paused.append(int(made.paused))
            progress(made)

        pace.stop = stop
        sample_rows(*how, told, stop, pace)

    feeds.start(SampleFeed(rows, samples, sample), step).wait_until_usable(step)
    columns = store.artefact("columns", score_inputs(MODEL, rows, "nll", "float32", 64))
    of = (store, MODEL, rows, "nll", "float32", CONFIG, 64)
    feeds.start(ScoreFeed(columns, rows, lambda stop: score_growing(*of, stop)), step)
    return rows, columns


def train(folder: Path, rows: Artefact, columns: Artefact, until: int = STEPS) -> list[float]:
    """Read rows and columns in order, as the workers do, from the first step; return the sums of what was read."""
    reader, teacher = RowReader(rows, wait_seconds=20), RowReader(columns, wait_seconds=20)
    found = []
    with (folder / "metrics.jsonl").open("w") as records:
        for step in range(until):
            numbers = reader.resolve(np.arange(step * STEP_ROWS, (step + 1) * STEP_ROWS), skip=WANTED.held_out)
            read = reader.take(numbers) | teacher.take(numbers, ("nll",))
            expected = np.where(read["documents"] >= 0, nll(None, read)["nll"], read["nll"])
            np.testing.assert_array_equal(read["nll"], expected, err_msg=f"columns of other rows in step {step}")
            found.append(float(read["nll"].sum() + read["ids"].sum()))
            records.write(json.dumps({"step": step + 1}) + "\n")
            records.flush()
    return found


@pytest.mark.parametrize("slow", ["engine", "scorer", "training"])
def test_engine_scorer_and_training_never_wait_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_cluster: None, slow: str
) -> None:
    """An engine that may be one shard ahead pauses for a training that waits for a scorer that waits for rows."""

    paused: list[int] = []
    end = time.monotonic() + 15

    def slowly(function: Any, seconds: float) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            time.sleep(seconds)
            # On a machine under load the engine takes longer than that to be ahead.
            while slow != "engine" and not any(paused) and time.monotonic() < end:
                time.sleep(0.01)
            return function(*arguments, **options)

        return called

    if slow == "engine":
        monkeypatch.setattr("continual.sampling.write.limit_failures", slowly(lambda *_: None, 0.05))
    elif slow == "scorer":
        monkeypatch.setattr("continual.scoring.columns.nll_columns", slowly(nll, 0.4))
    else:
        monkeypatch.setattr(RowReader, "resolve", slowly(RowReader.resolve, 0.01))
    with Feeds() as feeds:
        rows, columns = started(Store(tmp_path / "store"), tmp_path, feeds, paused)
        train(tmp_path, rows, columns)
        for feed in feeds.all:
            feed.wait()
    assert len(rows.manifest()["shards"]) >= 3
    assert [facts["rows"] for facts in columns.manifest()["shards"]] == [facts["rows"] for facts in rows.shards()]
    assert slow == "engine" or any(paused), "the engine is ahead and never pauses"


def test_a_stage_that_ends_early_goes_on_with_what_is_scored(tmp_path: Path, without_cluster: None) -> None:
    whole, ended = Store(tmp_path / "whole"), Store(tmp_path / "ended")
    for store in (whole, ended):
        (tmp_path / store.root.name).mkdir(exist_ok=True)
    with Feeds() as feeds:
        expected = train(tmp_path, *started(whole, tmp_path, feeds, []))
        for feed in feeds.all:
            feed.wait()
    columns = whole.artefact("columns", score_inputs(MODEL, feeds.all[0].artefact, "nll", "float32", 64))

    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(RuntimeError, match="the workers failed"), Feeds() as feeds:
        rows, begun = started(ended, tmp_path, feeds, [])
        train(tmp_path, rows, begun, until=20)
        raise RuntimeError("the workers failed")
    assert not begun.complete
    made = {path: path.stat().st_mtime_ns for path in begun.path.glob("shard-*")}
    assert made
    (tmp_path / "metrics.jsonl").unlink()
    with Feeds() as feeds:
        assert train(tmp_path, *started(ended, tmp_path, feeds, [])) == expected
        for feed in feeds.all:
            feed.wait()
    assert {path: path.stat().st_mtime_ns for path in made} == made, "a shard was scored twice"
    assert begun.manifest()["content"] == columns.manifest()["content"]
