"""Scores inside a stage: every export is scored once, and every score is reported once, also over resumes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from continual.evaluation.service import InsideStage
from continual.ledger.folder import StageFolder, step_name


class Actor:
    """Notes what it is asked to score; `work` scores it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.evaluate = SimpleNamespace(remote=self._remote)

    def _remote(self, export: str, output: str) -> str:
        self.asked.append(output)
        return output

    def work(self, outputs: list[str]) -> None:
        for output in outputs:
            Path(output).parent.mkdir(exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {"task": {"score": 0.5}}}))


@pytest.fixture
def files(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path)


def export(files: StageFolder, step: int) -> Path:
    folder = files.evaluations / step_name(step)
    folder.mkdir(parents=True)
    return folder


def inside(files: StageFolder, known: set[int]) -> tuple[InsideStage, Actor, list[int]]:
    actor, reported = Actor(), list[int]()
    scorer: Any = SimpleNamespace(actor=lambda: actor)
    return InsideStage(scorer, files, known, lambda step, scores: reported.append(step)), actor, reported


def test_an_export_is_scored_reported_and_deleted(files: StageFolder) -> None:
    stage, actor, reported = inside(files, set())
    folders = [export(files, step) for step in (12, 24)]
    stage.poll()
    stage.poll()
    assert actor.asked == [str(files.scores / step_name(step)) for step in (12, 24)]
    assert reported == []
    actor.work(actor.asked[:1])
    stage.poll()
    stage.poll()
    assert reported == [12]
    assert [folder.exists() for folder in folders] == [False, True]


def test_the_end_waits_and_reports_scores_from_elsewhere(files: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, actor, reported = inside(files, {12})
    monkeypatch.setattr(ray, "get", actor.work)
    actor.work([str(files.scores / step_name(step)) for step in (12, 24)])
    export(files, 36)
    stage.finish()
    assert reported == [36, 24]
    assert list(files.evaluations.iterdir()) == []
