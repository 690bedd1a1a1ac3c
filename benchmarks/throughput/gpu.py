"""What is to be measured on a GPU, in one command: training at 1B parameters, losses, checkpoints.

`python -m benchmarks.throughput.gpu` takes one GPU for about a quarter of an hour. Each arm has a process of its
own, and what there is after every arm is kept in `results/gpu.json`. `--tiny` runs all of it on a CPU, for a test.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.throughput import sides
from benchmarks.throughput.gpu_goals import table
from continual.preflight.gpus import peak

TOP_K = 64


@dataclass(frozen=True)
class Size:
    """A model's shape, rows of a step and their tokens, tokens of a document, steps that are measured.

    `chunk`: positions whose logits exist at one time; None: as many as in a run that says nothing.
    """

    model: dict[str, Any]
    rows: int
    row_tokens: int
    document: int
    steps: int
    chunk: int | None
    device: str
    seconds: int

    @property
    def positions(self) -> int:
        from continual.config.schema import Train
        from continual.training.resources import chunk_positions

        return chunk_positions(Train(loss_chunk_tokens=self.chunk), self.model["vocab_size"])


SIZES = {
    "full": Size(
        {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
        rows=4, row_tokens=4096, document=1024, steps=12, chunk=None, device="cuda", seconds=180,
    ),
    "tiny": Size(
        {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
        rows=4, row_tokens=64, document=16, steps=2, chunk=64, device="cpu", seconds=180,
    ),
}  # fmt: skip

TRAINING: dict[str, dict[str, Any]] = {
    "bare loop": {"bare": True},
    "bare loop, layers run again": {"bare": True, "again": True},
    "nll": {},
    "nll, layers run again": {"again": True},
    "kl 1:4, live teacher": {"replay": "kl", "again": True},
    "kl 1:4, cached teacher": {"replay": "topk", "again": True},
    "LoRA": {"lora": 64, "again": True},
    "LoRA, kl 1:4, its base as teacher": {"lora": 64, "replay": "kl", "again": True},
}
"""Arms by name: without our loop, with layers that run again, what is replayed, the rank of an adapter."""


def training(size: Size, bare: bool = False, again: bool = False, replay: str = "", lora: int = 0) -> dict[str, Any]:
    """Return tokens per second (task and replay), the share of the GPU's peak (MFU), and the memory of a step."""
    import torch

    from continual.config.schema import Train

    device = torch.device(size.device)
    tokens = size.rows * size.row_tokens
    train = Train.model_validate({
        "strategy": "fsdp", "precision": "bfloat16", "activation_checkpointing": again, "row_tokens": size.row_tokens,
        "batch_tokens": tokens, "micro_rows": 1, "loss_chunk_tokens": size.chunk, "learning_rate": 1e-5,
    })  # fmt: skip
    with _group(device):
        step = (_bare_step if bare else _our_step)(size, train, device, replay, lora)
        seconds = []
        for number in range(2 + size.steps):
            _wait(device)
            begun = time.perf_counter()
            step(number)
            _wait(device)
            seconds.append(time.perf_counter() - begun)
    took = statistics.median(seconds[2:])
    tokens += tokens // 4 if replay else 0
    most = peak(_name(device), "bfloat16")
    return {
        "tokens/s": tokens / took,
        "ms": 1000 * took,
        "mfu": tokens / took * _operations(size) / most if most else None,
        "GiB": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
    }


def _operations(size: Size) -> float:
    """Return the operations per trained token: six for each weight that is multiplied, and attention in a document.

    Recomputation and teachers do not count.
    """
    model = size.model
    hidden, inner, layers = model["hidden_size"], model["intermediate_size"], model["num_hidden_layers"]
    head = model.get("head_dim", hidden // model["num_attention_heads"])
    widths = 2 * head * (model["num_attention_heads"] + model["num_key_value_heads"])
    weights = layers * hidden * (widths + 3 * inner) + hidden * model["vocab_size"]
    return 6.0 * weights + 6.0 * layers * head * model["num_attention_heads"] * size.document


def _llama(size: Size) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**size.model, max_position_embeddings=2 * size.row_tokens))


def _with_kernel(model: Any, device: Any) -> Any:
    """Let a model run with the attention that `auto` takes there."""
    from continual.models.attention import AUTO, Workers, resolve, use_attention

    use_attention(model, resolve(AUTO, Workers(device.type == "cuda", "bfloat16"), type(model), model.config).name)
    return model


