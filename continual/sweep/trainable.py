"""The function that Ray Tune runs for a trial: it starts the trial's driver, hands its reports on and waits for it.

The driver is a process of its own, as Ray's own job supervisor starts the drivers of jobs: Ctrl-C reaches it as it does
on a command line; the tasks and actors that it starts are not drawn into the trial's placement group, which has no
CPUs; and whatever it holds in the cluster goes with it, also when a scheduler stops the trial.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5


class Ended(Exception):
    """The trial did not come to its end: it failed, or the sweep was told to stop."""


def run_trial(config: dict[str, Any], environment: dict[str, str], cwd: str, stop: str) -> None:
    """Run the trial in `config["trial"]` and report after every stage: `stage`, figures and scores by name.

    The last stage is reported when the run is closed, so that no decision about it can cut the run's end off. Once the
    file `stop` is there, the driver is interrupted and nothing more is begun. Raises Ended.
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
        reports: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(driver, reports), daemon=True).start()
        _say(driver, json.dumps(trial["request"]))
        last: dict[str, Any] = {}
        while (report := _next(reports, driver, Path(stop))) is not None:
            if report.get("stage", trial["stages"]) < trial["stages"]:
                tune.report(report)
            else:
                last = report
            _say(driver, "go on")
        code = driver.wait()
        if last:
            tune.report(last)
        if code:
            raise Ended(last.get("error") or f"the driver ended with exit code {code}")
    finally:
        # A scheduler's stop comes as SystemExit out of report(): the driver waits there for its answer.
        if driver.poll() is None:
            driver.kill()


def _read(driver: "subprocess.Popen[str]", reports: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in driver.stdout or ():
        reports.put(json.loads(line))
    reports.put(None)


def _next(
    reports: "queue.Queue[dict[str, Any] | None]", driver: "subprocess.Popen[str]", stop: Path
) -> dict[str, Any] | None:
    """The next report, None after the last. Interrupts the driver once when the sweep is told to stop."""
    interrupted = False
    while True:
        try:
            return reports.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if not interrupted and stop.exists():
                interrupted = True
                os.kill(driver.pid, signal.SIGINT)


def _say(driver: "subprocess.Popen[str]", line: str) -> None:
    assert driver.stdin is not None
    try:
        driver.stdin.write(line + "\n")
        driver.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended; what it said before, and its exit code, tell why
