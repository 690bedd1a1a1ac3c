"""The benchmarks of throughput run at tiny sizes, and compare equal work; no test depends on a duration."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.throughput import driver, goals, nodes, reading, rows, sides, start, stream
from tests.kits.runs import TINY


def test_sides_alternate_and_are_compared_within_their_round() -> None:
    order: list[str] = []
    numbers = {"a": iter([2.0, 9.0, 4.0]), "b": iter([1.0, 3.0, 1.0])}

    def one(name: str) -> Any:
        def run() -> dict[str, float]:
            order.append(name)
            return {"x": next(numbers[name])}

        return run

    found = sides.alternate({"a": one("a"), "b": one("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert sides.medians(found["a"]) == {"x": 4.0}
    ratio = sides.ratio(found, "x", "a", "b")
    assert (ratio["median"], ratio["lowest"], ratio["highest"]) == (3.0, 2.0, 4.0)


def test_what_is_used_counts_only_what_follows() -> None:
    with sides.used() as used:
        sum(number * number for number in range(200_000))
    assert used.seconds > 0
    assert used.largest_mib > 1
    assert math.isfinite(used.cpu_seconds)


def test_the_driver_is_measured_at_every_size() -> None:
    results = driver.measure((3, 5), (2, 3), (2, 4))
    assert [list(results[key]) for key in ("poll", "shards", "stages")] == [[3, 5], [2, 3], [2, 4]]
    assert driver.table(results).count("\n| ") == 8


def test_both_packings_hold_the_same_documents(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    rows.write_tokenizer(tokenizer, rows.documents(30))
    from transformers import AutoTokenizer

    encoder = AutoTokenizer.from_pretrained(tokenizer)
    texts = list(rows.documents(30))
    encoded = rows.encode(encoder, {"text": texts})["ids"]
    packed = rows.pack({"ids": encoded})
    for number, ids in enumerate(encoded):
        [row] = [row for row, of in enumerate(packed["documents"]) if number in of]
        places = [place for place, of in enumerate(packed["documents"][row]) if of == number]
        assert [packed["ids"][row][place] for place in places] == ids
        assert encoder.decode(ids) == texts[number] + rows.END
    assert max(map(len, packed["ids"])) <= rows.ROW_TOKENS


def test_the_table_of_rows_names_both_sides() -> None:
    numbers = {"seconds": 2.0, "cpu_seconds": 3.0, "largest_mib": 400.0, "tokens": 10.0, "rows": 1.0}
    found = {rows.CONTINUAL: [{**numbers, "tokens_per_second": 5.0, "first_shard_seconds": 1.0}],
             rows.DATASETS: [{**numbers, "tokens_per_second": 4.0}]}  # fmt: skip
    results = {
        "documents": 7,
        "sides": {side: {"median": sides.medians(each), "rounds": each} for side, each in found.items()},
        "ratio": sides.ratio(found, "tokens_per_second", rows.CONTINUAL, rows.DATASETS),
    }
    assert rows.table(results).endswith("7 documents. Tokens per second: 1.25 of `datasets` (1.25 to 1.25, 1 rounds).")


@pytest.mark.slow
def test_rows_are_measured_with_both_sides(tmp_path: Path) -> None:
    results = rows.measure(40, 1, None)
    ours, others = (results["sides"][side]["median"] for side in (rows.CONTINUAL, rows.DATASETS))
    # `datasets` packs what each of its processes has.
    assert ours["tokens"] == others["tokens"] > 40
    assert ours["rows"] <= others["rows"]


@pytest.mark.slow
def test_reading_is_measured_at_every_size() -> None:
    results = reading.measure((300, 900), 1, steps=3)
    for numbers in results["sides"].values():
        assert 0 <= numbers["median"]["wait"] <= 1
        assert numbers["median"]["mib"] > 50  # torch alone is more
    assert reading.table(results).count("\n| ") == 2


def test_goals_are_met_and_missed_by_what_was_measured(tmp_path: Path) -> None:
    rate = {"goals": {"rate": 0.97, "start": 1.1}, "rate": {"median": 0.98}, "start": {"median": 1.2}}
    side = {"median": {"wait": 0.001}}
    wait = {"goals": {"wait": 0.02, "memory": 1.1}, "sides": {"10": side, "1000": side}, "memory": {"median": 1.1}}
    for name, found in {"sampling": rate, "reading": wait}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    lines = goals.table(tmp_path).splitlines()
    assert lines[2].endswith("| ≥ 0.97 | 0.98 | met | `sampling` |")
    assert lines[3].endswith("| ≤ 1.1 | 1.20 | missed | `sampling` |")
    assert [" | met | `reading` |" in line for line in lines if "`reading`" in line] == [True, True]
    assert "| not measured yet | | | | | `stream` |" in lines


def test_a_cost_is_constant_over_a_hundred_times_the_size(tmp_path: Path) -> None:
    flat, rising = {"driver": 1.0, "tracker": 1.0}, {"shard": 3.0}
    found = {
        "poll": {"10": flat, "100": flat, "1000": flat},
        "shards": {"1": {"shard": 1.0}, "100": rising},
        "stages": {"1": {"ledger": 1.0, "figures": 1.0}, "100": {"ledger": 1.2, "figures": 40.0}},
    }
    assert [line[3:] for line in goals.driver(found)] == [
        ("1.00", True), ("1.00", True), ("3.00", False), ("1.20", True), ("40.00", False),
    ]  # fmt: skip


def test_the_command_line_is_timed(tmp_path: Path) -> None:
    of = start.commands(tmp_path, TINY, ("name=tiny",))
    results = start.measure(1, {name: of[name] for name in ("plan", start.PYTHON)})
    assert list(results["sides"]) == ["plan", start.PYTHON]
    assert start.table(results).count("\n| ") == 2


def test_streaming_is_compared_with_the_longer_part_of_its_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seconds = {"store": iter([(40.0, 60.0), (50.0, 30.0)]), "stream": iter([(6.0, 60.0), (5.0, 55.0)])}

    def stage(delivery: str, setting: stream.Setting) -> sides.Numbers:
        return stream.numbers(*next(seconds[delivery]))

    monkeypatch.setattr(stream, "stage", stage)
    results = stream.measure(stream.APART, 2)
    assert results["of the longer part"]["rounds"] == [66 / 60, 60 / 50]
    assert results["of the longer part"]["median"] == pytest.approx(1.15)
    assert results["of store"]["rounds"] == [66 / 100, 60 / 80]
    (tmp_path / "stream_apart.json").write_text(json.dumps(results))
    (tmp_path / "stream.json").write_text(json.dumps({**results, "goal": None}))
    lines = goals.table(tmp_path).splitlines()
    assert any(line.endswith("| ≤ 1.15 | 1.15 | met | `stream_apart` |") for line in lines)
    assert any(line.endswith("|  | 1.15 |  | `stream` |") for line in lines)


@pytest.mark.slow
def test_what_a_node_starts_stays_on_its_core() -> None:
    program = (
        "import os, ray; from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On\n"
        "ray.init(log_to_driver=False)\n"
        "cores = ray.remote(lambda: sorted(os.sched_getaffinity(0)))\n"
        "print(ray.get([cores.options(scheduling_strategy=On(node['NodeID'], soft=False)).remote()"
        " for node in ray.nodes()]))"
    )
    allowed = os.sched_getaffinity(0)
    with nodes.two_of_one_core() as environment:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
    kept = json.loads(done.stdout.splitlines()[-1])
    assert sorted(kept) == [[core] for core in sorted(allowed)[:2]]
    assert os.sched_getaffinity(0) == allowed
