"""What vLLM serves here, and how it is started: one rule for sampling and evaluation. Imports no torch."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPUs (vllm 0.29, v1/attention/backends/cpu_attn.py)."""


def vllm_problem(head_size: int | None, cpu: bool, instead: str) -> str | None:
    """Return why vLLM cannot serve a model here, as "problem; fix", or None.

    Args:
        head_size: Width of the model's attention heads, None if unknown.
        cpu: Whether it is to run on CPUs.
        instead: What to write in the YAML to do without vLLM.
    """
    if importlib.util.find_spec("vllm") is None:
        return f"vllm is not installed; install continual[cpu] or continual[gpu], or write `{instead}`"
    if head_size is not None and cpu and head_size not in CPU_HEADS:
        return (
            f"vLLM on CPUs cannot serve the model's head size {head_size} "
            f"(it supports 32, 64, 80, 96, 112, 128, ...); write `{instead}`"
        )
    return None


def device_arguments(cpu: bool) -> dict[str, Any]:
    """Return the engine arguments that the device decides."""
    # A prompt that is read in parts makes vLLM 0.29 set back the sample's random numbers, which torch's CPU generator
    # cannot do ("CPU Generator does not use offset"): the engine would die and be started again.
    return {"enforce_eager": True, "enable_chunked_prefill": False} if cpu else {"tensor_parallel_size": 1}


def set_environment(cpu: bool) -> None:
    """Let vLLM work in this process alone. Call it before vLLM is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Start an engine in this block: vLLM leaves a file for the meeting of its processes behind (vllm 0.29,
    utils/network_utils.py).
    """
    try:
        with tempfile.TemporaryDirectory() as tempfile.tempdir:
            yield
    finally:
        tempfile.tempdir = None
