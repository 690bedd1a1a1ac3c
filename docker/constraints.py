"""constraints.txt from pip's resolution reports of the extras: `constraints.py CPU.json GPU.json > constraints.txt`.

A pin that the extras share is a plain line. Where they differ, the line of `cpu` ends in `# cpu`, and that of `gpu` is
a comment `# gpu: name==version`, so that the file as it is serves `cpu` and one `sed` (docker/Dockerfile) makes that of
`gpu`.
"""

import json
import sys
from pathlib import Path

UNPINNED = {
    "continual", "pip", "setuptools",
    "torchaudio", "torchcodec", "torchvision",  # pinned by vLLM itself, and removed where they do not import
}  # fmt: skip
HEADER = "# Made by `make constraints` (docker/constraints.py says how to read it). Do not edit.\n"


def pins(report: str) -> set[str]:
    """`name==version` of everything in the report; without `+cpu`, which only some places where wheels lie know."""
    items = [item["metadata"] for item in json.loads(Path(report).read_text())["install"]]
    return {f"{item['name']}=={item['version'].partition('+')[0]}" for item in items if item["name"] not in UNPINNED}


def main() -> None:
    cpu, gpu = (pins(report) for report in sys.argv[1:3])
    lines = [*(cpu & gpu), *(f"{pin}  # cpu" for pin in cpu - gpu), *(f"# gpu: {pin}" for pin in gpu - cpu)]
    sys.stdout.write(HEADER + "".join(f"{line}\n" for line in sorted(lines, key=_order)))


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("#"), line.lower()


if __name__ == "__main__":
    main()
