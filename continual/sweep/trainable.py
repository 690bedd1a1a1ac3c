"""Define the function that Ray Tune runs for a trial: start the trial's driver, pass on its reports, wait for it.

The driver is a process of its own, as Ray's job supervisor starts the drivers of jobs: Ctrl-C reaches it as on a
command line; its tasks and actors do not join the trial's placement group, which has no CPUs; and everything it holds
in the cluster is released with it, also when a scheduler stops the trial.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5


class Ended(Exception):
    """The trial failed or was stopped."""


def run_trial(config: dict[str, Any], environment: dict[str, str], cwd: str, stop: str, given: list[str]) -> None:
    """Run the trial in `config["trial"]` and report after every stage: `stage`, figures and scores by name.

    The last stage is reported after the run is closed, so that no decision about it can cut the run's end off. If the
    file `stop` exists, the driver is interrupted, and no new one is started. Raises Ended.
    """
    from ray import tune

    trial = config["trial"]
    if Path(stop).exists():
        raise Ended("the sweep ends")
    driver = subprocess.Popen(
        [sys.executable, "-m", "continual.sweep.driver"],
        cwd=cwd, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        _send(driver, json.dumps({**trial["request"], "given": given}))
        last: dict[str, Any] = {}
        for report in _reports(driver, Path(stop)):
            if report.get("stage", trial["stages"]) < trial["stages"]:
                tune.report(report)
            else:
                last = report
            _send(driver, "continue")
        code = driver.wait()
        if last:
            tune.report(last)
        if code:
            raise Ended(last.get("error") or f"the driver ended with exit code {code}")
    finally:
        # A scheduler's stop is raised as SystemExit by report(), while the driver waits for its answer.
        if driver.poll() is None:
            driver.kill()


def _reports(driver: "subprocess.Popen[str]", stop: Path) -> Iterator[dict[str, Any]]:
    """Yield the driver's reports; interrupt the driver once if the sweep stops."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in driver.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    interrupted = False
    while True:
        try:
            line = lines.get(timeout=POLL_SECONDS)
            if not line:
                return
            yield json.loads(line)
        except queue.Empty:
            if not interrupted and stop.exists():
                interrupted = True
                os.kill(driver.pid, signal.SIGINT)


def _send(driver: "subprocess.Popen[str]", line: str) -> None:
    # A driver that has ended says why by its last report and its exit code.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=driver.stdin, flush=True)
