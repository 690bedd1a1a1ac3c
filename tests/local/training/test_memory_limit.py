"""Two layers as wide as an 8B model's on two CPU workers: fsdp trains them within memory in which ddp cannot.

Of one layer nothing would be saved: it is gathered whole, and so are its gradients.
"""

import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.throughput.memory import LLAMA_8B, planned
from benchmarks.throughput.tracked import Case
from continual.config.schema import Train
from continual.models import load_model
from continual.training.losses.kinds import Nll
from continual.training.module import LossModule
from continual.training.strategies import build_strategy, spreads_weights
from tests.kits.weights import saved

pytestmark = pytest.mark.soak  # some minutes of products in bfloat16, which CPUs may lack
RANKS, ROWS, TOKENS, STEPS = 2, 1, 4, 2
CPU = torch.device("cpu")  # where products in bfloat16 are slow: a few tokens are enough
WIDE: dict[str, Any] = {**LLAMA_8B, "num_hidden_layers": 2, "vocab_size": 512}
TRAIN: dict[str, Any] = {
    "workers": RANKS,
    "precision": "bfloat16",
    "row_tokens": TOKENS,
    "batch_tokens": RANKS * ROWS * TOKENS,
}


def planned_for(strategy: str) -> float:
    return planned(Case(strategy, WIDE, {**TRAIN, "strategy": strategy}, rows=ROWS))


def train_within(limit: int, strategy: str, folder: Path) -> list[float]:
    """Return the mean losses of two steps, for which each worker may allocate `limit` bytes."""
    (place := folder / strategy).mkdir()
    arguments = (strategy, str(folder / "model"), place, limit)
    mp.start_processes(_rank, arguments, nprocs=RANKS, start_method="spawn")
    return [float(line) for line in (place / "losses").read_text().split()]


def _rank(rank: int, strategy: str, model: str, folder: Path, limit: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    resource.setrlimit(resource.RLIMIT_DATA, (_allocated() + limit,) * 2)
    train = Train.model_validate({**TRAIN, "strategy": strategy})
    brings = rank == 0 or not spreads_weights(train)
    loaded = load_model(model, "float32", "cpu" if brings else "meta")
    trained = build_strategy(train, LossModule(loaded.train(), TOKENS * ROWS, torch.bfloat16), CPU, RANKS, 1)
    ids = torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS)
    losses = []
    for _ in range(STEPS):
        loss = trained(ids, torch.arange(TOKENS).expand(ROWS, TOKENS), torch.ones(ROWS, TOKENS), Nll())
        trained.backward(loss / (ROWS * (TOKENS - 1)), True)
        trained.step(1e-3)
        losses.append(float(loss) / (ROWS * (TOKENS - 1)))
    if rank == 0:
        (folder / "losses").write_text("\n".join(map(str, losses)))
    trained.close()
    dist.barrier()
    dist.destroy_process_group()


def _allocated() -> int:
    """Return the bytes of this process that count against the limit."""
    [kilobytes] = re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(kilobytes) << 10


def test_fsdp_trains_in_memory_in_which_ddp_cannot(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**WIDE)))
    ddp, fsdp = planned_for("ddp"), planned_for("fsdp")
    assert fsdp < 0.8 * ddp, "the plan tells them apart"
    limit = int((ddp + fsdp) / 2)
    first, second = train_within(limit, "fsdp", tmp_path)
    assert second < first
    with pytest.raises(mp.ProcessRaisedException, match=r"not enough memory|can't allocate memory"):
        train_within(limit, "ddp", tmp_path)
