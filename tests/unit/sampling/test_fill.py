"""Rows of a set that grows: each shard is published as soon as it is final, and never changes afterwards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from continual.config.schema import Generate
from continual.contract.registry import ENGINES
from continual.errors import ContinualError
from continual.sampling.engine import Engine, Sample
from continual.sampling.fill import fill_rows, pack_rows
from continual.sampling.layout import WINDOW
from continual.sampling.pace import STEPS_READ_AHEAD, Pace
from continual.sampling.sets import numbers_of
from continual.sampling.settings import SampleSettings
from continual.sampling.wanted import Wanted
from continual.store import Artefact, Store

SETTINGS, ROW, SHARD = SampleSettings(((1,),), tokens=32), 32, 128


def said(number: int) -> np.ndarray:
    random = np.random.default_rng(number)
    return random.integers(3, 50, random.integers(1, 21)).astype(np.int32)


class Scripted(Engine):
    """Answers in an order of its own; what it starts is counted."""

    def __init__(self, lives: int | None = None):
        self.asked: list[int] = []
        self.rounds, self.lives = 0, lives

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        self.rounds += 1
        for number in np.random.default_rng(self.rounds).permutation(numbers).tolist():
            if len(self.asked) == self.lives:
                raise ContinualError("the engine is gone")
            self.asked.append(number)
            yield number, said(number)


def steps(
    store: Store, wanted: Wanted, engine: Scripted, monkeypatch: pytest.MonkeyPatch, pace: Pace | None = None
) -> Iterator[dict[str, str]]:
    """Fill rows; yield the hashes of the shards that are published after each shard of samples, and at the end."""
    monkeypatch.setattr(ENGINES, "load", lambda name: lambda: engine)
    samples = store.artefact("samples", {"set": 1})
    rows = store.artefact("rows", wanted.inputs(samples))
    with store.write(rows, {}) as writer, store.grow(samples, {}, lambda: False) as growing:
        assert writer is not None
        assert growing is not None
        config = Generate(shard_samples=SHARD)
        for counts in fill_rows(writer, wanted, growing, "nowhere", "float32", SETTINGS, config, pace):
            yield published(rows)
            facts = counts
        growing.finish()
        writer.finish(count=facts["count"], held_out=facts["held_out"])


def published(rows: Artefact) -> dict[str, str]:
    return {facts["file"]: facts["sha256"] for facts in rows.published().values()}


@pytest.mark.parametrize("wanted", [Wanted(ROW, rows=900, held_out=6), Wanted(ROW, count=2500, held_out=40)])
def test_shards_appear_early_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Wanted) -> None:
    engine = Scripted()
    seen = list(steps(Store(tmp_path / "grown"), wanted, engine, monkeypatch))
    final = seen[-1]
    assert len(final) == -(-max(engine.asked) // WINDOW) >= 3
    # The first window is there before the second one is sampled, and what was published did not change.
    assert any(len(found) == 1 for found in seen)
    assert all(found.items() <= final.items() for found in seen)
    # Packed at once, from samples that are all there, the rows are the same.
    store = Store(tmp_path / "at-once")
    list(steps(store, Wanted(ROW, count=len(engine.asked) + 500), Scripted(), monkeypatch))
    samples = store.artefact("samples", {"set": 1})
    rows = store.artefact("rows", wanted.inputs(samples))
    with store.write(rows, {}) as writer:
        assert writer is not None
        [facts] = pack_rows(writer, wanted, samples)
    assert facts is not None
    assert published(rows) == final


def test_enough_ends_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second round asks for rather too many; it ends with the shard of samples that suffices."""
    engine, store, wanted = Scripted(), Store(tmp_path), Wanted(ROW, rows=900)
    list(steps(store, wanted, engine, monkeypatch))
    samples = store.artefact("samples", {"set": 1})
    manifest = store.artefact("rows", wanted.inputs(samples)).manifest()
    assert engine.rounds == 2
    assert manifest["counts"]["rows"] >= 900
    assert manifest["count"] <= samples.manifest()["counts"]["samples"]


