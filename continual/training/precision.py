"""The precision of float32 matrix products on a GPU: TF32 for steps, all bits for what is measured between them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

STEPS, MEASUREMENTS = "high", "highest"
"""By torch's names: with inputs rounded to TF32, which is several times as fast, and with all bits."""


def round_products(device: torch.device) -> None:
    """Let products on a GPU round their inputs to TF32 from now on; on a CPU change nothing."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision(STEPS)


@contextmanager
def all_bits() -> Iterator[None]:
    """Compute products with all bits: between models that are close, rounding is larger than the divergence."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MEASUREMENTS)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
