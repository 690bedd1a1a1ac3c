"""Run the sweeps of the benchmarks with the command that users type, and read them back trial by trial."""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from continual.show import plots
from continual.show.report.gather import RunData, gather

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trial:
    """A finished trial: its point (swept key -> value), its seed and its run."""

    point: dict[str, Any]
    seed: int
    run: RunData

    def final(self, task: str) -> float:
        """Return the task's score after the last stage."""
        return float(self.run.summary["matrix"][-1]["scores"][task]["score"])


def options(description: str, results: Path, **flags: str) -> argparse.Namespace:
    """Parse the command line that the benchmarks of sweeps share; `flags` maps further switches, which exclude each
    other, to their help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--output", type=Path, default=results)
    parser.add_argument(
        "--jobs", type=int, default=1, help="trials at the same time; each takes a core, and reading takes one more"
    )
    # Python 3.11 cannot print the usage of a group without options.
    exclusive = parser.add_mutually_exclusive_group() if flags else parser
    for flag, text in flags.items():
        exclusive.add_argument(f"--{flag}", action="store_true", help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="passed on to `continual.tune`")
    given = parser.parse_intermixed_args()
    for override in given.overrides:
        if override.partition("=")[0] in ("storage", "name", "concurrency"):
            parser.error(f"{override}: write --storage and --jobs; the name is fixed")
    given.storage = given.storage.resolve()
    return given


def call(module: str, file: Path, *overrides: str) -> int:
    """Run `python -m <module> <file> ...` and return its exit code.

    With one thread: threads of several drivers slow each other down, and results must not depend on their number. On
    Ctrl-C, which reaches the command as well, wait for its end.
    """
    command = [sys.executable, "-m", module, str(file), "train.cpus_per_worker=1", *overrides]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    # Pass `kill` on, as if this were the command itself; Ctrl-C reaches both.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def tune(sweep: Path, given: argparse.Namespace, *overrides: str) -> int:
    """Run what is missing of a sweep; return 1 if a trial failed. Raises SystemExit if the sweep did not finish."""
    fixed = (f"storage={given.storage}", f"concurrency={given.jobs}")
    code = call("continual.tune", sweep, *fixed, *overrides, *given.overrides)
    if code not in (0, 1):
        raise SystemExit(code)
    return code


def trials(name: str, storage: Path) -> list[Trial]:
    """Return the trials of a sweep that are done. Raises SystemExit if there are none."""
    file = storage / name / "sweep.json"
    begun = json.loads(file.read_text())["trials"] if file.exists() else []
    done = [Trial(t["point"], t["seed"], gather(storage / t["name"])) for t in begun if t["state"] == "done"]
    if not done:
        raise SystemExit(f"no trial of {name} in {storage} is done")
    if len(done) < len(begun):
        print(f"{len(begun) - len(done)} trials of {name} are not done; the results leave them out", file=sys.stderr)
    return done


def finish(
    name: str, output: Path, results: dict[str, Any], text: str, plot: Callable[[dict[str, Any], Path], None] | None,
    code: int,
) -> None:  # fmt: skip
    """Print the table and write `<name>.json`, `.md` and `.png`; exit with `code` instead of writing if it is not 0.

    Draw no picture if `plot` is None.
    """
    print(text)
    if code:
        print(f"{output / name}.* stay as they are: the sweep did not finish", file=sys.stderr)
        raise SystemExit(code)
    record.write(results, text, output, name)
    if plot is not None:
        plot(results, output / f"{name}.png")


def figure(path: Path, panels: Sequence[str], width: float, height: float, draw: Callable[[int, Any], None]) -> None:
    """Save panels with a common y axis; `draw` gets the number and the axes of each. Sizes are inches per panel."""
    with plots.figure(width * len(panels), height) as picture:
        for number, axes in enumerate(picture.subplots(1, len(panels), squeeze=False, sharey=True)[0]):
            draw(number, axes)
            axes.set_title(panels[number], pad=16)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, dpi=120)
