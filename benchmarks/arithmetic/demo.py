"""`make demo`: learn to reverse digits, then to sort them, without and with replay; both matrices side by side.

The two runs differ only in `mitigation`. The same command again prints the stored result.
"""

import argparse
import json
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any

from continual.forgetting import read_matrix
from continual.show.tables import matrix_text, score_lines

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def arm(name: str, storage: Path, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Run one arm through the command line that users type; returns its summary."""
    command = [sys.executable, "-m", "continual.run", str(HERE / "demo.yaml"), f"name={name}", f"storage={storage}"]
    finished = subprocess.run([*command, f"seed={seed}", *overrides], cwd=ROOT, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)
    found: dict[str, Any] = json.loads((storage / name / "summary.json").read_text())
    return found


def side_by_side(summaries: dict[str, dict[str, Any]]) -> str:
    """Return summaries by their titles next to each other, in a terminal's width: matrices, then figures."""
    columns = []
    for title, summary in summaries.items():
        table = matrix_text(read_matrix(summary["matrix"]), summary["tasks"], summary.get("fell", ())).splitlines()
        columns.append([f"  {title}", "", *table, "", *score_lines(summary)])
    width = max(map(len, columns[0])) + 4
    return "\n".join(f"{left:<{width}}{right}".rstrip() for left, right in zip_longest(*columns, fillvalue=""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    storage = options.storage.resolve()
    plain = arm(f"demo-plain-seed{options.seed}", storage, options.seed, ["mitigation=[]"])
    replay = arm(f"demo-replay-seed{options.seed}", storage, options.seed, [])
    print()
    print(side_by_side({"without replay": plain, "with context-free replay": replay}))
    print(f"\ncompare both: .venv/bin/mlflow ui --backend-store-uri sqlite:///{storage / 'mlflow.db'}")


if __name__ == "__main__":
    main()
