"""What training at real sizes needs of a GPU's memory: the plan's estimate beside torch's own trackers.

`python -m benchmarks.throughput.memory` needs no GPU: see `benchmarks.throughput.tracked`. Rows have 4,096 tokens, and
documents in them are kept apart by masks, as on CPUs. A case takes a minute or two, one with an adapter or of 70B much
longer; each is kept when it is there.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides
from benchmarks.throughput.tracked import GIB, Case
from continual.config.schema import Train
from continual.preflight.memory import Sizes, memory

LLAMA_1B = {
    "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
LLAMA_70B = {
    "vocab_size": 128_256, "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip
ROW: dict[str, Any] = {"row_tokens": 4096, "batch_tokens": 64 * 4096, "precision": "bfloat16"}
FSDP = {**ROW, "strategy": "fsdp", "activation_checkpointing": True}
ZERO = {**FSDP, "strategy": "deepspeed", "workers": 8}

CASES = (
    Case("1B, one GPU, ddp", LLAMA_1B, {**ROW, "activation_checkpointing": True}),
    Case("1B, one GPU, ddp, live teacher", LLAMA_1B, {**ROW, "activation_checkpointing": True}, teacher=True),
    Case("8B, 8 GPUs, fsdp", LLAMA_8B, {**FSDP, "workers": 8}),
    Case("8B, 8 GPUs, fsdp, live teacher", LLAMA_8B, {**FSDP, "workers": 8}, teacher=True, goal=30),
    Case("8B, 8 GPUs, fsdp, LoRA, its base as teacher", LLAMA_8B, {**FSDP, "workers": 8}, 1, True, lora=64, goal=25),
    Case("8B, 8 GPUs, ZeRO-2", LLAMA_8B, {**ZERO, "zero_stage": 2}),
    Case("8B, 8 GPUs, ZeRO-3", LLAMA_8B, {**ZERO, "zero_stage": 3}),
    Case("8B, 8 GPUs, ZeRO-3, live teacher", LLAMA_8B, {**ZERO, "zero_stage": 3}, teacher=True),
    Case("70B, 64 GPUs, fsdp, live teacher", LLAMA_70B, {**FSDP, "workers": 64}, teacher=True),
)


def sizes_of(model: dict[str, Any]) -> Sizes:
    """Return the sizes of a Llama by its configuration."""
    hidden, inner, vocabulary = model["hidden_size"], model["intermediate_size"], model["vocab_size"]
    head = model.get("head_dim", hidden // model["num_attention_heads"])
    queries, keys = head * model["num_attention_heads"], head * model["num_key_value_heads"]
    matrices = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner
    layer = matrices + 2 * hidden
    rest = vocabulary * hidden * (1 if model.get("tie_word_embeddings") else 2) + hidden
    layers = model["num_hidden_layers"]
    return Sizes(
        layers * layer + rest, layer, rest, layers, hidden, inner, vocabulary, queries, layers * matrices
    )  # fmt: skip


def adapter_of(case: Case) -> int | None:
    """Return the parameters of an adapter of all linear layers but the head."""
    if not case.lora:
        return None
    model = case.model
    hidden, inner = model["hidden_size"], model["intermediate_size"]
    keys = hidden // model["num_attention_heads"] * model["num_key_value_heads"]
    sides_ = 2 * 2 * hidden + 2 * (hidden + keys) + 3 * (hidden + inner)
    return int(case.lora * sides_ * model["num_hidden_layers"])


def planned(case: Case) -> float:
    """Return the plan's estimate in bytes."""
    loaded = int(case.teacher and not case.lora)
    train = Train.model_validate(case.train)
    return memory(sizes_of(case.model), train, case.rows, loaded, case.teacher, adapter_of(case)).total


def measure(case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.throughput.tracked", json.dumps(asdict(case))]
    done = subprocess.run(command, cwd=sides.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    tracker = json.loads(done.stdout.splitlines()[-1])
    parts = {name: size / GIB for name, size in tracker["parts"].items()}
    found = {"goal": case.goal, "planned": planned(case) / GIB, "tracked": tracker["total"] / GIB, "parts": parts}
    print(f"{case.name}: {found['tracked']:.1f} GiB, planned {found['planned']:.1f}", file=sys.stderr)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the table of all cases; of one that was not measured, what the plan says."""
    lines = ["| model, GPUs, strategy | trackers, GiB | plan, GiB | goal |", "|---|---|---|---|"]
    for case in CASES:
        tracked = f"{found[case.name]['tracked']:.1f}" if case.name in found else "not measured yet"
        goal = f"≤ {case.goal:g}" if case.goal else "none"
        lines.append(f"| {case.name} | {tracked} | {planned(case) / GIB:.1f} | {goal} |")
    return "\n".join(lines)


def kept(results: Path = sides.RESULTS) -> dict[str, dict[str, Any]]:
    """Return what was last measured, by case."""
    path = results / "memory.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())["cases"] if path.is_file() else {}
    return found


def kept_table() -> str:
    return table(kept())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", help=f"which; all without: {'; '.join(names)}")
    parser.add_argument("--output", type=Path, default=sides.RESULTS, help="a folder")
    given = parser.parse_args()
    found = kept(given.output)
    for case in CASES:
        if case.name in (given.cases or names):
            found[case.name] = measure(case)
            sides.write({"cases": found}, table(found), given.output, "memory")


if __name__ == "__main__":
    main()
