"""A set of samples grows: what is there stays, what is added is what would have been made at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.contract.registry import ENGINES
from continual.data.rows import RowReader
from continual.sampling.engine import Engine, Sample
from continual.sampling.sample import Wanted, sample_rows, sample_set
from continual.sampling.sets import first_samples, missing_shards, numbers_of, tokens_by_maker
from continual.sampling.settings import SampleSettings
from continual.store import Artefact, Store
from tests.kits.sources import sample_in_process

MODEL, SETTINGS, ROW = ModelRef("nowhere", "abc"), SampleSettings(((1,),), tokens=32, stop=(2,)), 32


def said(number: int) -> np.ndarray:
    """A sample that depends on its number alone, of 1 to 20 tokens."""
    random = np.random.default_rng(number)
    return random.integers(3, 50, random.integers(1, 21)).astype(np.int32)


class Counting(Engine):
    """Says what depends on the number alone; `of` samples in a block. Dies after `lives` samples."""

    def __init__(self, of: int = 1, lives: int | None = None):
        self.of, self.lives = of, lives
        self.asked: list[int] = []
        self.starts = 0

    def block(self, config: Generate) -> int:
        return self.of

    def generate(
        self, model: str, dtype: str, settings: SampleSettings, numbers: list[int], config: Generate
    ) -> Iterator[Sample]:
        self.starts += 1
        for number in numbers:
            if self.lives == len(self.asked):
                raise KeyboardInterrupt
            self.asked.append(number)
            yield number, said(number)


Install = Callable[..., Counting]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    sample_in_process(monkeypatch)

    def with_engine(**options: Any) -> Counting:
        engine = Counting(**options)
        monkeypatch.setattr(ENGINES, "load", lambda name: lambda: engine)
        return engine

    return with_engine


def made(store: Store, count: int, **config: Any) -> Artefact:
    return sample_set(store, MODEL, "float32", SETTINGS, Generate(**config), count)


def tokens_of(samples: Artefact, count: int) -> list[list[int]]:
    return [tokens for table in first_samples(samples, count) for tokens in table["tokens"].to_pylist()]


def rows_of(store: Store, **wanted: Any) -> Artefact:
    return sample_rows(store, MODEL, "float32", SETTINGS, Generate(shard_samples=16), Wanted(ROW, **wanted))[0]


@pytest.mark.parametrize("block", [1, 8])
@pytest.mark.parametrize("sizes", [(100, 110), (10, 11, 90), (64, 65), (5, 3)])
def test_a_set_that_grows_keeps_its_samples_and_equals_one_made_at_once(
    tmp_path: Path, install: Install, block: int, sizes: tuple[int, ...]
) -> None:
    engine = install(of=block)
    for count in sizes:
        samples = made(Store(tmp_path / "grown"), count, shard_samples=16)
    assert len(engine.asked) == len(set(engine.asked)) == -(-max(sizes) // block) * block
    assert tokens_of(samples, max(sizes)) == [said(number).tolist() for number in range(max(sizes))]
    at_once = made(Store(tmp_path / "at-once"), max(sizes), shard_samples=32)
    assert (at_once.hash, tokens_of(at_once, max(sizes))) == (samples.hash, tokens_of(samples, max(sizes)))
    manifest = samples.manifest()
    assert manifest["counts"]["samples"] == sum(
        numbers_of(facts).stop - numbers_of(facts).start for facts in samples.shards()
    )
    assert "first" not in manifest["counts"]
    assert manifest["distinct"] == len({tuple(said(n)) for n in range(manifest["counts"]["samples"])})


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
    st.integers(1, 60),
    st.integers(1, 9),
)
def test_missing_shards_fill_every_gap(sizes: list[int], lost: set[int], more: int, size: int) -> None:
    ends = np.cumsum(sizes).tolist()
    known = {
        shard: {"first": end - own, "samples": own, "failed": 0}
        for shard, (own, end) in enumerate(zip(sizes, ends, strict=True))
        if shard not in lost
    }
    wanted = ends[-1] + more
    missing = missing_shards(known, wanted, size)
    assert not set(missing) & set(known)
    ranges = [numbers for _, numbers in sorted({**missing, **{s: numbers_of(f) for s, f in known.items()}}.items())]
    assert [number for numbers in ranges for number in numbers] == list(range(wanted))
    assert sorted({*missing, *known}) == list(range(len(ranges)))


def test_rows_are_the_same_whatever_the_set_held_before(tmp_path: Path, install: Install) -> None:
    install()
    fresh, grown = Store(tmp_path / "fresh"), Store(tmp_path / "grown")
    expected = rows_of(fresh, rows=40, held_out=4)
    made(grown, 7), made(grown, 300)
    found = rows_of(grown, rows=40, held_out=4)
    assert found.hash == expected.hash
    assert found.manifest()["content"] == expected.manifest()["content"]
    facts = found.manifest()
    assert facts["held_out"] == 4
    assert len(RowReader(found)) >= 44
    # Rows are nearly full: the samples have 2 to 21 tokens with their start, so 40 rows of 32 take far more than 44.
    assert facts["counts"]["tokens"] / facts["counts"]["rows"] > 0.85 * ROW
    assert facts["count"] > 100
    read = RowReader(found).take(np.arange(len(RowReader(found))))
    held, others = (set(part[part >= 0].tolist()) for part in (read["documents"][:4], read["documents"][4:]))
    assert held | others == set(range(facts["count"]))
    assert not held & others


def test_two_rounds_suffice_and_rows_are_found_without_samples(tmp_path: Path, install: Install) -> None:
    engine, store = install(), Store(tmp_path)
    rows = rows_of(store, rows=60)
    assert engine.starts == 2
    asked = len(engine.asked)
    samples = Artefact("samples", rows.manifest()["samples"], str(store.root))
    for shard in samples.path.glob("*"):
        shard.unlink() if shard.is_file() else None
    assert rows_of(store, rows=60) == rows
    assert len(engine.asked) == asked


@pytest.mark.parametrize("lives", [1, 17, 40, 63])
def test_no_token_is_sampled_twice_after_an_end(tmp_path: Path, install: Install, lives: int) -> None:
    """Ends inside and between rounds: whole shards survive, and only an open shard is sampled again."""
    store = Store(tmp_path / "ended")
    engine = install(lives=lives)
    with pytest.raises(KeyboardInterrupt):
        rows_of(store, rows=30)
    kept = lives // 16 * 16 if lives < 30 else 30 + (lives - 30) // 16 * 16
    engine.lives = None
    found = rows_of(store, rows=30)
    assert len(engine.asked) - len(set(engine.asked)) == lives - kept
    undisturbed = rows_of(Store(tmp_path / "whole"), rows=30)
    assert found.manifest()["content"] == undisturbed.manifest()["content"]


def test_two_runs_that_want_different_counts_at_once_make_each_sample_once(tmp_path: Path, install: Install) -> None:
    engine = install()
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(made, Store(tmp_path, f"run {count}"), count, shard_samples=8) for count in (150, 60, 100)]
    for run in runs:
        run.result()
    assert sorted(engine.asked) == list(range(150))
    samples = made(Store(tmp_path), 150)
    assert tokens_of(samples, 150) == [said(number).tolist() for number in range(150)]


def test_tokens_of_a_part_are_counted_by_who_made_them(tmp_path: Path, install: Install) -> None:
    install()
    made(Store(tmp_path, "one"), 20, shard_samples=16)
    samples = made(Store(tmp_path, "two"), 40, shard_samples=16)
    lengths = [len(said(number)) for number in range(40)]
    assert tokens_by_maker(samples, 30) == {"one": sum(lengths[:20]), "two": sum(lengths[20:30])}
    assert tokens_by_maker(samples, 10) == {"one": sum(lengths[:10])}
