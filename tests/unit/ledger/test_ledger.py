"""The ledger keeps every whole event, survives a torn line, and lets one driver in."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from continual.contract.walk import Tried, Walk
from continual.errors import ContinualError
from continual.forgetting import ScoreLoss
from continual.ledger.events import is_event
from continual.ledger.ledger import Ledger, read_events, read_ledger
from continual.ledger.records import read_records
from continual.ledger.walks import walks_of

DONE = {"name": "one", "model": "m", "hash": "a", "rows": "r"}


def test_events_survive_a_resume_and_a_torn_line(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        run_id = ledger.run_id()
        ledger.add("stage_done", stage=1, **DONE)
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
            ledger.add("stage_done", stage=stage, **DONE)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + b"\n" + lines[2])
    for start in range(2):
        with Ledger(tmp_path) as ledger:
            assert ledger.damaged == 1
            assert [event["stage"] for event in ledger.all("stage_done")] == [1, 3, *[4] * start]
            ledger.add("stage_done", stage=4, **DONE)
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
            ledger.add(("one", "two", "three")[number % 3], stage=number % 4, n=number)
            ledger.add("other", n=number)
            for stage in range(4):
                for event in ("one", "two", "never"):
                    plain = [line for line in ledger.all(event) if line.get("stage") == stage]
                    assert ledger.of_stage(event, stage) == plain
                    assert ledger.find(event, stage=stage) == (plain[-1] if plain else None)
        ledger.forget()
        assert ledger.of_stage("one", 0) == []
        ledger.add("one", stage=0, n=99)
        assert [line["n"] for line in ledger.of_stage("one", 0)] == [99]
    with Ledger(tmp_path) as again:
        assert [line["n"] for line in again.of_stage("one", 0)] == [0, 99]


TRIED = (Tried(1.0, 0.3), Tried(0.5, 0.1, 0.01, {"a": ScoreLoss(0.1), "b": ScoreLoss(0.1, (0.0, 0.2))}))
WALK = Walk("ties", TRIED, 0.5, 0.2, {"a": 0.1}, "c").as_json()
DIVERGED = Walk("ties", (Tried(1.0, math.nan, math.nan), Tried(0.5, math.inf)), None, 0.2).as_json()
WHOLE: list[dict[str, Any]] = [
    {"event": "stage_done", "stage": 1, **DONE},
    {"event": "scored", "stage": 0, "name": "start", "scores": {"a": {"score": 1.0, "stderr": None, "n": 3}}},
    {"event": "prepared", "stage": 1, "samples": ["s"], "steps": 3, "passes": {"task": {"rows": 1}}},
    {"event": "of another package", "anything": None},
    {"event": "start_model", "path": "/models/of the user", "hash": "h"},
    {"event": "stage_done", "stage": 1, **DONE, "model": "/old/run/stages/1-a/model"},
    {"event": "ended", "status": "FINISHED", "open": [1], "files": ["report.html", "report"]},
    {"event": "walked", "stage": 1, "name": "a", "candidate": "repair 0.5", "walk": WALK},
    {"event": "walked", "stage": 1, "name": "a", "candidate": "repair undone", "walk": DIVERGED},
]
WRONG: list[Any] = [
    [], 3, None, "x", {}, {"event": 1}, {"event": "stage_done"}, {**WHOLE[0], "stage": "1"},
    {**WHOLE[0], "stage": True},
    {**WHOLE[0], "model": None}, {**WHOLE[1], "scores": {"a": 3}}, {**WHOLE[1], "scores": {"a": {"score": "1"}}},
    {**WHOLE[2], "samples": [3]}, {**WHOLE[2], "steps": 1.5}, {**WHOLE[2], "passes": {"task": 3}},
    {"event": "measures"},
    {"event": "measures", "measures": {"tasks": 3, "settings": {}}},
    {"event": "phase", "phase": "train", "seconds": "1"}, {"event": "phase", "phase": "train", "seconds": 1e999},
    {**WHOLE[0], "stage": -1}, {**WHOLE[0], "rows": "a\0b"}, {**WHOLE[0], "rows": "../x"}, {**WHOLE[0], "rows": ""},
    {**WHOLE[0], "model": "../victim"}, {**WHOLE[0], "model": "/old/../victim"}, {**WHOLE[0], "model": "a\0b"},
    {**WHOLE[0], "name": "../x"}, {**WHOLE[0], "model": "\ud800"}, {**WHOLE[0], "model": "x" * 300},
    {**WHOLE[0], "version": {"name": "m"}}, {**WHOLE[0], "model": "x/" * 3000},
    {**WHOLE[1], "evaluations": {"a": "../x"}}, {**WHOLE[1], "evaluations": {"a": 3}},
    {**WHOLE[2], "samples": ["a\0"]}, {**WHOLE[2], "sampled": {"../x": 3}}, {**WHOLE[2], "name": "a/../../x"},
    {**WHOLE[2], "data": {"task": {}}},
    {**WHOLE[2], "data": {"task": {"content": "c", "path": "../x", "counts": {}}}},
    {"event": "start_model", "path": "a\0b", "hash": "h"}, {"event": "start_model", "path": "../x", "hash": "h"},
    {"event": "read", "key": "k", "stage": 1, "rows": "a/b"},
    {"event": "started", "name": "x", "tags": {}, "params": {}, "files": ["../../id_rsa"]},
    {"event": "started", "name": "x", "tags": {}, "params": {}, "files": ["/etc/passwd"]},
    {"event": "ended", "status": "FINISHED", "open": [], "files": [3]},
    {**WHOLE[-1], "walk": {}}, {**WHOLE[-1], "walk": {**WALK, "alpha": "1"}},
    {**WHOLE[-1], "walk": {**WALK, "tried": 3}}, {**WHOLE[-1], "walk": {**WALK, "tried": [{}]}},
    {**WHOLE[-1], "walk": {**WALK, "limits": {"a": None}}},
    {**WHOLE[-1], "walk": {**WALK, "tried": [{"alpha": 1, "losses": {"a": {"value": 1, "interval": [1]}}}]}},
    {**WHOLE[-1], "walk": {**WALK, "tried": [{"alpha": 1, "drift": float("inf")}]}}, {**WHOLE[-1], "candidate": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_line_that_is_json_but_no_event_is_damaged(tmp_path: Path, wrong: Any) -> None:
    lines = [{"event": "run", "id": "x"}, WHOLE[0], wrong, WHOLE[1]]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Ledger(tmp_path) as ledger:
        assert [event["event"] for event in ledger.events] == ["run", "stage_done", "scored"]
        assert (ledger.damaged, ledger.run_id()) == (1, "x")
    [told] = read_ledger(tmp_path).loss
    assert "ledger.jsonl has 1 damaged line: what stood there is lost" in told


def test_whole_events_are_kept_also_with_fields_that_nobody_knows(tmp_path: Path) -> None:
    assert all(is_event({**event, "more": [None]}) for event in WHOLE)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 3}\n{"tokens": 3}\n[]\n{"step": 2, "loss": 3}\n')
    assert read_records(tmp_path / "metrics.jsonl") == [{"step": 1, "tokens": 3}]


def test_a_lost_first_line_is_not_another_version(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.run_id()
        ledger.add("stage_done", stage=1, **DONE)
    path = tmp_path / "ledger.jsonl"
    path.write_text("\0\0\0\n" + path.read_text().split("\n", 1)[1])
    with Ledger(tmp_path) as ledger:
        assert ledger.damaged == 1
        assert ledger.find_first("run") is None
        run_id = ledger.run_id()
    assert read_ledger(tmp_path).events[-1]["id"] == run_id


def test_of_a_stage_the_newest_walk_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for stage, alpha in ((2, 0.1), (1, 0.2), (2, None)):
            ledger.add("walked", stage=stage, name="s", candidate="c", walk={**WALK, "alpha": alpha})
    walks = walks_of(read_ledger(tmp_path))
    assert [(walk["stage"], walk["alpha"]) for walk in walks] == [(1, 0.2), (2, None)]
    assert walks[0] == {"stage": 1, "name": "s", "candidate": "c", **WALK, "alpha": 0.2}
    assert WALK["tried"][0] == {"alpha": 1.0, "drift": 0.3, "stderr": None}, "an unknown error is null"
