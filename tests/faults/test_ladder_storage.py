"""Damage to what is stored and to the tracker: told or mended, and the same command gives the undisturbed result."""

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from tests.e2e import command
from tests.faults import provoke
from tests.faults.provoke import LADDER, Row

pytestmark = pytest.mark.faults


def stopped(calm: Path, storage: Path) -> None:
    """A run that was interrupted in its second stage."""
    provoke.from_store(calm, storage)
    driver = provoke.in_training(storage)
    assert driver.interrupt() == 130


def test_renamed_storage(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "storage renamed between two starts", "resumes; `same`"
    stopped(calm, tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    provoke.same(calm, tmp_path / "after", row)
    assert not (tmp_path / "before").exists()


def test_deleted_model(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "model folder of a finished stage deleted", "taken from the store; `same`"
    stopped(calm, tmp_path)
    shutil.rmtree(tmp_path / "tiny" / "stages" / "1-reversal" / "model")
    provoke.same(calm, tmp_path, row)


def test_flipped_shard(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "one bit of a shard of rows flipped", "made again, told; `same`"
    stopped(calm, tmp_path)
    damaged = []
    for shard in sorted((tmp_path / "store" / "rows").glob("*/*")):
        if shard.is_file() and shard.suffix not in (".json", ".lock") and shard.stat().st_size > 100:
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 1
            shard.write_bytes(content)
            damaged.append(shard)
    assert damaged
    finished = command.run(tmp_path, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    for folder in {shard.parent for shard in damaged}:
        assert f"in {folder} is not what was stored there" in finished.stdout
    assert command.essence(tmp_path) == command.essence(calm)
    row.seen.append("exit 0, told, `same`")


def test_damaged_ledger(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "a line in the middle of the ledger damaged", "told; `same`"
    stopped(calm, tmp_path)
    path = tmp_path / "tiny" / "ledger.jsonl"
    lines = path.read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if '"scored"' in line)
    lines[number] = lines[number][:20] + "\x00" + lines[number][30:-5]
    path.write_text("\n".join(lines) + "\n")
    finished = command.run(tmp_path, yaml=LADDER)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    assert "damaged line" in finished.stdout
    # It stays there, for whoever wants to mend it.
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if "\x00" not in line))
    assert command.essence(tmp_path) == command.essence(calm)
    row.seen.append("exit 0, told, `same`")


def test_tracker_down(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "tracker down", "exit 0, `same`; the number of waiting records is told"
    shutil.copytree(calm / "store", tmp_path / "store")
    finished = command.run(tmp_path, "track.uri=http://127.0.0.1:9", yaml=LADDER)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "records wait" in finished.stdout
    assert command.essence(tmp_path) == command.essence(calm)
    row.seen.append("exit 0, told, `same`")


def test_tracker_locked(calm: Path, tmp_path: Path, row: Row) -> None:
    row.fault, row.expected = "tracker's SQLite locked by another process", "exit 0, `same`; sent by the next start"
    shutil.copytree(calm / "store", tmp_path / "store")
    shutil.copy(calm / "mlflow.db", tmp_path / "mlflow.db")
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    finished = command.run(tmp_path, yaml=LADDER)
    holder.execute("ROLLBACK")
    holder.close()
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "records wait" in finished.stdout
    assert command.essence(tmp_path) == command.essence(calm)
    assert command.run(tmp_path, yaml=LADDER).returncode == 0
    assert provoke.statuses(tmp_path) == {"FINISHED"}
    row.seen.append("exit 0, told, `same`, sent by the next start")


def test_address_without_a_cluster(tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    row.fault, row.expected = "RAY_ADDRESS of a closed port", "exit 1 and a sentence within 10 s of the start of Ray"
    monkeypatch.setattr(
        command, "environment", lambda: {**os.environ, **command.ENVIRONMENT, "RAY_ADDRESS": "127.0.0.1:9"}
    )
    driver = command.start(tmp_path, yaml=LADDER)
    log = tmp_path / "tiny" / "log.txt"
    # The last line before the cluster is asked.
    driver.wait_for(lambda: "log: " in driver.output.read_text())
    begun = time.monotonic()
    code = driver.process.wait(120)
    seconds = time.monotonic() - begun
    assert code == 1
    assert "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9" in driver.output.read_text()
    assert "no Ray cluster answers" in log.read_text()
    row.seen.append(f"exit 1, told after {seconds:.0f} s")
    assert seconds <= 10
