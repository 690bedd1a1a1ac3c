"""Move a TinyStories model to Shakespeare without and with replay; what is lost of the old text, what is learned.

`python -m benchmarks.stories.compare [--seed N]` prints one line per arm; the same command again prints it at once.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.stories.lm_eval.documents import shared

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ARMS = {"plain": ["mitigation=[]"], "kl": [], "nll": ["mitigation.0.loss=nll"]}


def run(arm: str, storage: Path, seed: int, *overrides: str) -> dict[str, Any]:
    """The summary of one arm, run through the command line; overrides come before the arm's own."""
    name = f"stories-{arm}-seed{seed}"
    fixed = [f"name={name}", f"storage={storage}", f"seed={seed}"]
    fixed.append(f"model.source={shared() / 'models' / 'stories260k-hd32'}")
    command = [sys.executable, "-m", "continual.run", str(HERE / "stories.yaml"), *fixed, *overrides, *ARMS[arm]]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)
    found: dict[str, Any] = json.loads((storage / name / "summary.json").read_text())
    return found


def line(arm: str, summary: dict[str, Any]) -> str:
    """Old text before and after, new text after, and the old abilities, from the score matrix."""
    before, after = (entry["scores"] for entry in summary["matrix"])
    old = [-row["tinystories"]["score"] for row in (before, after)]
    new = [-row["shakespeare"]["score"] for row in (before, after)]
    tasks = [name for name in before if name.startswith("stories_")]
    abilities = [sum(row[name]["score"] for name in tasks) / len(tasks) for row in (before, after)]
    return (
        f"{arm:<6} old text {old[0]:.3f} -> {old[1]:.3f} ({old[1] - old[0]:+.3f} nats/token)   "
        f"new text {new[0]:.3f} -> {new[1]:.3f}   BLiMP {abilities[0]:.3f} -> {abilities[1]:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    options = parser.parse_args()
    lines = [line(arm, run(arm, options.storage.resolve(), options.seed)) for arm in options.arms]
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
