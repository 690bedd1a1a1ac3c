"""The ledger keeps every whole event, survives a torn line, and lets one driver in."""

import json
from pathlib import Path

import pytest

from continual.errors import ContinualError
from continual.ledger.ledger import Ledger, read_events


def test_events_survive_a_resume_and_a_torn_line(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        run_id = ledger.run_id()
        ledger.add("stage_done", stage=1, hash="a")
        ledger.add("phase", phase="train", stage=1, seconds=1.5)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"event": "stage_done", "sta')
    with Ledger(tmp_path) as ledger:
        assert ledger.run_id() == run_id
        ledger.add("phase", phase="train", stage=2, seconds=2.0)
        assert ledger.find("stage_done", stage=2) is None
        assert ledger.seconds() == {"train": 3.5}
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["run", "stage_done", "phase", "phase"]


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00", b'{"event": "stage_do', b"\xff\xfe not JSON"])
def test_a_damaged_line_in_the_middle_costs_its_own_event_alone(tmp_path: Path, damage: bytes) -> None:
    with Ledger(tmp_path) as ledger:
        for stage in (1, 2, 3):
            ledger.add("stage_done", stage=stage)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + b"\n" + lines[2])
    for start in range(2):
        with Ledger(tmp_path) as ledger:
            assert ledger.damaged == 1
            assert [event["stage"] for event in ledger.all("stage_done")] == [1, 3, *[4] * start]
            ledger.add("stage_done", stage=4)
    assert [event["stage"] for event in read_events(tmp_path, "stage_done")] == [1, 3, 4, 4]


def test_the_newest_event_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add("scored", stage=1, hash="old")
        ledger.add("scored", stage=1, hash="new")
        found = ledger.find("scored", stage=1)
        assert found is not None
        assert found["hash"] == "new"
        assert len(ledger.all("scored")) == 2


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(ContinualError, match="another driver works on this run"), Ledger(tmp_path):
        pass
    with Ledger(tmp_path):
        pass


def test_the_events_of_a_stage_are_those_that_a_search_finds(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for number in range(12):
            ledger.add(("scored", "inside", "done")[number % 3], stage=number % 4, n=number)
            ledger.add("started", n=number)
            for stage in range(4):
                for event in ("scored", "inside", "never"):
                    plain = [line for line in ledger.all(event) if line.get("stage") == stage]
                    assert ledger.of_stage(event, stage) == plain
                    assert ledger.find(event, stage=stage) == (plain[-1] if plain else None)
        ledger.forget()
        assert ledger.of_stage("scored", 0) == []
        ledger.add("scored", stage=0, n=99)
        assert [line["n"] for line in ledger.of_stage("scored", 0)] == [99]
    with Ledger(tmp_path) as again:
        assert [line["n"] for line in again.of_stage("scored", 0)] == [0, 99]
