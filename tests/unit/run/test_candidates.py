"""What the ledger says of the walk after a stage: once, also if the hook is called by every start."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from continual.api import Candidate, ModelRef, Tried, Walk
from continual.ledger.ledger import Ledger
from continual.run.candidates import record_walk


def candidate(name: str, *tried: float, alpha: float | None = 1.0) -> Candidate:
    return Candidate(name, ModelRef("m", "h"), Walk("stage_start", tuple(map(Tried, tried)), alpha, 0.1))


def test_a_walk_is_written_once(tmp_path: Path) -> None:
    ctx: Any = SimpleNamespace(view=SimpleNamespace(number=2, name="two"))
    plain = Candidate("average", ModelRef("m", "h"))
    for _ in range(2):
        with Ledger(tmp_path) as ledger:
            record_walk(ledger, ctx, [])
            record_walk(ledger, ctx, [plain, candidate("not the first")])
            record_walk(ledger, ctx, [candidate("repair 0.5", 1.0, 0.5, alpha=0.5), plain])
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["name"], line["candidate"]) for line in lines] == [(2, "two", "repair 0.5")]
    with Ledger(tmp_path) as ledger:
        record_walk(ledger, ctx, [candidate("repair 0.1", 0.1, alpha=None)])
        assert [event["candidate"] for event in ledger.all("walked")] == ["repair 0.5", "repair 0.1"]
