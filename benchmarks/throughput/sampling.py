"""Context-free sampling as a run does it, against a bare `vllm.LLM.generate` of the same prompts, seeds and settings.

`python -m benchmarks.throughput.sampling` alternates, each in a fresh process, between sets in a store and the bare
engine. Each samples a small and a large number, and the rate is that of what the large one has more. How long the small
number takes from the start of the process is almost all the start of the engine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import sides
from benchmarks.throughput.shapes import SHAPES, llama
from continual.config.schema import Generate
from continual.contract.models import ModelRef
from continual.sampling.engine_vllm import Request
from continual.sampling.settings import SampleSettings

COUNTS = {"demo": (512, 8192), "larger": (64, 512)}
"""How many samples are made of the demo's model of 0.4M parameters, and of one of 23M."""
TOKENS = 56
GOAL = 0.97
START_GOAL = 1.1
CONFIG = Generate(engine="vllm")


def model(folder: Path, name: str) -> ModelRef:
    """Build the arithmetic benchmark's model, or the larger one, without a cluster."""
    from benchmarks.arithmetic.model import build
    from continual.models import model_hash

    (build() if name == "demo" else llama(SHAPES["23M"])).save_pretrained(folder)
    return ModelRef(str(folder), model_hash(folder))


def settings() -> SampleSettings:
    """Return settings of samples that all have TOKENS tokens: both sides then make as many."""
    return SampleSettings(starts=((1,),), tokens=TOKENS, seed=3)


def in_store(folder: Path, name: str) -> sides.Numbers:
    """Sample sets of both sizes into new stores, as a run does."""
    begun = time.perf_counter()
    import ray

    from continual.run.cluster import LOCAL_SYSTEM
    from continual.sampling.sample import sample_set
    from continual.store import Store

    ref, counts = model(folder / "model", name), COUNTS[name]
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config=dict(LOCAL_SYSTEM)
    )
    seconds, tokens = [], []
    for number, count in enumerate(counts):
        since = time.perf_counter() if number else begun
        samples = sample_set(Store(folder / str(count), "bench"), ref, "float32", settings(), CONFIG, count)
        seconds.append(time.perf_counter() - since)
        tokens.append(sum(shard["tokens"] for shard in samples.shards()))
    # The small set paid for the start of the cluster, the large one has started an engine, too.
    return {
        "start": seconds[0],
        "small": _again(ref, folder, counts[0]),
        "large": seconds[1],
        "tokens": tokens[1] - tokens[0],
    }


def _again(ref: ModelRef, folder: Path, count: int) -> float:
    """Return how long the small set takes in a cluster that has its processes."""
    from continual.sampling.sample import sample_set
    from continual.store import Store

    since = time.perf_counter()
    sample_set(Store(folder / "again", "bench"), ref, "float32", settings(), CONFIG, count)
    return time.perf_counter() - since


def bare(folder: Path, name: str) -> sides.Numbers:
    """Let one engine generate both numbers of samples."""
    begun = time.perf_counter()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # as in a run: vLLM's own default does not fit everywhere
    from vllm import LLM, SamplingParams, TokensPrompt

    ref, request = model(folder / "model", name), Request(settings())
    engine = LLM(
        model=ref.path, dtype="float32", max_model_len=TOKENS, enable_prefix_caching=False, skip_tokenizer_init=True,
        enforce_eager=True, enable_chunked_prefill=False,
    )  # fmt: skip
    seconds, tokens = [], []
    for number, count in enumerate(COUNTS[name]):
        asked = [request.parameters(sample) for sample in range(count)]
        prompts = [TokensPrompt(prompt_token_ids=parameters.pop("prompt")) for parameters in asked]
        since = time.perf_counter()
        outputs = engine.generate(prompts, [SamplingParams(**one) for one in asked], use_tqdm=False)
        seconds.append(time.perf_counter() - since)
        tokens.append(sum(len(output.outputs[0].token_ids) for output in outputs))
        if not number:
            started = time.perf_counter() - begun
    return {"start": started, "small": seconds[0], "large": seconds[1], "tokens": tokens[1] - tokens[0]}


SIDES = {"continual": in_store, "bare": bare}


def measure(rounds: int, name: str) -> dict[str, Any]:
    each = ("benchmarks.throughput.sampling", "--model", name, "--side")
    found = sides.alternate({side: partial(sides.in_process, *each, side) for side in SIDES}, rounds)
    for numbers in [one for side in found.values() for one in side]:
        numbers["rate"] = numbers["tokens"] / (numbers["large"] - numbers["small"])
    return {
        "goals": {"rate": GOAL, "start": START_GOAL},
        "samples": COUNTS[name],
        "sides": sides.summary(found),
        "rate": sides.ratio(found, "rate", "continual", "bare"),
        "start": sides.ratio(found, "start", "continual", "bare"),
    }


def table(results: dict[str, Any]) -> str:
    """Return the measurements as a Markdown table."""
    lines = ["| side | tokens/s | s until the first samples |", "|---|---|---|"]
    for side in SIDES:
        median = results["sides"][side]["median"]
        lines.append(f"| {side} | {median['rate']:,.0f} | {median['start']:.1f} |")
    rate, start = (results[key]["median"] for key in ("rate", "start"))
    lines.append(f"| ratio | {rate:.2f} (goal: {GOAL}) | {start:.2f} (goal: {START_GOAL}) |")
    return "\n".join(lines)


def main(name: str = "demo", output: str = "sampling") -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=sides.RESULTS)
    parser.add_argument("--side", choices=list(SIDES), help="measure this side alone and print its numbers")
    parser.add_argument("--model", choices=list(COUNTS), default=name)
    given = parser.parse_args()
    if given.side:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{json.dumps(SIDES[given.side](Path(folder), given.model))}")
        sys.exit()
    results = measure(given.rounds, given.model)
    sides.write(results, table(results), given.output, output)


if __name__ == "__main__":
    main()
