"""One optimizer step of one rank: the losses of all streams, the penalties, the update. It knows no method by name."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from continual.contract.stream import Stream
from continual.errors import ContinualError
from continual.training.batch import INPUTS, Batch, Rows
from continual.training.job import TASK, TrainJob
from continual.training.penalties import LoadedPenalty
from continual.training.schedule import learning_rate
from continual.training.strategies.base import Strategy


@dataclass
class Stepper:
    """What the optimizer steps of one rank need: the strategy, frozen teachers by hash, penalties, coefficients."""

    job: TrainJob
    strategy: Strategy
    teachers: dict[str, torch.nn.Module]
    penalties: list[LoadedPenalty]
    world_size: int
    device: torch.device
    coefficients: dict[str, float] = field(init=False)
    """By stream; mitigations that control change them."""

    def __post_init__(self) -> None:
        self.coefficients = {stream.name: stream.coefficient for stream in self.job.streams}
        self.micro = micro_batches(self.job, self.world_size)

    def run(self, step: int, batch: Batch, stop: bool) -> tuple[dict[str, Any], bool]:
        """Make optimizer step `step` (0-based); return its record, and whether all ranks should stop after it."""
        train = self.job.train
        counts, tokens, stopping = self.counts(batch, stop)
        self.check(step, counts)
        losses = self.forward_backward(batch, counts)
        if self.penalties:
            added = self.strategy.add_penalties(self.penalties)
            losses |= {f"anchor/{name}": value for name, value in added.items()}
        rate = learning_rate(step, self.job.steps, train.learning_rate, train.schedule, train.warmup_steps)
        norm = self.strategy.step(rate)
        if not all(np.isfinite([*losses.values(), norm])):
            raise ContinualError(
                f"the loss is not finite at step {step + 1} ({losses}); "
                f"lower `train.learning_rate` ({train.learning_rate})"
            )
        record = {
            "step": step + 1,
            "loss": losses,
            "weight": dict(self.coefficients),
            "tokens": int(tokens),
            "task_tokens": int(counts[TASK]),
            "learning_rate": rate,
            "gradient_norm": norm,
        }
        return record, stopping

    def counts(self, batch: Batch, stop: bool) -> tuple[dict[str, float], float, bool]:
        """Return global positions with weight > 0 by stream, their sum, and whether any rank wants to stop."""
        local = [float((batch[stream.name]["weights"][:, 1:] > 0).sum()) for stream in self.job.streams]
        *counts, stops = self.summed(torch.tensor([*local, float(stop)], dtype=torch.float64)).tolist()
        names = [stream.name for stream in self.job.streams]
        return dict(zip(names, counts, strict=True)), sum(counts), stops > 0

    def check(self, step: int, counts: dict[str, float]) -> None:
        """Raise ContinualError if nothing is learned in a step, or nothing of a stream whose tokens nobody weighs."""
        for stream in self.job.streams:
            if not counts[stream.name] and not (stream.token_weights and any(counts.values())):
                raise ContinualError(
                    f"`{stream.name}` has no position to learn from in step {step + 1}; "
                    f"check its data, or what weighs its tokens"
                )

    def forward_backward(self, batch: Batch, counts: dict[str, float]) -> dict[str, float]:
        """Accumulate the gradients of all streams; return each stream's global mean loss in nats per token."""
        sums = torch.zeros(len(self.job.streams), dtype=torch.float64)
        done = 0
        for number, stream in enumerate(self.job.streams):
            name = stream.name
            # DDP and ZeRO average over ranks: times world_size makes the sum over ranks the global mean.
            scale = self.world_size * self.coefficients[name] / max(counts[name], 1.0)
            for part in _parts(self.job, stream, self.world_size):
                done += 1
                with self.strategy.micro(last=done == self.micro):
                    loss = self.loss_sum(stream, batch[name], part)
                    self.strategy.backward(loss * scale, last=done == self.micro)
                sums[number] += loss.detach().double().cpu()
        return {
            stream.name: total / max(counts[stream.name], 1.0)
            for stream, total in zip(self.job.streams, self.summed(sums).tolist(), strict=True)
        }

    def loss_sum(self, stream: Stream, rows: Rows, part: slice) -> torch.Tensor:
        """Return the weighted sum of a stream's losses over some of its rows, in nats."""
        tensors = {name: tensor[part].to(self.device) for name, tensor in rows.items()}
        inputs = [tensors.pop(name) for name in INPUTS]
        teacher = self.teachers[stream.teacher.hash] if stream.teacher else None
        return self.strategy(*inputs, loss=stream.loss, teacher=teacher, columns=tensors)

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over all ranks."""
        if self.world_size > 1:
            dist.all_reduce(values := values.to(self.device))
        return values


def micro_batches(job: TrainJob, world_size: int) -> int:
    """Return the forward passes per optimizer step of each rank; equal on all ranks, since all are filled up."""
    return sum(len(_parts(job, stream, world_size)) for stream in job.streams)


def _parts(job: TrainJob, stream: Stream, world_size: int) -> list[slice]:
    rows = -(-stream.rows_per_step // world_size)
    size = job.train.micro_rows or rows
    return [slice(first, first + size) for first in range(0, rows, size)]
