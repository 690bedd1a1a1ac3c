"""Scores that come beside the next stage are written as if they had come before it."""

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.forgetting import Score, Scores, scores_as_json
from continual.ledger.ledger import Ledger, read_ledger
from continual.run.scoring import Scoring, ScoringTask
from continual.show.terminal import Terminal

MODELS = [ModelRef(f"/models/{name}", name) for name in ("one", "two")]


class Slow:
    """Scores of a model, by the length of its hash; each waits until `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, model: ModelRef, following: Sequence[ModelRef], tell: Any, stage_start: Any) -> Scores:
        self.asked.append(model.hash)
        assert any(self.go.wait(0.1) or tell(1, 3, "task") for _ in range(200))
        return {"task": Score(len(model.hash) / 10, 0.0, 8, "accuracy")}


def task(ledger: Ledger, stage: int, told: list[int]) -> ScoringTask:
    def record(number: int, scores: Scores) -> None:
        ledger.add("scored", stage=stage, name=f"s{stage}", model=MODELS[number].hash, scores=scores_as_json(scores))

    def close() -> None:
        ledger.add("stage_done", stage=stage, name="s", model="m", hash="h", rows="r")

    return ScoringTask(stage, f"stage {stage}", MODELS, record, close, lambda: told.append(stage))


@contextmanager
def scored_in(folder: Path, score: Any, beside: bool) -> Iterator[tuple[Ledger, Scoring, io.StringIO]]:
    stream = io.StringIO()
    with (
        Ledger(folder) as ledger,
        Terminal(folder / "log.txt", stream) as terminal,
        Scoring(ledger, terminal, score, beside) as scoring,
    ):
        yield ledger, scoring, stream


def run(folder: Path, beside: bool, score: Slow) -> tuple[list[dict[str, Any]], list[int], str]:
    """Score two stages, with events of the next one between; return the ledger's events, the stages told, the lines."""
    told: list[int] = []
    with scored_in(folder, score, beside) as (ledger, scoring, stream):
        for stage in (1, 2):
            ledger.add("prepared", stage=stage, samples=[], steps=3)
            assert ledger.find("prepared", stage=stage)
            ledger.add("phase", phase="train", stage=stage, seconds=1.0)
            scoring.start(task(ledger, stage, told), last=stage == 2)
            if stage == 1 and beside:
                assert "is scored" in scoring.poll()
                assert read_ledger(folder).all("stage_done") == [], "nothing is known yet"
                score.go.set()
        scoring.finish()
    return read_ledger(folder).events, told, stream.getvalue()


def without_times(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key not in ("time", "seconds")} for event in events]


def test_the_ledger_reads_as_if_one_came_after_the_other(tmp_path: Path) -> None:
    quick = Slow()
    quick.go.set()
    after, told_after, _ = run(tmp_path / "after", False, quick)
    beside, told_beside, lines = run(tmp_path / "beside", True, Slow())
    assert without_times(after) == without_times(beside)
    kinds = [(event["event"], event["stage"]) for event in beside]
    scored = ["phase", "scored", "phase", "scored", "stage_done"]
    assert kinds == [(kind, stage) for stage in (1, 2) for kind in ("prepared", "phase", *scored)]
    assert told_after == told_beside == [1, 2]
    assert "stage 1: evaluate: task 0.300" in lines
    assert "beside the next stage" in lines


def test_poll_writes_what_has_come(tmp_path: Path) -> None:
    score, told = Slow(), list[int]()
    with scored_in(tmp_path, score, True) as (ledger, scoring, _):
        scoring.start(task(ledger, 1, told), last=False)
        ledger.add("prepared", stage=2, samples=[], steps=3)
        score.go.set()
        while scoring.poll():
            pass
        assert [event["event"] for event in read_ledger(tmp_path).events][-2:] == ["stage_done", "prepared"]
        assert told == [1]
        ledger.add("phase", phase="train", stage=2, seconds=1.0)
        assert read_ledger(tmp_path).events[-1]["event"] == "phase", "written at once again"


@pytest.mark.parametrize("beside", [False, True])
def test_the_line_says_what_is_being_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    monkeypatch.setattr("continual.show.progress.PLAIN_SECONDS", 0.0)
    score = Slow()
    with scored_in(tmp_path, score, beside) as (ledger, scoring, stream):
        threading.Timer(2.5, score.go.set).start()
        scoring.start(task(ledger, 1, []), last=False)
        scoring.finish()
    assert "stage 1: evaluate: scoring task, 1 of 3 done ... " in stream.getvalue()


@pytest.mark.parametrize("known", [True, False])
def test_an_interruption_writes_what_is_known(tmp_path: Path, known: bool) -> None:
    score, told = Slow(), list[int]()
    with Ledger(tmp_path) as ledger, Terminal(tmp_path / "log.txt", io.StringIO()) as terminal:
        with pytest.raises(KeyboardInterrupt), Scoring(ledger, terminal, score, True) as scoring:
            scoring.start(task(ledger, 1, told), last=False)
            ledger.add("prepared", stage=2, samples=[], steps=3)
            ledger.add("phase", phase="train", stage=2, seconds=1.0)
            if known:
                score.go.set()
                assert scoring._task
                assert scoring._task.ended.wait(20)
            raise KeyboardInterrupt
        score.go.set()
        assert bool(ledger.find("prepared", stage=2)) == known, "forgotten unless what precedes it is written"
        ledger.add("ended", status="KILLED", open=[], files=[])
    found = [event["event"] for event in read_ledger(tmp_path).events]
    expected = ["phase", "scored", "phase", "scored", "stage_done", "prepared", "phase"] if known else ["phase"]
    assert found == [*expected, "ended"]


def test_a_failure_is_told_at_once_and_raised_at_the_end(tmp_path: Path) -> None:
    def fail(model: ModelRef, following: Sequence[ModelRef], tell: Any, stage_start: Any) -> Scores:
        raise ContinualError(f"the evaluation of {model.path} failed")

    stream = io.StringIO()
    with Ledger(tmp_path) as ledger, Terminal(tmp_path / "log.txt", stream) as terminal:
        scoring = Scoring(ledger, terminal, fail, True)
        with pytest.raises(ContinualError, match="/models/one failed"), scoring:
            scoring.start(task(ledger, 1, []), last=False)
            while "failed" not in stream.getvalue():
                assert scoring.poll() in ("", ", stage 1 is scored")
            ledger.add("phase", phase="train", stage=2, seconds=1.0)
            scoring.finish()
    assert stream.getvalue().count("failed") == 1
    assert [event["event"] for event in read_ledger(tmp_path).events] == ["phase"]
