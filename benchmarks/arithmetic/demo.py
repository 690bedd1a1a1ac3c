"""`make demo`: learn to reverse digits, then to sort them, without and with replay; both matrices side by side.

The two runs differ only in `mitigation`. The same command again prints the stored result.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from continual.show.tables import side_by_side

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def arm(name: str, storage: Path, seed: int, overrides: list[str]) -> dict[str, object]:
    """Run one arm through the command line that users type; returns its summary."""
    command = [sys.executable, "-m", "continual.run", str(HERE / "demo.yaml"), f"name={name}", f"storage={storage}"]
    finished = subprocess.run([*command, f"seed={seed}", *overrides], cwd=ROOT, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)
    found: dict[str, object] = json.loads((storage / name / "summary.json").read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    storage = options.storage.resolve()
    plain = arm(f"demo-plain-seed{options.seed}", storage, options.seed, ["mitigation=[]"])
    replay = arm(f"demo-replay-seed{options.seed}", storage, options.seed, [])
    print()
    print(side_by_side(plain, replay, ("without replay", "with context-free replay")))
    print(f"\ncompare both: .venv/bin/mlflow ui --backend-store-uri sqlite:///{storage / 'mlflow.db'}")


if __name__ == "__main__":
    main()
