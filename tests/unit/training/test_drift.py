"""Drift on held-out rows and its standard error, against each document alone in float64, on any number of ranks."""

import copy
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from continual.contract.stream import Stream
from continual.data.documents import mean_per_token
from continual.data.rows import RowReader, row_facts, rows_table, write_origins
from continual.models import load_model
from continual.testing import loop
from continual.testing.toys import context, packed, without_ray
from continual.training.batch import to_tensors
from continual.training.drift import Drift, drift_record, measured_drift
from continual.training.order import held_out_rows
from continual.training.precision import all_bits
from continual.training.step import Stepper
from continual.training.worker import Worker

HELD_OUT = 7
KL = {"type": "context_free", "loss": "kl", "held_out": HELD_OUT}


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose model has left the teacher."""
    without_ray(monkeypatch)
    job = loop.job_of(context(tmp_path, [KL], learning_rate=0.01, loss_chunk_tokens=5))
    worker = loop.worker_of(job)
    for step in range(3):
        worker.train_step(loop.batch_of(job, step), stop=False)
    return worker


def split_rows(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """The documents of the rows of either of two ranks."""
    documents = held_out(stream)["documents"]
    return documents[::2], documents[1::2]


def of_ranks(stepper: Stepper, ranks: int) -> list[dict[str, Drift]]:
    """What each of several ranks measures: threads that share the model and meet where they add."""
    barrier, added = threading.Barrier(ranks, timeout=60), [torch.zeros(())] * ranks

    def measured(rank: int) -> dict[str, Drift]:
        own: Any = copy.copy(stepper)
        own.rank, own.world_size = rank, ranks

        def summed(values: torch.Tensor) -> torch.Tensor:
            added[rank] = values
            barrier.wait()
            total = torch.stack(added).sum(0)
            barrier.wait()
            return total

        own.summed = summed
        return measured_drift(own)

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(measured, range(ranks)))


def held_out(stream: Stream) -> dict[str, np.ndarray]:
    reader = RowReader(stream.rows)
    return reader.take(held_out_rows(stream, len(reader)))


def by_hand(worker: Worker, stream: Stream, origins: list[int] | None = None) -> tuple[float, float]:
    """Mean per token and its error from the definition: each document alone, unpacked, in Python's floats."""
    assert stream.teacher is not None
    teacher = load_model(stream.teacher.path, "float32").double()
    model = copy.deepcopy(worker.strategy.module.model).double().eval()
    rows = held_out(stream)
    sums: dict[int, list[float]] = {}
    for number in sorted(set(rows["documents"].ravel().tolist()) - {-1}):
        here = rows["documents"] == number
        ids, learned = torch.tensor(rows["ids"][here])[None].long(), torch.tensor(rows["weights"][here][1:] > 0)
        with torch.no_grad():
            log_p, log_q = (torch.log_softmax(of(ids).logits[0, :-1], -1) for of in (teacher, model))
        nats = (log_p.exp() * (log_p - log_q)).sum(-1)[learned].sum().item()
        if learned.any():
            document = sums.setdefault(number if origins is None else origins[number], [0.0, 0])
            document[0] += nats
            document[1] += int(learned.sum())
    tokens = sum(count for _, count in sums.values())
    mean, units = sum(nats for nats, _ in sums.values()) / tokens, len(sums)
    squares = sum((nats - mean * count) ** 2 for nats, count in sums.values())
    return mean, math.sqrt(units / (units - 1) * squares) / tokens


def check(found: Drift, expected: tuple[float, float]) -> None:
    assert found.stderr is not None
    assert 0 < found.stderr < found.value
    assert (found.value, found.stderr) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ranks", [1, 2, 3, HELD_OUT + 1])
def test_drift_and_error_are_those_of_documents_alone_on_any_number_of_ranks(worker: Worker, ranks: int) -> None:
    stream = worker.job.streams[1]
    found = of_ranks(worker.stepper, ranks)
    assert found == [found[0]] * ranks, "ranks that differ would set different coefficients"
    check(found[0]["context_free"], by_hand(worker, stream))


