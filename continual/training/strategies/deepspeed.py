"""ZeRO through `deepspeed.initialize`. Never through accelerate, whose CPU path does not synchronise workers."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from continual.config.schema import Train
from continual.errors import ContinualError
from continual.training.module import LossModule
from continual.training.penalties import LoadedPenalty
from continual.training.states import written
from continual.training.strategies.base import Check, Strategy, adamw, not_finite, writers
from continual.training.strategies.deepspeed_json import settings
from continual.training.strategies.zero_parts import ZeroParts
from continual.training.strategies.zero_start import partition
from continual.training.strategies.zero_states import ZeroStates


class DeepSpeed(Strategy):
    """A DeepSpeed engine over Ray Train's process group, with the same AdamW as ddp.

    Under ZeRO-3 rank 0 brings the weights; the model of the others may be on the meta device.
    """

    def __init__(self, train: Train, module: LossModule, device: torch.device, micro_batches: int):
        self.module, self.brings = module, dist.is_initialized() and dist.get_rank() == 0
        self.engine = start_engine(train, module, device, micro_batches)
        self._writers = writers()
        self.states = ZeroStates(self.engine, module.model, self._writers)
        self.parts = ZeroParts(self.engine, module.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.engine(*args, **kwargs)

    def micro(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # The loss is scaled already: not by the number of micro-batches ("gas") again.
        self.engine.backward(loss, scale_wrt_gas=False)

    def part(self, name: str, whole: Tensor | None, shape: Sequence[int], device: torch.device) -> Tensor:
        tensor = torch.empty(*shape, device=device) if whole is None else whole.to(device, torch.float32)
        dist.broadcast(tensor, 0)
        return self.parts.of(name, tensor)

    def add_penalties(self, penalties: Sequence[LoadedPenalty]) -> dict[str, Tensor]:
        held, parts = self.parts.read()
        values = torch.stack([penalty.add_gradients(parts, self.engine.device) for penalty in penalties])
        self.parts.write(held)
        dist.all_reduce(values)
        return {penalty.name: value for penalty, value in zip(penalties, values, strict=True)}

    def step(self, learning_rate: float, check: Check = not_finite) -> bool:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        return bool(check(torch.tensor(norm, dtype=torch.float64, device=self.engine.device)))

    def save(self, folder: Path) -> Callable[[], object]:
        return partial(written, self.states.save(folder))

    def load(self, folder: Path) -> None:
        step = self.states.load(folder)
        # What a user's JSON asks of DeepSpeed for some step counts by these.
        self.engine.global_steps, self.engine.global_samples = step, step * self.engine.train_batch_size()

    def close(self) -> None:
        self.engine.destroy()
        dist.destroy_process_group(self._writers)

    def whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        for name, tensor in self.module.model.state_dict(keep_vars=True).items():
            with deepspeed.zero.GatheredParameters([tensor] if hasattr(tensor, "ds_id") else []):
                yield name, tensor.detach()


def start_engine(train: Train, module: LossModule, device: torch.device, micro_batches: int) -> Any:
    """Return DeepSpeed's engine around `module`; called by all ranks. Raises ContinualError without a process group."""
    if not dist.is_initialized():
        raise ContinualError("strategy `deepspeed` needs a process group, which Ray Train starts")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # before the first import, which decides it
        os.environ.setdefault("LOCAL_SIZE", "1")  # else ZeRO-3 forks `numactl` at every gradient bucket
    import deepspeed

    if device.type == "cpu":
        # Else every first run compiles, for a minute, a shared-memory collective that only inference uses.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # deepspeed 0.19 calls collectives by names that torch 2.13 renamed; torch would say so at every call.
    warnings.filterwarnings("ignore", "`torch.distributed.* is deprecated", FutureWarning)
    config, zero3 = settings(train, micro_batches), train.zero_stage == 3
    if zero3:
        deepspeed.init_distributed()
        partition(module.model, device, config)
    module.equal_chunks = module.head_is_spread = zero3
    optimizer = adamw(train, module.to(device), device)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    return engine
