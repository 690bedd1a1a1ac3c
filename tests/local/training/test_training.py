"""Training through Ray Train: worker counts and strategies agree with each other and with a bare PyTorch loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual.config.schema import ModelSource, Train
from continual.contract.stream import Stream
from continual.data.prepare import prepare_rows
from continual.data.rows import RowReader
from continual.data.sources.python import PythonSource
from continual.ledger.lines import read_lines
from continual.models.start import start_model
from continual.store import Artefact, Store
from continual.training.job import TASK, TrainJob
from continual.training.launch import Workers
from continual.training.losses.kinds import Kl, Nll
from continual.training.order import shuffled, step_positions

pytestmark = pytest.mark.slow
STEPS = 20


@pytest.fixture(scope="module")
def parts(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Artefact]:
    """A folder, a random model, and rows with unequal numbers of tokens: documents of 11, 14 and 17 tokens packed."""
    folder = tmp_path_factory.mktemp("training")
    store = Store(folder / "store", "test")
    source = ModelSource(
        type="python", build="benchmarks.arithmetic.model:build", tokenizer="benchmarks.arithmetic.tokenizer:build"
    )
    model = start_model(store, source, 0)
    rows = prepare_rows(store, PythonSource(function="tests.local.data.mixed_rows:rows"), model.path, 40)
    return folder, model, rows


def train(parts: tuple[Path, Any, Artefact], *names: str, replay: bool, **options: Any) -> list[list[dict[str, Any]]]:
    """Train the same stage under each of the names, one after another by the same workers; return their records."""
    folder, model, rows = parts
    settings = Train(learning_rate=1e-4, batch_tokens=40 * 12, row_tokens=40, **({"max_grad_norm": 1.0} | options))
    streams = [Stream(TASK, rows, Nll(), shuffle=True, rows_per_step=settings.batch_rows)]
    if replay:
        streams.append(Stream("replay", rows, Kl(), teacher=model, coefficient=2.0, rows_per_step=5))
    found = []
    with Workers(folder / "ray", 0.5) as workers:
        for name in names:
            job = TrainJob(folder / name, model, model.path, tuple(streams), settings, STEPS, seed=7)
            workers.train(job, lambda records: None, stay=name != names[-1])
            found.append(read_lines(job.folder / "metrics.jsonl"))
    return found


@pytest.fixture(scope="module")
def reference(parts: tuple[Path, Any, Artefact]) -> list[dict[str, Any]]:
    """One worker with accumulation: micro-batches of 5 rows, the last one smaller."""
    return train(parts, "one", replay=True, workers=1, micro_rows=5)[0]


def values(records: list[dict[str, Any]]) -> list[Any]:
    return [[r["rows"], r["loss"], r["gradient_norm"], r["tokens"]] for r in records]


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 2, "micro_rows": 3},
        {"workers": 2, "strategy": "deepspeed", "zero_stage": 2},
        {"workers": 2, "strategy": "deepspeed", "zero_stage": 3, "micro_rows": 3},
    ],
    ids=["ddp", "zero2", "zero3"],
)
def test_two_workers_equal_one_with_accumulation(
    parts: tuple[Path, Any, Artefact], reference: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    """Rows do not divide by workers or micro-batches and token counts differ by rank; the means are global."""
    name = "-".join(str(value) for value in options.values())
    found, again = train(parts, name, f"{name}-again", replay=True, **options)
    assert values(again) == values(found), "a stage depends on the one that the same workers trained before"
    assert [r["rows"] for r in found] == [r["rows"] for r in reference]
    assert [r["task_tokens"] for r in found] == [r["task_tokens"] for r in reference]
    for one, other in zip(reference, found, strict=True):
        for stream in ("task", "replay"):
            assert one["loss"][stream] == pytest.approx(other["loss"][stream], abs=1e-6), one["step"]
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_without_mitigation_it_is_a_bare_loop(parts: tuple[Path, Any, Artefact]) -> None:
    """Cross-entropy of each document by itself, summed, over the number of predicted tokens; torch's AdamW."""
    from transformers import AutoModelForCausalLM

    _, ref, artefact = parts
    [found] = train(parts, "bare", replay=False, workers=1, max_grad_norm=None)
    model = AutoModelForCausalLM.from_pretrained(ref.path, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    reader = RowReader(artefact)
    for record in found:
        numbers = shuffled(7, TASK, step_positions(12, record["step"] - 1), len(reader))
        rows = reader.take(numbers)
        total, count = torch.zeros(()), 0
        for ids, documents in zip(rows["ids"], rows["documents"], strict=True):
            for document in np.unique(documents[documents >= 0]):
                tokens = torch.tensor(ids[documents == document], dtype=torch.long)[None]
                logits = model(tokens, use_cache=False).logits[0, :-1]
                total = total + torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum")
                count += tokens.shape[1] - 1
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert count == record["task_tokens"]
        assert loss.item() == pytest.approx(record["loss"]["task"], abs=1e-6), record["step"]
