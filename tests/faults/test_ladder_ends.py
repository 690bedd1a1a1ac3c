"""Ends of a run: each says one sentence, leaves nothing running, and the same command gives the undisturbed result."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e import command
from tests.faults import provoke
from tests.faults.provoke import LADDER, Row

pytestmark = pytest.mark.faults


def test_worker(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "kill -9 of the Ray Train worker", "goes on in the same run"
    provoke.from_store(calm, tmp_path)
    driver = provoke.in_training(tmp_path)
    processes = provoke.tree(driver)
    provoke.killed(provoke.find(driver, "ray::RayTrainWorker"))
    assert provoke.ended(driver, processes) == 0
    assert command.essence(tmp_path) == command.essence(calm)
    row.seen.append("exit 0, `same` in the same run")


def test_controller(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "kill -9 of the Ray Train controller", "exit 1, a sentence; `same`"
    provoke.disturb(calm, tmp_path, row, lambda d: provoke.killed(provoke.find(d, "ray::TrainController")), 1, "FAILED")


@pytest.mark.parametrize(("name", "shown"), [("raylet/raylet", "raylet"), ("gcs/gcs_server", "GCS")])
def test_head(calm: Path, tmp_path: Path, row: Row, name: str, shown: str) -> None:
    row.fault, row.expected = f"kill -9 of the {shown}", "exit 1, a sentence; `same`"
    sentence = provoke.disturb(calm, tmp_path, row, lambda d: provoke.killed(provoke.find(d, name)), 1, "FAILED")
    assert shown in sentence


def test_driver(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "kill -9 of the driver", "a sentence; `same`"
    provoke.disturb(calm, tmp_path, row, lambda driver: driver.process.kill(), -signal.SIGKILL, "KILLED")


def hang_up(driver: command.Driver) -> None:
    driver.process.send_signal(signal.SIGHUP)


def terminate(driver: command.Driver) -> None:
    driver.process.send_signal(signal.SIGTERM)


def terminate_group(driver: command.Driver) -> None:
    """As `timeout` and batch systems do: the process, then its group."""
    driver.process.send_signal(signal.SIGTERM)
    os.killpg(driver.process.pid, signal.SIGTERM)


def interrupt_twice(driver: command.Driver) -> None:
    driver.process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    driver.process.send_signal(signal.SIGINT)


SIGNALS: dict[str, Callable[[command.Driver], None]] = {
    "SIGHUP": hang_up,
    "SIGTERM to the driver": terminate,
    "SIGTERM to the process group": terminate_group,
    "SIGINT twice": interrupt_twice,
}


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """Let runs hear SIGHUP also where these tests do not, e.g. under `nohup`: they would ignore it, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", SIGNALS)
def test_signals(hangs_up: None, calm: Path, tmp_path: Path, row: Row, name: str) -> None:
    twice = "twice" in name
    row.fault, row.expected = name, f"exit 130, {'a' if twice else 'a checkpoint, a'} sentence; `same`"
    checkpoints = tmp_path / "tiny" / "stages" / "2-sort" / "checkpoints"

    def fault(driver: command.Driver) -> None:
        SIGNALS[name](driver)
        driver.process.wait(provoke.END_SECONDS)
        done = command.steps_done(tmp_path, "2-sort")
        if not twice:
            assert (checkpoints / f"step-{done:08d}").is_dir()
            row.seen.append(f"checkpoint of step {done}")

    provoke.disturb(calm, tmp_path, row, fault, 130, "KILLED")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk needs root and the right to mount")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk(calm: Path, row: Row, request: pytest.FixtureRequest) -> None:
    row.fault, row.expected = "full disk", "exit 1, one sentence with the disk and the fix; `same` when there is room"
    disk = request.getfixturevalue("small_disk")
    provoke.from_store(calm, disk)
    driver = provoke.in_training(disk)
    processes = provoke.tree(driver)
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while True:
            filler.write(b"\0" * 4096)
    code = provoke.ended(driver, processes)
    text = driver.output.read_text()
    statuses = provoke.statuses(disk)
    (disk / "filler").unlink()
    sentences = [line for line in text.splitlines() if line.startswith("error: ")]
    row.seen.append(f"exit {code}; {'; '.join(sentences)}".replace(str(disk), "/full"))
    row.seen.append(f"MLflow {'/'.join(sorted(statuses - {'FINISHED'}))}, 0 processes left")
    assert code == 1
    assert "Traceback" not in text
    [sentence] = sentences
    assert str(disk) in sentence
    assert "free" in sentence
    assert "RUNNING" not in statuses, "the end is recorded although the tracker's file is on that disk"
    provoke.same(calm, disk, row)
    assert provoke.statuses(disk) == {"FINISHED"}


def test_engine_twice(tmp_path: Path, row: Row) -> None:
    row.fault = "kill -9 of vLLM's engine, then of the one that loads in its place"
    row.expected = "goes on, or exit 1 and a sentence; `same`"
    options = ("generate.engine=vllm", "mitigation.0.samples=512", "stages.1.steps=4")
    calm, storage = tmp_path / "calm", tmp_path / "disturbed"
    finished = command.run(calm, *options, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    driver = command.start(storage, *options, yaml=LADDER)
    driver.wait_for(lambda: any((storage / "store" / "samples").glob("*/shard-*.json")))
    processes = provoke.tree(driver)
    first = provoke.find(driver, "ray::Replica")
    provoke.killed(first)
    first.wait(10)
    try:
        second = provoke.find(driver, "ray::Replica", timeout=90)
        processes += provoke.tree(driver)
        provoke.killed(second)
    except (AssertionError, psutil.NoSuchProcess):
        row.seen.append("no second engine was started")
    code = provoke.ended(driver, processes)
    row.seen.append(f"exit {code}")
    if code:
        sentence = provoke.words(driver, storage)
        row.seen.append(f"“{sentence[:110]}”")
    provoke.same(calm, storage, row, *options)


def test_two_runs_on_one_store(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "two runs on one store, started together", "both exit 0; `same` twice"
    drivers = [command.start(tmp_path, f"name={name}", yaml=LADDER) for name in ("tiny", "other")]
    assert [driver.process.wait(900) for driver in drivers] == [0, 0]
    assert command.essence(tmp_path) == command.essence(calm)
    assert command.essence(tmp_path, "other")["weights"] == command.essence(calm)["weights"]
    row.seen.append("exit 0 and 0, `same` twice")


def test_six_runs_on_one_sqlite(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "six runs on one SQLite file of the tracker", "all exit 0, six trees FINISHED"
    shutil.copytree(calm / "store", tmp_path / "store")
    names = ["tiny", *(f"run{number}" for number in range(2, 7))]
    drivers = [command.start(tmp_path, f"name={name}", yaml=LADDER) for name in names]
    assert [driver.process.wait(900) for driver in drivers] == [0] * 6
    assert provoke.statuses(tmp_path) == {"FINISHED"}
    matrix = command.summary(calm)["matrix"]
    assert all(command.summary(tmp_path, name)["matrix"] == matrix for name in names)
    row.seen.append("exit 0 six times, all FINISHED, equal scores")
