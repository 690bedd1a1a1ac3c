"""The drift from a stage's start: what is asked for, where it is stored, and which number is whose."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from continual.config.schema import Sequence
from continual.contract.models import ModelRef
from continual.evaluation.names import MeasuredText, joined, since_stage
from continual.evaluation.service import Scorer, evaluators_of
from continual.forgetting import Score, are_scores, scores_as_json, scores_from_json
from continual.store import Artefact, Store

START, FIRST, SECOND = (ModelRef(f"/models/{name}", f"{name}-hash") for name in ("start", "first", "second"))
TRAINED = ModelRef("/models/trained", "trained-hash")


def kl(model: str, start: str) -> float:
    """A number in place of KL(start || model), which tells the pair of them."""
    return 0.0 if model == start else sum(ord(letter) * place for place, letter in enumerate(f"{model}|{start}"))


class Actor:
    """Scores texts as an evaluator does, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.evaluate_each = SimpleNamespace(remote=self._each)

    def _each(self, model: str, outputs: dict[str, str], texts: dict[str, MeasuredText]) -> int:
        for key, output in outputs.items():
            self.asked.append(key)
            name, start = texts[key].of or key, texts[key].start
            drift = {"drift": kl(model, start), "drift_stderr": 0.5} if start else {}
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {name: {"score": -2.0, **drift}}}))
        return len(self.asked)


Made = Callable[..., tuple[Scorer, Actor]]


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls[:1], calls[1:]))

    def made(start: ModelRef = START, replicas: int = 1) -> tuple[Scorer, Actor]:
        data = {"type": "text", "path": "x"}
        texts = [{"name": "near", "data": data, "drift": True}, {"name": "plain", "data": data}]
        sequence = Sequence.model_validate({
            "name": "n", "model": {"type": "pretrained", "source": "m"},
            "stages": [{"name": "s", "steps": 1, "data": data}],
            "evaluate": {"texts": texts, "replicas": replicas},
        })  # fmt: skip
        rows = {name: Artefact("rows", f"{name}-rows", "/nowhere") for name in ("near", "plain")}
        built, actor = Scorer(Store(tmp_path / "store"), sequence, rows, evaluators_of(sequence, 1), start), Actor()
        monkeypatch.setattr(built.evaluators, "_start", lambda: actor)
        return built, actor

    return made


AGAIN = "near from the stage's start"


def test_before_the_first_stage_there_is_no_stages_start(scorer: Made) -> None:
    built, actor = scorer()
    scores = built.score(START)
    assert actor.asked == ["near", "plain"]
    assert (scores["near"].drift, scores["near"].drift_stage) == (0.0, None)


def test_in_the_first_stage_it_is_the_start_model_and_nothing_is_measured_twice(scorer: Made) -> None:
    built, actor = scorer()
    elsewhere = ModelRef("/copies/start", START.hash)
    scores = built.score(TRAINED, stage_start=elsewhere)
    assert actor.asked == ["near", "plain"]
    assert list(scores) == ["near", "plain"]
    assert scores["near"].drift == scores["near"].drift_stage == kl(TRAINED.path, START.path) > 0
    assert scores["near"].drift_stderr == scores["near"].drift_stage_stderr == 0.5
    assert scores["plain"] == Score(-2.0)


@pytest.mark.parametrize("replicas", [1, 2])
def test_later_both_are_measured(scorer: Made, replicas: int) -> None:
    built, actor = scorer(replicas=replicas)
    scores = built.score(TRAINED, stage_start=FIRST)
    assert sorted(actor.asked) == ["near", AGAIN, "plain"]
    assert list(scores) == ["near", "plain"]
    assert scores["near"].drift == kl(TRAINED.path, START.path)
    assert scores["near"].drift_stage == kl(TRAINED.path, FIRST.path)
    assert scores["plain"] == Score(-2.0)


def test_what_was_stored_without_it_stays_and_it_alone_is_measured(scorer: Made) -> None:
    scorer()[0].score(TRAINED)
    built, actor = scorer()
    addresses = built.evaluations(TRAINED)
    scores = built.score(TRAINED, stage_start=FIRST)
    assert actor.asked == [AGAIN]
    assert built.evaluations(TRAINED) == addresses, "its scores and documents are where they were"
    built, actor = scorer()
    assert built.score(TRAINED, stage_start=FIRST) == scores
    assert actor.asked == []


def test_one_model_after_two_stage_starts_has_two_drifts(scorer: Made) -> None:
    """Two runs may come to equal weights from different ones."""
    built, actor = scorer()
    found = [built.score(TRAINED, stage_start=stage_start)["near"] for stage_start in (FIRST, SECOND, FIRST, START)]
    assert [score.drift_stage for score in found] == [kl(TRAINED.path, of.path) for of in (FIRST, SECOND, FIRST, START)]
    assert len({score.drift for score in found}) == 1
    assert sorted(actor.asked) == ["near", AGAIN, AGAIN, "plain"]


def test_a_run_that_begins_with_a_stages_start_finds_the_same_number(scorer: Made) -> None:
    scorer()[0].score(TRAINED, stage_start=FIRST)
    built, actor = scorer(start=FIRST)
    scores = built.score(TRAINED, stage_start=FIRST)
    assert actor.asked == []
    assert scores["near"].drift == scores["near"].drift_stage == kl(TRAINED.path, FIRST.path)
    # The other way round, too: what one calls its start's drift is the other's drift from the stage's start.
    built, actor = scorer(start=SECOND)
    built.score(TRAINED)
    built, actor = scorer()
    assert built.score(TRAINED, stage_start=SECOND)["near"].drift_stage == kl(TRAINED.path, SECOND.path)
    assert actor.asked == []


def test_a_stored_score_never_has_a_stages_start(scorer: Made, tmp_path: Path) -> None:
    built, _ = scorer()
    for stage_start in (START, FIRST, SECOND):
        built.score(TRAINED, stage_start=stage_start)
    files = list((tmp_path / "store" / "scores").glob("*/scores.json"))
    assert len(files) == 4
    assert not any("drift_stage" in file.read_text() for file in files)


def test_inside_a_stage_one_file_has_both() -> None:
    rows = Artefact("rows", "r", "/nowhere")
    texts = {"near": MeasuredText(rows, "/start"), "plain": MeasuredText(rows)}
    again = since_stage(texts, "/first")
    assert again == {AGAIN: MeasuredText(rows, "/first", "near")}
    near, once_more = Score(-2.0, drift=0.5, drift_stderr=0.1), Score(-2.0, drift=0.25, drift_stderr=0.05)
    both = joined({"task": Score(1.0), "near": near, "plain": Score(-3.0), AGAIN: once_more}, texts | again)
    assert list(both) == ["task", "near", "plain"]
    assert both["near"] == Score(-2.0, drift=0.5, drift_stderr=0.1, drift_stage=0.25, drift_stage_stderr=0.05)
    assert joined({AGAIN: once_more}, texts | again) == {"near": once_more}


def test_scores_with_a_drift_from_the_stages_start_are_written_and_read() -> None:
    scores: dict[str, Any] = {"a": Score(-2.0, drift=0.5, drift_stage=0.25, drift_stage_stderr=0.1), "b": Score(0.5)}
    written = scores_as_json(scores)
    assert are_scores(written)
    assert scores_from_json(json.loads(json.dumps(written))) == scores
    assert "drift_stage" not in written["b"]
    assert not are_scores({"a": {**written["a"], "drift_stage": "far"}})
