"""What tests of scores share: the task of sorting, its texts as ids, and documents as packed rows in a store."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.arithmetic.tokenizer import build as build_tokenizer
from continual.config.schema import Evaluate
from continual.store import Store

LM_EVAL = str(Path(__file__).resolve().parents[2] / "benchmarks" / "arithmetic" / "lm_eval")
SORT = {"name": "sort", "metric": None, "filter": None}

COLUMNS = {"ids": np.int32, "positions": np.int32, "weights": np.float32, "documents": np.int32}


def settings(**changes):
    """The keys of `evaluate`, with the demo's tasks."""
    return Evaluate(**{"include_path": LM_EVAL, **changes}).model_dump()


def encode(text):
    return build_tokenizer()[0].encode(text).ids


def rows_artefact(root, documents, width):
    """Documents (ids, number of leading tokens without loss) packed in order, one table per four rows."""
    packed: list[list[tuple[int, list[int], int]]] = [[]]
    for number, (ids, masked) in enumerate(documents):
        if sum(len(d[1]) for d in packed[-1]) + len(ids) > width:
            packed.append([])
        packed[-1].append((number, ids, masked))
    columns = {name: np.zeros((len(packed), width), kind) for name, kind in COLUMNS.items()}
    columns["documents"][:] = -1
    for at, row in enumerate(packed):
        place = 0
        for number, ids, masked in row:
            span = slice(place, place + len(ids))
            columns["ids"][at, span], columns["positions"][at, span] = ids, range(len(ids))
            columns["weights"][at, span] = [0.0 if i < max(1, masked) else 0.5 for i in range(len(ids))]
            columns["documents"][at, span] = number
            place += len(ids)
        columns["positions"][at, place:] = range(width - place)
    store = Store(root)
    inputs = {"test": str(root)}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        for shard, start in enumerate(range(0, len(packed), 4)):
            flat = {n: pa.array(c[start : start + 4].reshape(-1)) for n, c in columns.items()}
            writer.put(shard, pa.table({n: pa.FixedSizeListArray.from_arrays(f, width) for n, f in flat.items()}))
        writer.finish()
    return artefact
