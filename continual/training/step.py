"""One optimizer step of one rank: the losses of all streams, the penalties, the update. It knows no method by name."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from continual.contract.stream import Stream
from continual.errors import ContinualError
from continual.models.forward import asks_for_borders
from continual.training.batch import DOCUMENTS, INPUTS, Batch, Rows, on_device
from continual.training.job import TASK, TrainJob
from continual.training.layout import layout_of
from continual.training.order import first_ranks
from continual.training.penalties import LoadedPenalty
from continual.training.schedule import learning_rate
from continual.training.strategies import equal_passes
from continual.training.strategies.base import Strategy
from continual.training.unread import Unread


@dataclass
class Stepper:
    """What the optimizer steps of one rank need: the strategy, frozen teachers by hash, penalties, coefficients."""

    job: TrainJob
    strategy: Strategy
    teachers: dict[str, Any]
    penalties: list[LoadedPenalty]
    rank: int
    world_size: int
    device: torch.device
    talk: dist.ProcessGroup | None = None
    """In which ranks tell each other what is on their CPUs; None: in the group of all."""
    coefficients: dict[str, float] = field(init=False)
    """By stream; mitigations that control change them."""
    spoiled: bool = field(default=False, init=False)
    """Whether a value of the last step is known not to be finite: `unread` has to be read, and raises."""

    def __post_init__(self) -> None:
        self.coefficients = {stream.name: stream.coefficient for stream in self.job.streams}
        self.micro = micro_batches(self.job, self.rank, self.world_size)
        self.unread = Unread(self.job.train.learning_rate)
        self.borders = asks_for_borders(self.strategy.module.model)

    def run(self, step: int, batch: Batch, stop: bool) -> tuple[dict[str, Any], bool]:
        """Make optimizer step `step` (0-based); return its record, and whether all ranks should stop after it.

        `unread` completes the record. A step whose values are not finite changes no weights (under deepspeed it may).
        """
        train = self.job.train
        counts, tokens, stopping = self.counts(batch, stop)
        self.check(step, counts)
        means = self.forward_backward(batch, counts)
        added = self.strategy.add_penalties(self.penalties) if self.penalties else {}
        names = [*counts, *(f"anchor/{name}" for name in added)]
        rate = learning_rate(step, self.job.steps, train.learning_rate, train.schedule, train.warmup_steps)
        record = {
            "step": step + 1,
            "loss": {},
            "weight": dict(self.coefficients),
            "tokens": int(tokens),
            "task_tokens": int(counts[TASK]),
            "learning_rate": rate,
            "gradient_norm": 0.0,
        }

        def keep(norm: torch.Tensor) -> torch.Tensor:
            values = torch.stack([*means, *(value.to(means) for value in added.values()), norm.to(means)])
            self.unread.add(record, names, values)
            return values.isfinite().all().logical_not()

        self.spoiled = self.strategy.step(rate, keep)
        return record, stopping

    def counts(self, batch: Batch, stop: bool) -> tuple[dict[str, float], float, bool]:
        """Return global positions with weight > 0 by stream, their sum, and whether any rank wants to stop."""
        local = [float((batch[stream.name]["weights"][:, 1:] > 0).sum()) for stream in self.job.streams]
        values = torch.tensor([*local, float(stop)], dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(values, group=self.talk)
        *counts, stops = values.tolist()
        return self.named(counts), sum(counts), stops > 0

    def check(self, step: int, counts: dict[str, float]) -> None:
        """Raise ContinualError if nothing is learned in a step, or nothing of a stream whose tokens nobody weighs."""
        for stream in self.job.streams:
            if not counts[stream.name] and not (stream.token_weights and any(counts.values())):
                raise ContinualError(
                    f"`{stream.name}` has no position to learn from in step {step + 1}; "
                    f"check its data, or what weighs its tokens"
                )

    def forward_backward(self, batch: Batch, counts: dict[str, float]) -> torch.Tensor:
        """Accumulate the gradients of all streams; return their global mean losses in nats per token, on the device."""
        sums = {stream.name: torch.zeros((), dtype=torch.float64, device=self.device) for stream in self.job.streams}
        for done, (stream, part) in enumerate(self.micro, 1):
            name, last = stream.name, done == len(self.micro)
            # DDP and ZeRO average over ranks: times world_size makes the sum over ranks the global mean.
            scale = self.world_size * self.coefficients[name] / max(counts[name], 1.0)
            with self.strategy.micro(last):
                loss = self.loss_sum(stream, batch[name], part)
                self.strategy.backward(loss * scale, last)
            sums[name] += loss.detach()
        totals = self.summed(torch.stack(list(sums.values())))
        return torch.stack([total / max(counts[name], 1.0) for name, total in zip(sums, totals, strict=True)])

    def named(self, values: Iterable[float]) -> dict[str, float]:
        """Return values of all streams by their names."""
        return {stream.name: value for stream, value in zip(self.job.streams, values, strict=True)}

    def loss_sum(self, stream: Stream, rows: Rows, part: slice, documents: int | None = None) -> torch.Tensor:
        """Return the weighted sum of a stream's losses over some of its rows, in nats.

        With the number of `documents`, `rows` tell each token's, and the sums by document come behind the whole one,
        see `LossModule.forward`.
        """
        # Of rows that teach nothing, such as padding that a rank passes so that all make equally many passes, two
        # tokens do: their loss is a zero of all parameters. Compiled layers would be compiled again for them.
        teaches = self.job.train.compile or bool(rows["weights"][part][:, 1:].any())
        width = slice(None) if teaches else slice(2)
        rows = {name: tensor[part, width] for name, tensor in rows.items()}
        layout = layout_of(rows["positions"], rows["weights"], self.borders).to(self.device)
        tensors = {name: on_device(tensor, self.device) for name, tensor in rows.items()}
        inputs = [tensors.pop(name) for name in INPUTS]
        teacher = self.teachers[stream.teacher.hash] if stream.teacher else None
        by = {} if documents is None else {"documents": tensors.pop(DOCUMENTS), "count": documents}
        return self.strategy(*inputs, loss=stream.loss, teacher=teacher, columns=tensors, layout=layout, **by)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over all ranks."""
        if self.world_size > 1:
            dist.all_reduce(values := values.to(self.device))
        return values


def micro_batches(job: TrainJob, rank: int, world_size: int) -> list[tuple[Stream, slice]]:
    """Return the rows of each forward pass that a rank makes in an optimizer step.

    A pass leaves out rows of padding. A rank makes a pass over one row of padding only where the strategy needs equally
    many passes on all ranks, or where it would make none at all.
    """
    equal, firsts = equal_passes(job.train), first_ranks(job.streams, world_size)
    passes = []
    for stream in job.streams:
        share = -(-stream.rows_per_step // world_size)
        own = len(range((rank - firsts[stream.name]) % world_size, stream.rows_per_step, world_size))
        size = job.train.micro_rows or share
        for first in range(0, share, size):
            rows = min(first + size, own) - first
            if rows > 0 or equal:
                passes.append((stream, slice(first, first + max(rows, 1))))
    return passes or [(job.streams[0], slice(0, 1))]
