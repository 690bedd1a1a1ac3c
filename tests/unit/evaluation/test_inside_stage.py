"""Scores inside a stage: every export is scored once, and every score is reported once, also over resumes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from continual.errors import ContinualError
from continual.evaluation.actors import Evaluators
from continual.evaluation.inside import InsideStage
from continual.ledger.folder import StageFolder, step_name


class Actor:
    """Notes what it is asked to score; `work` scores it, or fails."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failed: set[str] = set()
        self.evaluate = SimpleNamespace(remote=self._remote)

    def _remote(self, export: str, output: str, texts: dict[str, Any]) -> str:
        self.asked.append(output)
        return output

    def work(self, *outputs: str) -> None:
        for output in outputs:
            Path(output).parent.mkdir(exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {"task": {"score": 0.5}}}))

    def wait(self, calls: list[str], num_returns: int, timeout: float | None = None) -> tuple[list[str], list[str]]:
        """Do what `ray.wait` does: where it may wait, the first call gets its scores."""
        if timeout is None:
            self.work(calls[0])
        ready = [call for call in calls if Path(f"{call}.json").is_file() or call in self.failed]
        return ready, [call for call in calls if call not in ready]

    def get(self, call: str) -> None:
        if call in self.failed:
            raise ray.exceptions.RayError("out of memory")


@pytest.fixture
def files(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    made = Actor()
    monkeypatch.setattr(ray, "wait", made.wait)
    monkeypatch.setattr(ray, "get", made.get)
    return made


def export(files: StageFolder, step: int) -> Path:
    folder = files.evaluations / step_name(step)
    folder.mkdir(parents=True)
    return folder


def inside(files: StageFolder, actor: Actor, known: set[int], replicas: int = 1) -> tuple[InsideStage, list[int]]:
    reported = list[int]()
    scorer: Any = SimpleNamespace(evaluators=Evaluators(lambda: actor, replicas), texts_since=lambda stage_start: {})
    report = lambda step, scores: reported.append(step)  # noqa: E731
    return InsideStage(scorer, files, known, report, None, lambda sentence: None), reported


def outputs(files: StageFolder, *steps: int) -> list[str]:
    return [str(files.scores / step_name(step)) for step in steps]


def test_an_export_is_scored_reported_and_deleted(files: StageFolder, actor: Actor) -> None:
    stage, reported = inside(files, actor, set())
    folders = [export(files, step) for step in (12, 24)]
    stage.poll()
    stage.poll()
    assert actor.asked == outputs(files, 12)
    assert reported == []
    actor.work(*actor.asked)
    stage.poll()
    stage.poll()
    assert actor.asked == outputs(files, 12, 24)
    assert reported == [12]
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_failure_of_another_evaluation_is_raised_at_the_end(files: StageFolder, actor: Actor) -> None:
    """While the stage trains it must not end the training, which would lose the steps since the last checkpoint."""
    stage, reported = inside(files, actor, set())
    export(files, 12)
    stage.scorer.evaluators.close(ContinualError("the evaluation of the stage before failed"))
    stage.poll()
    assert actor.asked == reported == []
    with pytest.raises(ContinualError, match="of the stage before failed"):
        stage.finish()


def test_replicas_score_several_exports_at_a_time_and_report_them_in_their_order(
    files: StageFolder, actor: Actor
) -> None:
    stage, reported = inside(files, actor, set(), replicas=2)
    for step in (12, 24, 36):
        export(files, step)
    stage.poll()
    assert actor.asked == outputs(files, 12, 24)
    actor.work(*outputs(files, 24))
    stage.poll()
    assert actor.asked == outputs(files, 12, 24, 36)
    assert reported == []
    actor.work(*outputs(files, 12))
    stage.poll()
    assert reported == [12, 24]
    stage.finish()
    assert reported == [12, 24, 36]


def test_the_end_waits_and_reports_scores_from_elsewhere(files: StageFolder, actor: Actor) -> None:
    stage, reported = inside(files, actor, {12})
    actor.work(*outputs(files, 12, 24))
    export(files, 36)
    export(files, 48)
    stage.finish()
    assert reported == [36, 48, 24]
    assert list(files.evaluations.iterdir()) == []


def test_the_end_waits_for_an_actor_that_scores_another_model(files: StageFolder, actor: Actor) -> None:
    stage, reported = inside(files, actor, set())
    evaluators = stage.scorer.evaluators
    busy = evaluators.take()
    export(files, 12)
    stage.poll()
    assert actor.asked == []
    evaluators.give_back(busy)
    stage.finish()
    assert reported == [12]


def test_an_evaluation_that_fails_ends_the_run_at_the_end_of_the_training(files: StageFolder, actor: Actor) -> None:
    stage, reported = inside(files, actor, set())
    for step in (12, 24):
        export(files, step)
    stage.poll()
    actor.failed.update(actor.asked)
    stage.poll()
    assert actor.asked == outputs(files, 12, 24)
    with pytest.raises(ContinualError, match=r"an evaluation inside the stage failed: .*out of memory"):
        stage.finish()
    assert reported == []
