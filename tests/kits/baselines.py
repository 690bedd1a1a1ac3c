"""What the tests of methods share: tiny models and rows in a store, a context without Ray, the loop in process."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from continual.config.schema import Sequence
from continual.contract.context import StageRecord
from continual.contract.models import ModelRef
from continual.contract.requests import SampleRequest
from continual.data.packing import Arrays, pack_rows
from continual.data.rows import row_facts, rows_table
from continual.models import model_hash
from continual.preflight.stages import stage_view
from continual.run.services import StageContext
from continual.run.stage import build_job
from continual.scoring.score import _ScoreShards
from continual.show.terminal import Terminal
from continual.store import Artefact, Store
from continual.training.batch import Batch, to_batch
from continual.training.ingest import ReadSteps
from continual.training.job import TrainJob
from continual.training.worker import Worker

VOCABULARY, TOKENS, ROWS, STEPS = 50, 16, 4, 20
CPU = torch.device("cpu")


def model_ref(folder: Path, seed: int, tied: bool = False) -> ModelRef:
    """A random two-layer model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return ModelRef(str(folder), model_hash(folder))


def packed(seed: int, documents: int) -> Arrays:
    """Rows of random documents of 3 to 9 tokens, the first two of each without a loss."""
    random = np.random.default_rng(seed)
    ids = [random.integers(1, VOCABULARY, n).astype(np.int32) for n in random.integers(3, 10, documents)]
    weights = [np.where(np.arange(len(x)) < 2, 0.0, 1.0).astype(np.float32) for x in ids]
    return pack_rows(ids, weights, 0, TOKENS)


def stored(store: Store, name: str, rows: Arrays, shard_rows: int = 7) -> Artefact:
    inputs = {"test": name}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        assert writer is not None
        for shard, first in enumerate(range(0, len(rows["ids"]), shard_rows)):
            part = {key: value[first : first + shard_rows] for key, value in rows.items()}
            writer.put(shard, rows_table(part), **row_facts(part))
        writer.finish()
    return artefact


def score_in_process(missing: list[int], arguments: tuple[Any, ...], config: Any) -> Iterator[int]:
    """Stands in for the Ray Data job of `continual.scoring.score`."""
    actor = _ScoreShards(*arguments)
    for shard in missing:
        yield from actor({"shard": np.array([shard])})["shard"]


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring and tasks run here and now."""

    class Here:
        def __init__(self, function: Callable[..., Any]):
            self.remote = function

        def options(self, **_: Any) -> "Here":
            return self

    monkeypatch.setattr("continual.scoring.score._run", score_in_process)
    monkeypatch.setattr("ray.remote", Here)
    monkeypatch.setattr("ray.get", lambda value: value)


class Offline(StageContext):
    """Sampling and reading answer with rows that are there."""

    def sample(self, request: SampleRequest) -> Artefact:
        return self.store.artefact("rows", {"test": "replay"})

    def read(self, source: Any) -> Artefact:
        return self.store.artefact("rows", {"test": "replay"})


def sequence(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> Sequence:
    data = {"type": "jsonl", "path": "x.jsonl", "prompt": "q", "completion": "a"}
    return Sequence.model_validate(
        {
            "name": "tiny",
            "storage": str(folder),
            "model": {"type": "pretrained", "source": str(folder / "start")},
            "stages": [{"name": name, "data": data, "steps": STEPS} for name in ("one", "two")],
            "mitigation": mitigation,
            "train": {"batch_tokens": ROWS * TOKENS, "row_tokens": TOKENS, "learning_rate": 3e-3, **train},
        }
    )


def context(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> StageContext:
    """Stage 2 of a sequence: the stage-start model differs from the start model."""
    store = Store(folder / "store")
    made: dict[str, Artefact] = {}
    for seed, (name, count) in enumerate({"first": 40, "task": 60, "replay": 90}.items()):
        found = store.artefact("rows", {"test": name})
        made[name] = found if found.complete else stored(store, name, packed(seed, count))
    refs = [model_ref(folder / name, seed) for seed, name in enumerate(("start", "stage-start"))]
    asked = sequence(folder, mitigation, **train)
    return Offline(
        sequence=asked,
        view=stage_view(asked, 2),
        store=store,
        terminal=Terminal(folder / "log.txt", io.StringIO()),
        start=refs[0],
        stage_start=refs[1],
        earlier=[StageRecord("one", refs[1], made["first"], None)],
        rows=made["task"],
    )


def job_of(ctx: StageContext) -> TrainJob:
    folder = Path(ctx.start.path).parent / "stage"
    return build_job(ctx, folder, 1)[0]


def worker_of(job: TrainJob) -> Worker:
    return Worker(job, 0, 1, CPU)


def batch_of(job: TrainJob, step: int) -> Batch:
    read = ReadSteps(job.streams, job.seed, 0, 1)
    return to_batch(job.streams, {key: value[None] for key, value in read.read(step).items()})


def train(job: TrainJob, steps: int = STEPS) -> tuple[list[dict[str, Any]], Worker]:
    """Records of the first steps, and the worker behind them."""
    worker = worker_of(job)
    return [worker.train_step(batch_of(job, step), stop=False)[0] for step in range(steps)], worker
