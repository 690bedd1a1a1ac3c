"""Strategies on two gloo processes without Ray: equal to one process, to each other, and to themselves after a resume."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from continual.config.schema import Train
from continual.training.module import LossModule
from continual.training.strategies import build_strategy

STEPS, ROWS, TOKENS, VOCABULARY = 20, 4, 24, 50
HALF = STEPS // 2
CPU = torch.device("cpu")
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "zero1": {"strategy": "deepspeed", "zero_stage": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    # Small parameters would stay whole on every rank.
    "zero3": {
        "strategy": "deepspeed",
        "zero_stage": 3,
        "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
    },
}


def train_of(name: str, clip: float | None = 0.5) -> Train:
    keys = {"learning_rate": 3e-3, "weight_decay": 0.1, "clip": clip, "loss_chunk_tokens": 8}
    return Train.model_validate({**keys, **STRATEGIES[name]})


def tiny_model(seed: int, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


def rows_of(step: int, loss: str) -> list[dict[str, Any]]:
    """A step's rows: two packed documents each, and very unequal numbers of trained tokens, none in some rows."""
    random = torch.Generator().manual_seed(2 * step + (loss == "kl"))
    rows = []
    for number in range(ROWS):
        weights = torch.rand(1, TOKENS, generator=random)
        weights[:, int(TOKENS * number / (ROWS - 1)) :] = 0.0
        if step % 5 == 4 and number < ROWS // 2:
            weights[:] = 0.0  # nothing to learn on the whole first rank
        border = int(torch.randint(2, TOKENS - 2, (), generator=random))
        positions = torch.cat([torch.arange(border), torch.arange(TOKENS - border)])[None]
        ids = torch.randint(VOCABULARY, (1, TOKENS), generator=random)
        rows.append({"ids": ids, "positions": positions, "weights": weights, "loss": loss})
    return rows


def train_steps(strategy: Any, steps: range, rank: int, world: int) -> list[list[float]]:
    """Per step: global mean nll, global mean KL against a teacher, gradient norm."""
    teacher = tiny_model(seed=1).eval()
    share = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    record = []
    for step in steps:
        parts = {loss: rows_of(step, loss) for loss in ("nll", "kl")}
        counts = {loss: sum(float((r["weights"][:, 1:] > 0).sum()) for r in rows) for loss, rows in parts.items()}
        micro = [row for rows in parts.values() for row in rows[share]]
        sums = {"nll": torch.zeros((), dtype=torch.float64), "kl": torch.zeros((), dtype=torch.float64)}
        for number, row in enumerate(micro):
            last = number == len(micro) - 1
            with strategy.micro(last):
                loss = strategy(**row, teacher=teacher if row["loss"] == "kl" else None)
                strategy.backward(loss * (world / counts[row["loss"]]), last)
            sums[row["loss"]] += loss.detach().double() / counts[row["loss"]]
        if world > 1:
            for value in sums.values():
                dist.all_reduce(value)
        record.append([float(sums["nll"]), float(sums["kl"]), strategy.step(3e-3 / (1 + step))])
    return record


def build(name: str, rank: int, world: int, tied: bool = False, clip: float | None = 0.5, seed: int = 0) -> Any:
    train = train_of(name, clip)
    module = LossModule(tiny_model(seed, tied).train(), train.loss_chunk_tokens, None)
    return build_strategy(train, module, STEPS, CPU, world, 2 * ROWS // world)


def scenarios(rank: int, world: int, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    import time

    for name in STRATEGIES:
        print(rank, name, time.time() - T0, flush=True)
        strategy = build(name, rank, world)
        record = train_steps(strategy, range(HALF), rank, world)
        saved = folder / name
        if rank == 0:
            saved.mkdir()
        dist.barrier()
        strategy.save(saved)
        record += train_steps(strategy, range(HALF, STEPS), rank, world)
        results[name] = {"record": record, "state": strategy.full_state()}
        dist.barrier()

        resumed = build(name, rank, world, seed=7)  # other weights: all must come from the folder
        resumed.load(saved)
        record = train_steps(resumed, range(HALF, STEPS), rank, world)
        results[name] |= {"resumed": record, "resumed_state": resumed.full_state()}

        tied = build(name, rank, world, tied=True, clip=None)
        results[name] |= {"tied": train_steps(tied, range(5), rank, world), "tied_state": tied.full_state()}
    return results


import time

T0 = time.time()


def worker(rank: int, world: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.save(scenarios(rank, world, folder), folder / f"results-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