def _rows(size: Size, rows: int, seed: int) -> dict[str, Any]:
    import torch

    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(size.model["vocab_size"], (rows, size.row_tokens), generator=random)
    positions = (torch.arange(size.row_tokens) % size.document).expand(rows, -1)
    return {"ids": ids, "positions": positions, "weights": (positions > 0).float()}


def _our_step(size: Size, train: Any, device: Any, replay: str, lora: int) -> Callable[[int], object]:
    """Return the step of a worker: its strategy, its losses, its one look at the numbers."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    from baselines.lora import Lora
    from continual.models.recompute import recompute_layers
    from continual.training.frozen import Unadapted
    from continual.training.losses.kinds import Kl, Nll, TopK
    from continual.training.module import LossModule
    from continual.training.spread import round_parameters, spread
    from continual.training.step import Stepper
    from continual.training.strategies import build_strategy

    model, adapter = _with_kernel(_llama(size), device), Lora(type="lora", rank=lora or 1)
    if lora:
        adapter.adapt(model, 0)
    if train.activation_checkpointing:
        recompute_layers(model, reentrant=False)
    module = LossModule(model.train(), size.positions, torch.bfloat16)
    strategy = build_strategy(train, module, device, 1, size.rows)
    teachers: dict[str, Any] = {}
    if replay == "kl" and lora:
        teachers["start"] = Unadapted(model, adapter.unadapted)
    elif replay == "kl":
        teacher = _with_kernel(_llama(size), device).requires_grad_(False)
        round_parameters(teacher)
        spread(teacher, device, MixedPrecisionPolicy(cast_forward_inputs=False))
        teachers["start"] = teacher.eval()
    streams = [_stream("task", Nll(), size.rows, None)]
    if replay:
        start = SimpleNamespace(hash="start") if teachers else None
        streams.append(_stream("replay", Kl() if replay == "kl" else TopK(), size.rows // 4, start))
    job: Any = SimpleNamespace(train=train, streams=streams, steps=10**6)
    stepper = Stepper(job, strategy, teachers, [], 0, 1, device)

    def step(number: int) -> object:
        batch = {stream.name: _rows(size, stream.rows_per_step, number) for stream in streams}
        if replay == "topk":
            shape = (size.rows // 4, size.row_tokens, TOP_K)
            batch["replay"]["top_ids"] = torch.arange(TOP_K).expand(shape)
            batch["replay"]["top_logprobs"] = torch.full(shape, -5.0)
        stepper.run(number, batch, stop=False)
        return list(stepper.unread.read())

    return step


def _stream(name: str, loss: Any, rows: int, teacher: Any) -> Any:
    return SimpleNamespace(
        name=name, loss=loss, coefficient=1.0, rows_per_step=rows, teacher=teacher, token_weights=()
    )  # fmt: skip


def _bare_step(size: Size, train: Any, device: Any, replay: str, lora: int) -> Callable[[int], object]:
    """Return the step of a plain loop: FSDP2, the model's own forward pass, cross-entropy, fused AdamW."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.nn import functional

    from continual.models.attention import PACKAGES, attention_of
    from continual.models.forward import document_borders
    from continual.models.recompute import recompute_layers
    from continual.training.spread import policy_of, shard

    model = _with_kernel(_llama(size), device).train().to(device)
    if train.activation_checkpointing:
        recompute_layers(model, reentrant=False)
    shard(model, init_device_mesh(device.type, (1,)), policy_of("bfloat16"), root=model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")

    def step(number: int) -> object:
        rows = {name: value.to(device) for name, value in _rows(size, size.rows, number).items()}
        for row in range(size.rows):
            one = {name: value[row : row + 1] for name, value in rows.items()}
            borders = document_borders(one["positions"]) if attention_of(model) in PACKAGES else {}
            logits = model(input_ids=one["ids"], position_ids=one["positions"], use_cache=False, **borders).logits
            losses = functional.cross_entropy(logits[0, :-1].float(), one["ids"][0, 1:], reduction="none")
            ((losses * one["weights"][0, 1:]).sum() / rows["weights"].sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return None

    return step


def losses(size: Size, kind: str = "nll", plain: bool = False) -> dict[str, Any]:
    """Return time and memory of a loss with its gradient on a row's logits: ours chunk by chunk, or plain PyTorch."""
    import torch
    from torch.nn import functional

    from continual.training.losses.sums import kl_sum, nll_sum

    device = torch.device(size.device)
    tokens, vocabulary, hidden = size.row_tokens, size.model["vocab_size"], size.model["hidden_size"]
    torch.manual_seed(0)
    head = torch.randn(vocabulary, hidden, device=device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    teacher = head.detach() * 1.01
    states = torch.randn(tokens, hidden, device=device, dtype=torch.bfloat16).requires_grad_()
    targets, weights = torch.randint(vocabulary, (tokens,), device=device), torch.ones(tokens, device=device)

    def ours(part: slice) -> Any:
        logits = states[part] @ head.T
        if kind == "nll":
            return nll_sum(logits, targets[part], weights[part])
        return kl_sum(logits, states[part].detach() @ teacher.T, weights[part])

    def theirs() -> Any:
        logits = (states @ head.T).float()
        if kind == "nll":
            return functional.cross_entropy(logits, targets, reduction="sum")
        other = torch.log_softmax((states.detach() @ teacher.T).float(), -1)
        return functional.kl_div(torch.log_softmax(logits, -1), other, reduction="sum", log_target=True)

    def run() -> None:
        if plain:
            theirs().backward()
            return
        for first in range(0, tokens, size.positions):
            ours(slice(first, first + size.positions)).backward()

    seconds = []
    for number in range(2 + size.steps):
        if number == 1 and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _wait(device)
        begun = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - begun)
        head.grad = states.grad = None
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"ms": 1000 * statistics.median(seconds[2:]), "GiB": peak}


def checkpoint(size: Size) -> dict[str, Any]:
    """Return how long training stands still for a checkpoint, and how long it takes until it is written."""
    import torch

    from continual.config.schema import Train

    device = torch.device(size.device)
    train = Train.model_validate({"strategy": "fsdp", "row_tokens": size.row_tokens, "batch_tokens": size.row_tokens})
    with _group(device), tempfile.TemporaryDirectory() as folder:
        strategy = _strategy(size, train, device)
        for parameter in strategy.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        strategy.step(1e-5)
        found: dict[str, Any] = {}
        for number in ("first", "second"):
            (Path(folder) / number).mkdir()
            _wait(device)
            begun = time.perf_counter()
            written = strategy.save(Path(folder) / number)
            stood = time.perf_counter() - begun
            written()
            found |= {f"{number}, s stood still": stood, f"{number}, s written": time.perf_counter() - begun}
        found["GiB"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 2**31
        strategy.close()
    return found


def _strategy(size: Size, train: Any, device: Any) -> Any:
    from continual.training.module import LossModule
    from continual.training.strategies import build_strategy

    return build_strategy(train, LossModule(_llama(size).train(), size.positions, None), device, 1, 1)


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


@contextmanager
def _group(device: Any) -> Iterator[None]:
    """Be the only rank of a process group."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


ARMS: dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]] = {
    **{f"training: {name}": (training, options) for name, options in TRAINING.items()},
    **{
        f"loss: {kind}, {'plain PyTorch' if plain else 'ours'}": (losses, {"kind": kind, "plain": plain})
        for kind in ("nll", "kl")
        for plain in (False, True)
    },
    "checkpoint": (checkpoint, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", help=f"which; all without: {'; '.join(ARMS)}")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, at sizes that say nothing")
    parser.add_argument("--output", type=Path, default=sides.RESULTS, help="a folder")
    parser.add_argument("--arm", help="measure this arm in this process and print its numbers")
    given = parser.parse_args()
    size = SIZES["tiny" if given.tiny else "full"]
    if given.arm:
        function, options = ARMS[given.arm]
        print(f"\n{json.dumps(function(size, **options))}")
        return
    found: dict[str, Any] = {}
    for name in given.arms or ARMS:
        command = [sys.executable, "-m", "benchmarks.throughput.gpu", "--arm", name, *["--tiny"] * given.tiny]
        try:
            done = subprocess.run(
                command, cwd=sides.ROOT, check=False, stdout=subprocess.PIPE, text=True, timeout=size.seconds,
                env=os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"},
            )  # fmt: skip
            found[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": True}
        except subprocess.TimeoutExpired:
            found[name] = {"failed": True}
        print(f"{name}: {found[name]}", file=sys.stderr)
        sides.write({"size": "tiny" if given.tiny else "full", "arms": found}, table(found), given.output, "gpu")
    if any("failed" in numbers for numbers in found.values()):
        raise SystemExit("an arm has failed")


if __name__ == "__main__":
    main()
