"""Other people's files through the command line: what is asked for is trained, and the rest is counted or refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import command

pytestmark = pytest.mark.slow


def written(folder: Path, stories: Path, *stages: dict[str, Any]) -> Path:
    sequence = {
        "name": "foreign",
        "model": {"type": "pretrained", "source": str(stories)},
        "stages": [{"name": f"s{n}", "data": data, "steps": 2} for n, data in enumerate(stages, 1)],
        "train": {"batch_tokens": 2048, "row_tokens": 512, "learning_rate": 1e-4},
    }
    (folder / "foreign.yaml").write_text(yaml.safe_dump(sequence))
    return folder / "foreign.yaml"


def test_arrays_tables_and_splits_are_trained_and_counted(shared: Path, stories: Path, tmp_path: Path) -> None:
    folder = shared / "data/trace/NumGLUE-cm"
    array = {"type": "jsonl", "path": str(folder), "split": "train", "prompt": "prompt", "completion": "answer"}
    with (tmp_path / "table.csv").open("w", newline="") as file:
        answers = ["" if n % 10 == 4 else f"It is\n{n}." for n in range(60)]
        rows = [(f"What is {n}?", answer, "fr" if n % 3 == 2 else "en") for n, answer in enumerate(answers)]
        csv.writer(file).writerows([("question", "answer", "lang"), *rows])
    table = {"type": "csv", "path": "table.csv", "prompt": "{question} ", "completion": "answer"}
    chosen = {"where": {"lang": "en"}, "on_bad": "skip"}

    finished = command.run(tmp_path / "runs", yaml=written(tmp_path, stories, array, {**table, **chosen}))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    first, second = command.summary(tmp_path / "runs", "foreign")["documents"]
    assert first["read"] == len(json.loads((folder / "train.json").read_text()))
    # Of 60 rows 20 are French; of the other 40 those that end in 4 are bad, but for 14 and 44, which are French.
    assert (second["left_out"], second["read"], second["documents"], second["skipped"]) == (20, 40, 36, 4)
    # The header is line 1, and each of the 4 documents before it has an answer of two lines.
    reason = {"reason": "completion: `answer` holds an empty cell, not text", "count": 4, "first": "table.csv line 10"}
    assert second["skipped_for"] == [reason]
    assert "4 skipped: completion: `answer` holds an empty cell, not text (first table.csv line 10)" in finished.stdout
    assert "table.csv line 10" in (tmp_path / "runs" / "foreign" / "report.html").read_text()


def test_a_wrong_line_of_the_last_stage_costs_no_stage(shared: Path, stories: Path, tmp_path: Path) -> None:
    good = [json.dumps({"q": "Who?", "a": "Tom."})] * 260
    (tmp_path / "good.jsonl").write_text("\n".join(good))
    (tmp_path / "bad.jsonl").write_text("\n".join([*good[:229], '{"q": "Who?", "a": ["Tom", "Ann"]}', *good]))
    stages = [{"type": "jsonl", "path": name, "prompt": "q", "completion": "a"} for name in ("good.jsonl", "bad.jsonl")]
    finished = command.run(tmp_path / "runs", yaml=written(tmp_path, stories, *stages))
    assert finished.returncode == 2, finished.stdout[-3000:] + finished.stderr[-3000:]
    told = finished.stderr.strip().splitlines()[-1]
    assert "stages.1.data.completion: bad.jsonl line 230: `a` holds a list, not text; name a column with text" in told
    assert "foreign.yaml" in told
    assert command.events(tmp_path / "runs", "scored", "foreign") == []
    assert not list((tmp_path / "runs" / "foreign" / "stages").glob("*/metrics.jsonl"))
