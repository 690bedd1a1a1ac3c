"""What the ladder does to a run, and what it looks for afterwards. Only processes that a test started are signalled."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e import command

LADDER = Path(__file__).with_name("ladder.yaml")
MARK = "CONTINUAL_LADDER_ROW"
"""Names the row in the environment of all that its runs start."""
AGAIN = "run the same command again"
END_SECONDS = 240.0


@dataclass
class Row:
    """One row of the table; the test says what it expects and has seen."""

    fault: str = ""
    expected: str = ""
    seen: list[str] = field(default_factory=list)


def from_store(calm: Path, storage: Path) -> None:
    """Copy the store of the undisturbed run without its second stage, which the run then trains itself."""
    shutil.copytree(calm / "store", storage / "store", ignore=shutil.ignore_patterns("stages"))


def tree(driver: command.Driver) -> list[psutil.Process]:
    """Return the processes of a driver, and all that they have started."""
    root = psutil.Process(driver.process.pid)
    return [root, *root.children(recursive=True)]


def find(driver: command.Driver, name: str, timeout: float = 120) -> psutil.Process:
    """Return the driver's process whose command line contains `name`, when it is there."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for process in tree(driver):
            try:
                if name in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        time.sleep(0.05)
    raise AssertionError(f"the driver has no process {name}")


def in_training(storage: Path, *overrides: str, steps: int = 8) -> command.Driver:
    """Start the ladder's sequence, and return its driver when `steps` of the second stage are done."""
    driver = command.start(storage, *overrides, yaml=LADDER)
    driver.wait_for(lambda: command.steps_done(storage, "2-sort") >= steps)
    return driver


def ended(driver: command.Driver, processes: list[psutil.Process], timeout: float = END_SECONDS) -> int:
    """Return the driver's exit code, after its processes are gone; fail if one is left."""
    code = driver.process.wait(timeout)
    _, left = psutil.wait_procs(processes, timeout=20)
    assert not left, f"processes outlive their driver: {left}"
    return code


def words(driver: command.Driver, storage: Path) -> str:
    """Return the sentence with which a run ended, which its log has as well; a traceback on the terminal fails."""
    text = driver.output.read_text()
    assert "Traceback" not in text, text[-3000:]
    sentence = [line for line in text.splitlines() if AGAIN in line or line.startswith("error: ")]
    assert len(sentence) == 1, text[-2000:]
    assert sentence[0].removeprefix("error: ") in (storage / "tiny" / "log.txt").read_text()
    return sentence[0].removeprefix("error: ")


def statuses(storage: Path) -> set[str]:
    """Return the states of the runs in the storage's tracker."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {run.info.status for run in runs}


def same(calm: Path, storage: Path, row: Row, *overrides: str, but: tuple[str, ...] = ()) -> None:
    """Give the same command, and compare bit by bit with the undisturbed run (`but` for some parts of its essence)."""
    finished = command.run(storage, *overrides, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    found, expected = command.essence(storage), command.essence(calm)
    assert {key: found[key] for key in found if key not in but} == {k: expected[k] for k in expected if k not in but}
    row.seen.append("`same`")


def shared_memory() -> set[Path]:
    """Return the shared memory that is there and that no living process has open: what somebody has left."""
    held = set()
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for link in descriptors.iterdir():
                with contextlib.suppress(OSError):
                    held.add(link.readlink())
    return {path for path in Path("/dev/shm").iterdir() if path not in held}


def started(mark: str, since: float) -> list[psutil.Process]:
    """Return the living processes of a row's runs: of its mark, or Ray's that are nobody's and began after it.

    Ray's workers write their titles over their environment.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            orphan = process.create_time() > since and process.ppid() == 1 and "ray::" in process.name()
            if process.pid != os.getpid() and (process.environ().get(MARK) == mark or orphan):
                found.append(process)
    return found


def killed(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)


def disturb(
    calm: Path, storage: Path, row: Row, fault: Callable[[command.Driver], None], code: int, status: str
) -> str:
    """Disturb a run in its second stage; check its end and that the same command goes on; return its sentence."""
    from_store(calm, storage)
    driver = in_training(storage)
    processes = tree(driver)
    begun = time.monotonic()
    fault(driver)
    found = ended(driver, processes)
    seconds = time.monotonic() - begun
    sentence = words(driver, storage)
    row.seen += [f"exit {found} after {seconds:.0f} s", f"“{sentence[:110]}{'…' * (len(sentence) > 110)}”"]
    assert found == code
    # The first stage was done.
    assert statuses(storage) == {status, "FINISHED"}
    row.seen.append(f"MLflow {status}, 0 processes left")
    same(calm, storage, row)
    return sentence
