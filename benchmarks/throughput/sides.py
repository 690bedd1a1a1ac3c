"""Sides that are measured alternately in one run, each time in a fresh process; medians and ratios."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import record

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
SAMPLE_SECONDS = 0.1

Numbers = dict[str, float]


def alternate(sides: dict[str, Callable[[], Numbers]], rounds: int) -> dict[str, list[Numbers]]:
    """Return what each side measured in each round; every second round goes through them backwards."""
    found: dict[str, list[Numbers]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name]())
            print(f"round {number + 1} of {rounds}, {name}: {_words(found[name][-1])}", file=sys.stderr)
    return found


def medians(rounds: Sequence[Numbers]) -> Numbers:
    return {key: statistics.median(numbers[key] for numbers in rounds) for key in rounds[0]}


def summary(found: dict[str, list[Numbers]]) -> dict[str, Any]:
    """Return the medians of each side, and what they are the medians of."""
    return {side: {"median": medians(each), "rounds": each} for side, each in found.items()}


def ratio(found: dict[str, list[Numbers]], key: str, of: str, to: str) -> dict[str, Any]:
    """Return the median and the span of `of` divided by `to`, each within its round."""
    each = [one[key] / other[key] for one, other in zip(found[of], found[to], strict=True)]
    return {"median": statistics.median(each), "lowest": min(each), "highest": max(each), "rounds": each}


def words(found: dict[str, Any]) -> str:
    """Return the median of a ratio with its span."""
    return f"{found['median']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"


def in_process(module: str, *arguments: str) -> Numbers:
    """Run `python -m module arguments` and return the numbers that it prints as JSON in its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}")
    numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
    return numbers


def together(module: str, *arguments: str) -> dict[str, Numbers]:
    """Like `in_process`, for a process that measures all sides at once and prints the numbers of each."""
    found: Any = in_process(module, *arguments)
    return {side: dict(numbers) for side, numbers in found.items()}


def rounds(act: Callable[[], dict[str, Numbers]], count: int, name: str) -> dict[str, list[Numbers]]:
    """Return what each side measured in each of `count` rounds, where `act` measures all sides."""
    found: dict[str, list[Numbers]] = {}
    for number in range(count):
        for side, numbers in act().items():
            found.setdefault(side, []).append(numbers)
            print(f"round {number + 1} of {count}, {name}, {side}: {_words(numbers)}", file=sys.stderr)
    return found


def taking_turns(steps: dict[str, Callable[[], object]], count: int, warm_up: int = 2) -> dict[str, Numbers]:
    """Return the median seconds of a step of each side, `count` of each, in this process, one after another.

    Where sides differ by some percent, whole processes one after another differ by more than that.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm_up + count):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            begin = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - begin)
    return {name: {"seconds": statistics.median(each[warm_up:])} for name, each in seconds.items()}


def peak_mib(act: Callable[[], object]) -> float:
    """Return by how much the resident memory of this process rises during `act`, in MiB; at least 1. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    act()
    return max((_memory("VmHWM") - before) / 1024, 1.0)


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@dataclass
class Used:
    """What this process and those that it started have used since a point in time."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    largest_mib: float = 0.0
    """Resident memory of the largest process, at its peak."""
    _begun: dict[int, float] = field(default_factory=dict)
    _cpu: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info().rss
            except psutil.Error:  # has ended
                continue
            self._cpu[process.pid] = times.user + times.system
            self.largest_mib = max(self.largest_mib, memory / 2**20)
        self.cpu_seconds = sum(cpu - self._begun.get(pid, 0.0) for pid, cpu in self._cpu.items())


@contextmanager
def used() -> Any:
    """Yield a `Used` that is filled when the block ends."""
    found, ended = Used(), threading.Event()
    found.look()
    found._begun, found.largest_mib = dict(found._cpu), 0.0

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            found.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begin = time.perf_counter()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - begin
        ended.set()
        watcher.join()
        found.look()


def write(results: dict[str, Any], text: str, output: Path, name: str) -> None:
    """Print the table, and write it and the numbers with versions, hardware and load."""
    print(text)
    load = [round(value, 2) for value in os.getloadavg()]
    record.write({**results, "load at the end": load}, text, output, name)


def _words(numbers: Numbers) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
