"""The GPUs of this machine as NVIDIA's driver tells them, and how fast their makers say that they are."""

import os
import shutil
import subprocess
from typing import NamedTuple

PEAKS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250, 75), ("H200 NVL", 836, 60), ("H200", 989, 67), ("H100 NVL", 835, 60), ("H100 PCIe", 756, 51),
    ("H100 80GB HBM3", 989, 67), ("A100", 312, 19.5), ("A800", 312, 19.5), ("L40S", 362, 91.6), ("L4", 121, 30.3),
)  # fmt: skip
"""What names of GPUs contain, and their peaks in 10^12 operations a second by NVIDIA's data sheets: of bfloat16 in
tensor cores, without sparsity, and of float32 outside of them, as PyTorch multiplies it by default. The first that fits
counts."""


class Gpu(NamedTuple):
    """A GPU's name, and its memory in bytes."""

    name: str
    memory: int


def read_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA would show, [] if the driver does not tell, or one is used in parts (MIG)."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and "MIG" in visible:
        return []  # it tells the whole GPU
    chosen = [f"--id={visible}"] if visible else []
    query = [program, *chosen, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        lines = [line.rpartition(",") for line in told.splitlines() if line.strip()]
        return [Gpu(name.strip(), int(memory) << 20) for name, _, memory in lines]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def peak(name: str, precision: str) -> float | None:
    """Return the most operations a second of a GPU of that name in `bfloat16` or `float32`; None if it is unknown."""
    words = f" {name} ".replace("-", " ")  # NVIDIA A100-SXM4-80GB
    found = next((peaks for part, *peaks in PEAKS if f" {part} " in words), None)
    return None if found is None else 1e12 * found[precision == "float32"]
