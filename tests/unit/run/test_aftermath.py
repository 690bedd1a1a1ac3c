"""A driver that is killed leaves a sentence, no process, no shared memory and no session of its cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from continual.run.processes import MEMORY
from tests.conftest import ROOT

DRIVER = """
import subprocess, sys, time
from pathlib import Path
from continual.run.guard import Guard
folder, memory = Path(sys.argv[1]), sys.argv[2]
# Like a raylet: the leader of a session, with a child in another one that holds shared memory open.
inner = f"import time; file = open({memory!r}, 'w'); time.sleep(600)"
outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], start_new_session=True)"
with Guard(folder / "log.txt", folder, "") as guard:
    leader = subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)
    guard.tell(leader=leader.pid, session=str(folder / "session"))
    while not Path(memory).exists():
        time.sleep(0.05)
    time.sleep(2.5)
    print("ready", flush=True)
    if sys.argv[3] == "killed":
        time.sleep(600)
"""


def living(memory: Path) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and str(memory) in (path / "cmdline").read_text():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not MEMORY.is_dir() or not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("end", ["killed", "well"])
def test_nothing_is_left(tmp_path: Path, end: str) -> None:
    memory = MEMORY / f"psm_test{os.getpid()}{end}"
    (tmp_path / "session").mkdir()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(memory), end],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    if end == "killed":
        driver.send_signal(signal.SIGKILL)
    _, stderr = driver.communicate(timeout=60)  # whoever cleans up holds stderr until all is done
    deadline = time.monotonic() + 10
    while living(memory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert living(memory) == []
    assert not memory.exists()
    sentence = f"error: the driver (process {driver.pid}) ended without a word"
    assert stderr.startswith(sentence) == (end == "killed"), stderr
    log = tmp_path / "log.txt"
    assert (log.is_file() and sentence in log.read_text()) == (end == "killed")
    assert (tmp_path / "session").exists() == (end == "killed"), "the logs of a failure are kept"


HEAD_DIES = """
import os, signal, subprocess, sys, time
from pathlib import Path
from continual.run.guard import Guard
folder = Path(sys.argv[1])
with Guard(folder / "log.txt", folder, "") as guard:
    head = {kind: subprocess.Popen(["sleep", "600"], start_new_session=True) for kind in ("raylet", "gcs_server")}
    for process in head.values():
        guard.tell(leader=process.pid)
    guard.tell(head={kind: process.pid for kind, process in head.items()})
    time.sleep(2.0)
    if sys.argv[2] != "driver":
        head[sys.argv[2]].kill()
        time.sleep(3.0)
    else:  # as the kernel does with a head that is to end with its parent
        head["raylet"].kill()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd")
@pytest.mark.parametrize(
    ("first", "said"),
    [("raylet", "Ray's raylet, "), ("gcs_server", "Ray's control service (GCS), "), ("driver", "the driver (process ")],
)
def test_what_ended_first_is_named(tmp_path: Path, first: str, said: str) -> None:
    """Ray's core ends a driver whose head is gone, sometimes before the driver can say so."""
    driver = subprocess.run(
        [sys.executable, "-c", HEAD_DIES, str(tmp_path), first],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert driver.stderr.startswith(f"error: {said}"), driver.stderr
