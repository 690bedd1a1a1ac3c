"""Optimizer steps that are compared: a worker's own, and those of a plain PyTorch loop, on the same packed rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.throughput.shapes import SHAPES, llama
from continual.config.schema import Train
from continual.contract.loss import Loss
from continual.contract.models import ModelRef
from continual.contract.stream import Stream
from continual.models.attention import BY_DOCUMENT, use_attention
from continual.training.batch import Rows
from continual.training.job import TrainJob
from continual.training.module import LossModule
from continual.training.resources import chunk_positions
from continual.training.step import Stepper, micro_batches
from continual.training.strategies import build_strategy

CPU = torch.device("cpu")
TEACHER = ModelRef("teacher", "teacher")
"""Stands for the only live teacher of a step."""
NOWHERE: Any = None
"""The rows of a stream that are handed over, and never read."""


@dataclass(frozen=True)
class Case:
    """A model by its shape; rows of a step, their tokens, the longest document; steps that are measured."""

    shape: str
    rows: int
    row_tokens: int
    longest: int
    steps: int

    def tiny(self) -> "Case":
        """Return the same at a size that says nothing, for a test."""
        return Case("tiny", 4, 32, 16, 2)

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens

    @property
    def vocabulary(self) -> int:
        return int(SHAPES[self.shape]["vocab_size"])

    @property
    def train(self) -> Train:
        return Train(row_tokens=self.row_tokens, batch_tokens=self.tokens, learning_rate=1e-4)

    def model(self, seed: int = 0) -> Any:
        return llama(SHAPES[self.shape], seed)

    def batch(self, seed: int, rows: int | None = None) -> Rows:
        return packed(rows or self.rows, self.row_tokens, self.vocabulary, self.longest, seed)


CASES = {"260k": Case("260k", 16, 256, 128, 60), "23M": Case("23M", 4, 512, 256, 14)}
"""What is trained beside a plain loop."""


def packed(rows: int, row_tokens: int, vocabulary: int, longest: int, seed: int) -> Rows:
    """Return rows [rows, row_tokens] of random tokens in documents of `longest` / 4 to `longest` tokens.

    The first token of a document is not predicted.
    """
    random = torch.Generator().manual_seed(seed)
    places = []
    for _ in range(rows):
        lengths: list[int] = []
        while sum(lengths) < row_tokens:
            lengths.append(int(torch.randint(max(2, longest // 4), longest + 1, (), generator=random)))
        places.append(torch.cat([torch.arange(length) for length in lengths])[:row_tokens])
    positions = torch.stack(places)
    ids = torch.randint(vocabulary, (rows, row_tokens), generator=random)
    return {"ids": ids, "positions": positions, "weights": (positions > 0).float()}


def stream(name: str, loss: Loss, rows: int) -> Stream:
    return Stream(name, NOWHERE, loss, teacher=TEACHER if loss.teacher else None, rows_per_step=rows)


def our_step(
    model: Any, train: Train, streams: Sequence[Stream], teacher: Any = None, attention: str = BY_DOCUMENT
) -> Callable[[Mapping[str, Rows]], object]:
    """Return a worker's step on one batch by stream: its losses, its strategy, its one look at the numbers.

    `attention`: by default what `auto` takes on CPUs.
    """
    for each in (model, *([] if teacher is None else [teacher])):
        use_attention(each, attention)
    module = LossModule(model.train(), chunk_positions(train, model.config.vocab_size), None)
    job = TrainJob(Path(), ModelRef("", ""), "", tuple(streams), train, steps=10**6, seed=0)
    strategy = build_strategy(train, module, CPU, 1, len(micro_batches(job, 0, 1)))
    teachers = {} if teacher is None else {TEACHER.hash: teacher.eval().requires_grad_(False)}
    stepper = Stepper(job, strategy, teachers, [], 0, 1, CPU)

    def step(batch: Mapping[str, Rows]) -> object:
        stepper.run(0, dict(batch), stop=False)
        return list(stepper.unread.read())

    return step


def bare_step(model: Any, train: Train) -> Callable[[Rows], float]:
    """Return the step of a plain loop: the model's own forward pass, cross-entropy, clipping, AdamW.

    Its attention is transformers' choice, with a mask that keeps documents apart.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)

    def step(rows: Rows) -> float:
        loss = plain_nll(model, rows)
        loss.backward()
        assert train.max_grad_norm is not None
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def plain_nll(model: Any, rows: Rows) -> Tensor:
    """Return the mean cross-entropy in nats per token; positions that restart keep documents apart, as ours do."""
    logits = model(input_ids=rows["ids"], position_ids=rows["positions"], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), targets(rows).flatten())


def targets(rows: Rows) -> Tensor:
    """Return the token that each position predicts [rows, T], -100 where it predicts none."""
    labels = rows["ids"].masked_fill(rows["weights"] == 0, -100)
    return functional.pad(labels[:, 1:], (0, 1), value=-100)


def likeliest(rows: Rows, vocabulary: int, count: int) -> Rows:
    """Return the columns of a cached teacher: at each token `count` tokens that share nine tenths of its belief."""
    kept = min(count, vocabulary // 2)
    shape = (*rows["ids"].shape, kept)
    ids = (rows["ids"][..., None] + torch.arange(kept) * (vocabulary // kept)) % vocabulary
    return {"top_ids": ids, "top_logprobs": torch.full(shape, 0.9 / kept).log()}
