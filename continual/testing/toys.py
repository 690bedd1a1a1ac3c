"""Tiny models and rows in a store, and the two stages of a sequence that a method runs in without Ray."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
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
from continual.scoring.score import _ScoreShards
from continual.show.terminal import Terminal
from continual.store import Artefact, Store, digest

if TYPE_CHECKING:
    import pytest

VOCABULARY, TOKENS, ROWS, STEPS = 50, 16, 4, 20
"""The model's vocabulary; tokens in a row; the task's rows and the steps of a stage."""
DOCUMENTS = {"first": 40, "task": 60, "replay": 90}
"""Documents of stage 1, of stage 2, and of everything that a method samples or reads."""


def model_ref(folder: Path, seed: int, tied: bool = False) -> ModelRef:
    """Write a random two-layer model into `folder` and return it."""
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


@cache
def _folder() -> TemporaryDirectory[str]:
    """Make a folder that is deleted when the process ends."""
    return TemporaryDirectory(prefix="continual-testing-")


@cache
def models() -> tuple[ModelRef, ModelRef]:
    """Return the models before the sequence and before its second stage, made once a process."""
    folder = Path(_folder().name)
    return model_ref(folder / "start", 0), model_ref(folder / "stage-start", 1)


def packed(seed: int, documents: int) -> Arrays:
    """Return rows of random documents of 3 to 9 tokens, the first two of each without a loss."""
    random = np.random.default_rng(seed)
    ids = [random.integers(1, VOCABULARY, n).astype(np.int32) for n in random.integers(3, 10, documents)]
    weights = [np.where(np.arange(len(x)) < 2, 0.0, 1.0).astype(np.float32) for x in ids]
    return pack_rows(ids, weights, 0, TOKENS)


def stored(store: Store, name: str, rows: Arrays, shard_rows: int = 7) -> Artefact:
    """Return the rows as the artefact of that name, written unless it exists."""
    inputs = {"test": name}
    artefact = store.artefact("rows", inputs)
    with store.write(artefact, inputs) as writer:
        if writer is not None:
            for shard, first in enumerate(range(0, len(rows["ids"]), shard_rows)):
                part = {key: value[first : first + shard_rows] for key, value in rows.items()}
                writer.put(shard, rows_table(part), **row_facts(part))
            writer.finish()
    return artefact


def score_in_process(missing: list[int], arguments: tuple[Any, ...], config: Any) -> Iterator[int]:
    """Score the missing shards here, in place of the Ray Data job of `continual.scoring.score`."""
    actor = _ScoreShards(*arguments)
    for shard in missing:
        yield from actor({"shard": np.array([shard])})["shard"]


def without_ray(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Run scoring and Ray tasks in this process, at once."""

    class Here:
        def __init__(self, function: Callable[..., Any]):
            self.remote = function

        def options(self, **_: Any) -> "Here":
            return self

    monkeypatch.setattr("continual.scoring.score._run", score_in_process)
    monkeypatch.setattr("ray.remote", Here)
    monkeypatch.setattr("ray.get", lambda value: value)


@dataclass
class Offline(StageContext):
    """The services of a stage, where sampling and reading return stored rows. `requests` lists what was asked for."""

    requests: list[SampleRequest] = field(default_factory=list)

    def sample(self, request: SampleRequest) -> Artefact:
        self.requests.append(request.resolved(self.view))
        return self.store.artefact("rows", {"test": "replay"})

    def generate(self, request: SampleRequest, title: str = "generate") -> Artefact:
        """Return a samples artefact of random tokens, as many as the request allows."""
        request = request.resolved(self.view)
        self.requests.append(request)
        inputs = {"test": request.identity()}
        artefact = self.store.artefact("samples", inputs)
        with self.store.write(artefact, inputs) as writer:
            if writer is not None:
                table = _samples(request)
                writer.put(0, table, first=0, samples=len(table), failed=0, tokens=request.tokens)
                writer.finish()
        return artefact

    def read(self, source: Any) -> Artefact:
        return self.store.artefact("rows", {"test": "replay"})

    def model(self, source: str) -> ModelRef:
        return self.start


def _samples(request: SampleRequest) -> pa.Table:
    """Return samples of a request: number, start and tokens, as `continual.sampling` stores them."""
    random = np.random.default_rng(int(digest(request.identity()), 16) % (1 << 64))
    prompts = request.prompts or [[1]]
    starts = [[int(token) for token in prompts[number % len(prompts)]] for number in range(request.count or 0)]
    lengths = [request.new_tokens or max(1, (request.max_tokens or TOKENS) - len(start)) for start in starts]
    tokens = [random.integers(1, VOCABULARY, length).tolist() for length in lengths]
    return pa.table(
        {
            "number": pa.array(range(request.count or 0), pa.int64()),
            "start": pa.array(starts, pa.list_(pa.int32())),
            "tokens": pa.array(tokens, pa.list_(pa.int32())),
        }
    )


def sequence(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> Sequence:
    """Return a sequence of two stages with a list of mitigations and keys of `train`."""
    data = {"type": "jsonl", "path": "x.jsonl", "prompt": "q", "completion": "a"}
    return Sequence.model_validate(
        {
            "name": "tiny",
            "storage": str(folder),
            "model": {"type": "pretrained", "source": models()[0].path},
            "stages": [{"name": name, "data": data, "steps": STEPS} for name in ("one", "two")],
            "mitigation": mitigation,
            "train": {"batch_tokens": ROWS * TOKENS, "row_tokens": TOKENS, "learning_rate": 3e-3, **train},
        }
    )


def context(folder: Path, mitigation: list[dict[str, Any]], **train: Any) -> Offline:
    """Return stage 2 of a sequence whose stage-start model differs from its start model, with a store in `folder`."""
    store = Store(folder / "store")
    rows = {name: stored(store, name, packed(seed, count)) for seed, (name, count) in enumerate(DOCUMENTS.items())}
    start, stage_start = models()
    configuration = sequence(folder, mitigation, **train)
    return Offline(
        sequence=configuration,
        view=stage_view(configuration, 2),
        store=store,
        terminal=Terminal(folder / "log.txt", io.StringIO()),
        start=start,
        stage_start=stage_start,
        earlier=[StageRecord("one", stage_start, rows["first"], None)],
        rows=rows["task"],
    )


def first_stage(ctx: Offline) -> Offline:
    """Return stage 1 of the sequence of which `ctx` is stage 2."""
    view = stage_view(ctx.sequence, 1)
    return replace(ctx, view=view, stage_start=ctx.start, earlier=[], rows=ctx.earlier[0].rows, requests=[], used={})
