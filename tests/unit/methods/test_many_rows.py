"""What methods compute over all rows: the same as over one array, in memory that does not grow with them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from baselines.easy_samples import easy_weights, weigh
from continual.data.rows import fixed_column
from continual.scoring.fisher import draw_documents
from continual.store import Artefact, Store
from tests.kits import baselines as kit


def rows_and_losses(folder: Path, count: int) -> tuple[Store, Artefact, Artefact]:
    """Rows of `count` documents in shards of 100, and their losses, a few of which are no numbers."""
    store = Store(folder / "store")
    rows = kit.stored(store, "rows", kit.packed(4, count), 100)
    nll, random = store.artefact("columns", {"test": "nll"}), np.random.default_rng(5)
    with store.write(nll, {"test": "nll"}) as writer:
        assert writer is not None
        for shard, table in enumerate(rows.tables()):
            values = random.gamma(1.5, 1.0, (table.num_rows, kit.TOKENS)).astype(np.float32)
            values[0, 3:6] = [np.nan, np.inf, 0.0]
            writer.put(shard, pa.table({"nll": fixed_column(values)}))
        writer.finish()
    return store, rows, nll


def weighed(store: Store, rows: Artefact, nll: Artefact, per: str) -> tuple[Artefact, tuple[float, float, int]]:
    weights = store.artefact("columns", {"test": per})
    with store.write(weights, {"test": per}) as writer:
        assert writer is not None
        with writer.files() as folder:
            found = weigh(writer, rows, nll, per, "mean", str(folder))
        writer.finish()
    return weights, found


@pytest.mark.parametrize("per", ["sample", "token"])
def test_median_and_mean_are_to_the_last_bit_those_of_all_losses_in_one_array(tmp_path: Path, per: str) -> None:
    store, rows, nll = rows_and_losses(tmp_path, 3000)
    weights, (tau, scale, count) = weighed(store, rows, nll, per)
    losses, tokens = [], []
    for table, columns in zip(rows.tables(), nll.tables(), strict=True):
        for row, values in zip(table.to_pylist(), columns["nll"].to_pylist(), strict=True):
            trained = np.array(row["weights"]) > 0
            numbers, own = np.array(row["documents"])[trained], np.array(values)[trained]
            parts = [own[numbers == n] for n in np.unique(numbers)] if per == "sample" else own[:, None]
            losses += [sum(part.tolist()) / len(part) for part in parts]
            tokens += [float(len(part)) for part in parts]
    all_losses, all_tokens = np.array(losses), np.array(tokens)
    assert count == len(all_losses)
    assert tau == np.median(all_losses[np.isfinite(all_losses)])
    assert scale == 1.0 / ((easy_weights(all_losses, tau) * all_tokens).sum() / all_tokens.sum())
    assert len(weights.shards()) == len(rows.shards()) > 5
    assert [path.name for path in weights.path.iterdir() if path.is_dir()] == [], "the files of all losses are deleted"


def test_memory_for_weights_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 16000):
        given = rows_and_losses(tmp_path / str(count), count)
        tracemalloc.start()
        weighed(*given, "token")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    tokens = 16000 * 4
    assert peaks[1] < peaks[0] + 8 * tokens / 2, "less than half of the array of all losses"


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (7, 1), (50, 2), (10_000, 3)])
def test_documents_are_drawn_as_from_one_list(tmp_path: Path, count: int, seed: int) -> None:
    _, rows, _ = rows_and_losses(tmp_path, 900)
    candidates = []
    for table in rows.tables():
        for row in table.to_pylist():
            numbers = np.array(row["documents"])
            for number in dict.fromkeys(numbers[numbers >= 0].tolist()):
                own = numbers == number
                candidates.append((np.array(row["ids"])[own], np.array(row["weights"])[own]))
    candidates = [(ids, weights) for ids, weights in candidates if (weights > 0).any()]
    order = np.random.default_rng(seed).permutation(len(candidates))[:count]
    drawn = draw_documents(rows, count, seed)
    assert len(drawn) == min(count, len(candidates))
    for (ids, weights), number in zip(drawn, order, strict=True):
        np.testing.assert_array_equal(ids, candidates[number][0])
        np.testing.assert_array_equal(weights, candidates[number][1])