@pytest.mark.parametrize("ranks", [1, 2])
def test_pieces_of_a_document_that_lie_on_several_ranks_are_one_unit(
    worker: Worker, tmp_path: Path, ranks: int
) -> None:
    rows = packed(5, 40)
    origins = [number // 4 for number in range(40)]
    store_rows = context(tmp_path / "other", [KL]).store
    artefact = store_rows.artefact("rows", {"test": "pieces"})
    with store_rows.write(artefact, {"test": "pieces"}) as writer:
        assert writer is not None
        writer.put(0, rows_table(rows), **row_facts(rows))
        write_origins(artefact, np.array(origins))
        writer.finish()
    stream = replace(worker.job.streams[1], rows=artefact)
    even, odd = ({number // 4 for number in rows.ravel().tolist() if number >= 0} for rows in split_rows(stream))
    assert even & odd, "the test would show nothing"
    worker.stepper.job = replace(worker.job, streams=(worker.job.streams[0], stream))
    found = of_ranks(worker.stepper, ranks)[0]["context_free"]
    check(found, by_hand(worker, stream, origins))
    whole = by_hand(worker, stream)
    assert found.value == pytest.approx(whole[0], rel=1e-4)
    assert found.stderr != pytest.approx(whole[1], rel=1e-2)


def test_the_value_is_bit_by_bit_that_of_whole_rows(worker: Worker) -> None:
    """What sets coefficients must not hang on whether an error is measured."""
    stream = worker.job.streams[1]
    rows = held_out(stream)
    total = torch.zeros(2, dtype=torch.float64)
    worker.strategy.eval()
    with torch.no_grad(), all_bits():
        for row in range(HELD_OUT):
            tensors = to_tensors(stream, {name: values[row][None] for name, values in rows.items()})
            total[0] += worker.stepper.loss_sum(stream, tensors, slice(None)).double()
            total[1] += (tensors["weights"][:, 1:] > 0).sum()
    assert worker.drift()["context_free"].value == float(total[0] / total[1])


def test_a_cached_teachers_drift_has_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    cached = {**KL, "teacher": "cached", "teacher_top_k": 50}
    worker = loop.worker_of(job := loop.job_of(context(tmp_path, [cached], learning_rate=0.01)))
    for step in range(3):
        worker.train_step(loop.batch_of(job, step), stop=False)
    one, two = (of_ranks(worker.stepper, ranks)[0]["context_free"] for ranks in (1, 2))
    live = replace(job.streams[1], teacher=context(tmp_path, [cached]).stage_start)
    check(one, by_hand(worker, live))
    assert (one.value, one.stderr) == pytest.approx((two.value, two.stderr), rel=1e-12)


def test_a_record_has_the_errors_that_are_known() -> None:
    measured = {"a": Drift(0.5, 0.1), "b": Drift(0.25, None)}
    assert drift_record(measured) == {"drift": {"a": 0.5, "b": 0.25}, "drift_stderr": {"a": 0.1}}
    assert drift_record({"b": Drift(0.25, None)}) == {"drift": {"b": 0.25}}
    assert drift_record({}) == {"drift": {}}


def test_the_last_record_of_a_stage_has_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    records, worker = loop.run(loop.job_of(context(tmp_path, [KL])))
    [last] = [record for record in records if "drift" in record]
    assert last is records[-1]
    assert json.loads(json.dumps(last["drift_stderr"])) == {"context_free": worker.drift()["context_free"].stderr}


pairs = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 9)), min_size=2, max_size=20)


@given(pairs, st.floats(0.1, 10))
def test_the_error_scales_with_nats_and_does_not_hang_on_the_order(found: list[Any], factor: float) -> None:
    nats, tokens = (np.array(values, np.float64) for values in zip(*found, strict=True))
    mean, error = mean_per_token(nats, tokens)
    assert error is not None
    scaled = mean_per_token(nats[::-1] * factor, tokens[::-1])
    assert scaled == pytest.approx((mean * factor, error * factor), rel=1e-6, abs=1e-9)


@given(st.floats(0, 10), st.lists(st.integers(1, 9), min_size=2, max_size=20))
def test_documents_that_are_all_alike_have_no_error(rate: float, tokens: list[int]) -> None:
    counts = np.array(tokens)
    assert mean_per_token(rate * counts, counts) == pytest.approx((rate, 0.0), abs=1e-9)
    assert mean_per_token(rate * counts[:1], counts[:1])[1] is None
