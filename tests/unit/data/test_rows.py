"""The row reader: random access, endless reading, and waiting for shards that are still being made."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.data.packing import Arrays, empty_rows
from continual.data.rows import RowReader, row_facts, rows_table
from continual.errors import ContinualError
from continual.store import Artefact, Store


def numbered(first: int, count: int, row_tokens: int = 4) -> Arrays:
    rows = empty_rows(count, row_tokens)
    rows["ids"][:] = np.arange(first, first + count)[:, None]
    rows["weights"][:, 1:] = 1
    return rows


def stored(store: Store, sizes: list[int], inputs: dict[str, int] | None = None) -> Artefact:
    inputs = inputs or {"sizes": len(sizes)}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        first = 0
        for index, size in enumerate(sizes):
            rows = numbered(first, size)
            writer.put(index, rows_table(rows), **row_facts(rows))
            first += size
        writer.finish()
    return artefact


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.lists(st.integers(-1, 100), max_size=9))
def test_any_rows_in_any_order(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], wanted: list[int]) -> None:
    reader = RowReader(stored(Store(tmp_path_factory.mktemp("store")), sizes))
    numbers = np.array([n if n < 0 else n % sum(sizes) for n in wanted], np.int64)
    rows = reader.take(numbers)
    expected = np.where(numbers[:, None] < 0, 0, numbers[:, None]).repeat(4, 1)
    np.testing.assert_array_equal(rows["ids"], expected)
    assert not rows["weights"][numbers < 0].any()
    assert len(reader) == sum(sizes)


def test_endless_reading_skips_what_is_held_out(tmp_path: Path) -> None:
    reader = RowReader(stored(Store(tmp_path), [3, 2]))
    np.testing.assert_array_equal(reader.resolve(np.arange(7), skip=2), [2, 3, 4, 2, 3, 4, 2])
    with pytest.raises(ContinualError, match="has 5 rows, but 5 are held out"):
        reader.resolve(np.arange(1), skip=5)


def test_a_reader_waits_for_the_maker_and_reads_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("rows", {"slow": 1})
    begun = threading.Event()

    def make() -> None:
        with store.write(artefact, {"slow": 1}) as writer:
            assert writer is not None
            for index in range(3):
                rows = numbered(index * 2, 2)
                writer.put(index, rows_table(rows), **row_facts(rows))
                begun.set()
                time.sleep(0.3)
            writer.finish()

    thread = threading.Thread(target=make)
    thread.start()
    begun.wait()
    early = RowReader(artefact)
    assert early.available() == (2, False)
    numbers = early.resolve(np.arange(8))
    np.testing.assert_array_equal(early.take(numbers)["ids"][:, 0], [0, 1, 2, 3, 4, 5, 0, 1])
    thread.join()
    late = RowReader(artefact)
    np.testing.assert_array_equal(late.resolve(np.arange(8)), numbers)


def test_a_row_of_padding_waits_for_the_form_of_the_others(tmp_path: Path) -> None:
    """A rank without rows in a step reads padding alone, perhaps before the first shard is there."""
    with pytest.raises(ContinualError, match="no new shard"):
        RowReader(Store(tmp_path).artefact("rows", {"late": 1}), wait_seconds=0.3).take(np.array([-1]))


def test_a_reader_does_not_wait_for_a_maker_that_gave_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("rows", {"bad": 1})
    with pytest.raises(RuntimeError), store.write(artefact, {"bad": 1}):
        raise RuntimeError("engine died")
    with pytest.raises(ContinualError, match="engine died"):
        RowReader(artefact, wait_seconds=5).take(np.array([0]))


def test_a_reader_gives_up_on_a_silent_maker(tmp_path: Path) -> None:
    artefact = Store(tmp_path).artefact("rows", {"never": 1})
    with pytest.raises(ContinualError, match="no new shard"):
        RowReader(artefact, wait_seconds=0.3).take(np.array([0]))


def test_a_reader_waits_for_a_maker_that_takes_its_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artefact = store.artefact("rows", {"slow": 1})
    with ThreadPoolExecutor(1) as pool, store.write(artefact, {"slow": 1}) as writer:
        assert writer is not None
        read = pool.submit(RowReader(artefact, wait_seconds=0.1).take, np.array([0]))
        time.sleep(1.0)
        assert not read.done(), "no shard for ten times as long as it waits for nobody"
        rows = numbered(0, 2)
        writer.put(0, rows_table(rows), **row_facts(rows))
        assert read.result(timeout=5)["ids"].shape[0] == 1
        writer.finish()


def test_a_damaged_shard_is_named_with_the_way_out(tmp_path: Path) -> None:
    artefact = stored(Store(tmp_path), [2, 2])
    artefact.shard(1).write_bytes(b"")
    with pytest.raises(ContinualError, match=r"shard-000001.*missing or damaged; delete the folder"):
        RowReader(artefact).take(np.array([3]))
