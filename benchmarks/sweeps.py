"""Sweeps of the benchmarks: run through the command that users type, and read back trial by trial."""

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
from continual.show.report.gather import RunData, gather

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trial:
    """A finished trial: its point (swept key -> value), its seed and its run."""

    point: dict[str, Any]
    seed: int
    run: RunData

    def final(self, task: str) -> float:
        return float(self.run.summary["matrix"][-1]["scores"][task]["score"])


def options(description: str, results: Path, **flags: str) -> argparse.Namespace:
    """The command line that the benchmarks of sweeps share; `flags` are switches of one, with what they do, and exclude
    each other."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--storage", type=Path, default=ROOT / "runs")
    parser.add_argument("--output", type=Path, default=results)
    parser.add_argument(
        "--jobs", type=int, default=1, help="trials at the same time; each takes a core, reading one more"
    )
    exclusive = parser.add_mutually_exclusive_group()
    for flag, what in flags.items():
        exclusive.add_argument(f"--{flag}", action="store_true", help=what)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="handed on to `continual.tune`")
    found = parser.parse_intermixed_args()
    for override in found.overrides:
        if override.partition("=")[0] in ("storage", "name", "concurrency"):
            parser.error(f"{override}: write --storage and --jobs; the name is fixed")
    found.storage = found.storage.resolve()
    return found


def call(module: str, file: Path, *overrides: str) -> int:
    """`python -m <module> <file> ...`; returns its exit code. One thread each: threads of several drivers wait for each
    other, and numbers must not depend on how many there are. Ctrl-C reaches the command, too, and is waited for."""
    command = [sys.executable, "-m", module, str(file), "train.cpus_per_worker=1", *overrides]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    # As if this were the command itself: `kill` is passed on, and Ctrl-C goes to both.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def tune(sweep: Path, given: argparse.Namespace, *overrides: str) -> int:
    """Run what is missing of a sweep; 1 where a trial failed. Raises SystemExit where the sweep did not end."""
    fixed = (f"storage={given.storage}", f"concurrency={given.jobs}")
    code = call("continual.tune", sweep, *fixed, *overrides, *given.overrides)
    if code not in (0, 1):
        raise SystemExit(code)
    return code


def trials(name: str, storage: Path) -> list[Trial]:
    """The trials of a sweep that are done. Raises SystemExit where there is none."""
    file = storage / name / "sweep.json"
    found = json.loads(file.read_text())["trials"] if file.exists() else []
    done = [Trial(one["point"], one["seed"], gather(storage / one["name"])) for one in found if one["state"] == "done"]
    if not done:
        raise SystemExit(f"no trial of {name} in {storage} is done")
    if len(done) < len(found):
        print(f"{len(found) - len(done)} trials of {name} are not done; the results are without them", file=sys.stderr)
    return done


def finish(
    name: str, output: Path, results: dict[str, Any], text: str, plot: Callable[[dict[str, Any], Path], None], code: int
) -> None:
    """Print the table; write `<name>.json`, `.md` and `.png` where nothing is missing, else end with the exit code."""
    print(text)
    if code:
        print(f"{output / name}.* stay as they are: the sweep did not come to its end", file=sys.stderr)
        raise SystemExit(code)
    record.write(results, text, output, name)
    plot(results, output / f"{name}.png")


def figure(path: Path, panels: Sequence[str], width: float, height: float, draw: Callable[[int, Any], None]) -> None:
    """Panels side by side that share their y axis; `draw` gets the number of each and its axes. Inches per panel."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from continual.show.report.draw import SETTINGS

    with mpl.rc_context(SETTINGS):
        found = Figure(figsize=(width * len(panels), height), layout="constrained")
        FigureCanvasAgg(found)
        for number, axes in enumerate(found.subplots(1, len(panels), squeeze=False, sharey=True)[0]):
            draw(number, axes)
            axes.set_title(panels[number], pad=16)
        path.parent.mkdir(parents=True, exist_ok=True)
        found.savefig(path, dpi=120)