def test_what_a_dead_engine_left_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Wanted(ROW, rows=900, held_out=6)
    undisturbed = list(steps(Store(tmp_path / "whole"), wanted, Scripted(), monkeypatch))[-1]
    store = Store(tmp_path / "ended")
    with pytest.raises(ContinualError, match="the engine is gone"):
        list(steps(store, wanted, Scripted(lives=1900), monkeypatch))
    samples = store.artefact("samples", {"set": 1})
    kept = {number for facts in samples.published().values() for number in numbers_of(facts)}
    engine = Scripted()
    assert list(steps(store, wanted, engine, monkeypatch))[-1] == undisturbed
    assert len(kept) > 500
    assert not kept & set(engine.asked)


def test_too_few_samples_do_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    list(steps(store, Wanted(ROW, count=100), Scripted(), monkeypatch))
    samples, wanted = store.artefact("samples", {"set": 1}), Wanted(ROW, rows=900)
    with store.write(store.artefact("rows", wanted.inputs(samples)), {}) as writer:
        assert writer is not None
        assert list(pack_rows(writer, wanted, samples)) == [None]


def test_the_pace_bounds_what_is_ahead_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training's steps decide how many windows there may be; the rows are those of an engine that never pauses."""
    records, fed = tmp_path / "metrics.jsonl", tmp_path / "fed"
    pace = Pace(records, fed, step_rows=6, ahead=1)
    wanted = Wanted(ROW, rows=1500, held_out=6)
    undisturbed = list(steps(Store(tmp_path / "whole"), wanted, Scripted(), monkeypatch))[-1]
    assert len(undisturbed) >= 4
    made: list[tuple[int, int]] = []
    looks = iter(range(1000))

    def train(seconds: float) -> None:
        """The training makes eight steps while the engine waits."""
        assert len(published(rows)) >= 2, "a pause before anything is there"
        step = 8 * next(looks)
        made.append((step, len(published(rows))))
        with records.open("a") as file:
            file.write(f'{{"step": {step}}}\n')

    monkeypatch.setattr("continual.sampling.fill.time.sleep", train)
    fed.touch()
    store = Store(tmp_path / "paced")
    rows = store.artefact("rows", wanted.inputs(store.artefact("samples", {"set": 1})))
    assert list(steps(store, wanted, Scripted(), monkeypatch, pace))[-1] == undisturbed
    assert len({there for _, there in made}) >= 2, "it paused more than once"
    per_shard = 1500 // len(undisturbed)
    for step, there in made:
        # The shard that is read, counting the steps that the readers hold, one shard ahead, and rounding.
        assert there <= (step + STEPS_READ_AHEAD) * 6 / per_shard + 3


def test_nothing_pauses_before_all_streams_are_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(tmp_path / "metrics.jsonl", tmp_path / "fed", step_rows=6, ahead=1)
    monkeypatch.setattr("continual.sampling.fill.time.sleep", lambda seconds: pytest.fail("it pauses"))
    list(steps(Store(tmp_path), Wanted(ROW, rows=1500), Scripted(), monkeypatch, pace))


@pytest.mark.parametrize(("held_out", "recorded_every"), [(0, 1), (700, 1), (0, 150)])
def test_a_training_that_stands_still_is_always_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: int, recorded_every: int
) -> None:
    """Whatever the training may wait for is made although it records no step."""
    fed = tmp_path / "fed"
    fed.touch()
    pace = Pace(tmp_path / "metrics.jsonl", fed, step_rows=6, ahead=1, recorded_every=recorded_every)

    class Paused(Exception):
        pass

    def pause(seconds: float) -> None:
        raise Paused

    monkeypatch.setattr("continual.sampling.fill.time.sleep", pause)
    store, wanted = Store(tmp_path / "store"), Wanted(ROW, rows=3000, held_out=held_out)
    rows = store.artefact("rows", wanted.inputs(store.artefact("samples", {"set": 1})))
    with pytest.raises(Paused):
        list(steps(store, wanted, Scripted(), monkeypatch, pace))
    there = sum(facts["rows"] for facts in rows.published().values())
    assert there > held_out + (recorded_every - 1 + STEPS_READ_AHEAD) * 6
