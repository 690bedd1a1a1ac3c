"""What the report says of answers, of units, and of runs that learned little."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from continual.config.measured import figure_units
from continual.ledger.ledger import read_ledger
from continual.show.report import write_report
from continual.show.report.answers import _answer, _of_task, gather_answers
from continual.show.report.gather import RunData, gather
from continual.show.report.page import render
from tests.kits.page import Read
from tests.kits.runs import HOSTILE, KEPT, make_run


def test_answers_of_the_last_model_are_shown_right_and_wrong(storage: Path, tmp_path: Path) -> None:
    """A score of 0.125 can be looked into: what was asked, expected and given, from the records of its evaluation."""
    ledger = read_ledger(storage / "lost")
    scored = ledger.all("scored")[-1]

    def record(task: str, number: int, right: bool) -> dict[str, Any]:
        given = f"good {number}" if right else HOSTILE
        return {"task": task, "prompt": f"asked {number}", "target": f"good {number}", "filter": "none",
                "filtered_resps": [given], "exact_match": float(right)}  # fmt: skip

    records = [record("reversal", number, number < 8) for number in range(64)]
    records += [{"task": "book", "document": d, "nats_per_token": float(d), "tokens": 3} for d in range(9)]
    for name, model in (("00", "other"), ("11", scored["model"])):
        folder = tmp_path / "store" / "scores" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"inputs": {"model": model}}))
        (folder / "scores.json").write_text(json.dumps({"scores": scored["scores"]}))
        (folder / "scores.samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    [found] = gather_answers(ledger, tmp_path / "store")
    assert (found.task, found.after, found.counts) == ("reversal", "2 sort", {"right": 8, "wrong": 56})
    assert found.file == "store/scores/11/scores.samples.jsonl"
    assert [(each.right, each.given) for each in found.answers] == [(False, HOSTILE)] * 5 + [
        (True, f"good {number}") for number in range(5)
    ]
    text = _of_task("book", {"metric": "nll"}, records[64:], "2 sort", "file")
    assert [line.document for line in text.worst] == [8, 7, 6, 5, 4]

    run = replace(gather(storage / "lost"), answers=[found, text])
    page = tmp_path / "page.html"
    page.write_text(render_page(run))
    read = Read(page)
    assert "reversal after 2 sort: 8 right, 56 wrong" in read.text
    assert "wrong asked 8 good 8 " in read.text
    assert "book after 2 sort: 9 documents" in read.text
    assert len(read.all("script")) == 1


def render_page(run: RunData) -> str:
    """A page of a run alone, without pictures."""
    lists = ("matrices", "over_stages", "over_steps", "trade_offs", "losses", "drift", "drifts", "watched", "weights")
    empty: dict[str, Any] = {name: [] for name in (*lists, "samples", "walks", "tried")}
    return render([run], [run.name], points={}, seconds=None, **empty)


def test_a_choice_is_told_by_what_the_model_found_likely() -> None:
    record = {"filtered_resps": [["-3.5", "False"], ["-1.25", "True"]], "doc": {"choices": ["moose", "alligator"]},
              "acc": 0.0, "prompt": "p" * 700, "target": "moose"}  # fmt: skip
    answer = _answer(record, "acc")
    assert answer.given == "choice 1: alligator (log-likelihoods -3.50, -1.25)"
    assert answer.right is False
    assert answer.prompt == "… " + "p" * 600
    assert _answer({"f1": 0.5, "filtered_resps": ["x"]}, "f1").right is None


def test_figures_carry_their_units(storage: Path, page: Read) -> None:
    assert "forgetting, accuracy" in page.text
    assert "average score, accuracy" in page.text
    config = gather(storage / "kept").config
    config["evaluate"]["texts"] = [{"name": "book"}]
    units = {"reversal": "accuracy", "sort": "accuracy", "book": "nats"}
    found = figure_units(config, units)
    assert (found["forgetting"], found["forgetting_old"]) == ("accuracy", "nats")
    assert figure_units(config, {**units, "sort": "f1"}) == {"forgetting_old": "nats"}


def test_a_run_that_learned_little_is_flagged(tmp_path: Path) -> None:
    make_run(tmp_path, "learned", KEPT)
    make_run(tmp_path, "idle", [(0.0, 0.0), (0.25, 0.0), (0.25, 0.125)], "mitigation=[]")
    page = Read(write_report([tmp_path / "learned", tmp_path / "idle"], tmp_path / "both.html"))
    assert "Learned little: mitigation: none." in page.text
    assert "Learned little" not in Read(write_report([tmp_path / "learned"])).text


# Drawing ----------------------------------------------------------------------------------------------------------
