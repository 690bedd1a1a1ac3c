"""The likeness of texts by the start model: asked once, then from the store; and why there is none."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from continual.associations import likeness as room
from continual.associations.analysis import cosines_of_representations
from continual.associations.likeness import NO_TEXT, NOT_MEASURED, Likeness
from continual.associations.matrix import Associations
from continual.associations.results import Work, analyzed, page
from continual.config.load import load_sequence
from continual.ledger.ledger import Ledger
from continual.models import model_hash
from continual.scoring import representations as scoring
from continual.scoring.representations import read_representations
from continual.show.terminal import Terminal
from tests.kits.project import write_lines, write_model

ROW, TASKS = 8, ("same", "other", "third")
RESOURCES = {"CPU": 2.0}
UPSTREAM = [f"w{n} w{n + 1} w{n + 2} w0" for n in range(6)]
OTHER = [" ".join(f"w{40 + (3 * n + k) % 20}" for k in range(12)) for n in range(4)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Represent in this process; the list has the GPUs that were asked for."""
    asked: list[float] = []

    def run(cpus: float, gpus: float, stop: Any, work: Any, *arguments: Any) -> Any:
        asked.append(gpus)
        return work(*arguments)

    monkeypatch.setattr(scoring, "in_cluster_with", run)
    return asked


def loaded(folder: Path, upstream: str = "known") -> Any:
    """Associations of three tasks, the first of which learns the upstream documents themselves."""
    write_model(folder / "model")
    for name, lines in (("known", UPSTREAM), ("same", UPSTREAM), ("other", OTHER), ("third", OTHER[:1] * 3)):
        write_lines(folder / f"{name}.jsonl", [{"text": line} for line in lines])
    data = {name: {"type": "jsonl", "path": f"{name}.jsonl", "text": "text"} for name in ("known", *TASKS)}
    sequence = {
        "name": "base", "storage": "runs", "model": {"type": "pretrained", "source": "model"},
        "stages": [{"name": name, "data": data[name], "steps": 1} for name in TASKS],
        "train": {"batch_tokens": 64, "row_tokens": ROW},
        "evaluate": {"texts": [{"name": "known", "data": data["known"]}], "old_tasks": ["arc_easy"]},
    }  # fmt: skip
    (folder / "seq.yaml").write_text(json.dumps(sequence))
    associate = SimpleNamespace(name="mine", upstream=upstream, probes=2, draws=2)
    return SimpleNamespace(base=load_sequence(folder / "seq.yaml"), associate=associate)


def matrix(folder: Path, start: str = "") -> Associations:
    """A matrix of these tasks, whose runs have begun with the model in `folder`."""
    start = start or model_hash(folder / "model")
    with Ledger(folder / "runs" / "one") as ledger:
        ledger.add("start_model", path=str(folder / "model"), hash=start)
    change = np.random.default_rng(0).normal(0.5, 1.0, (len(TASKS), len(UPSTREAM)))
    facts = {"upstream": "known", "start_model": start, "tasks": {name: {"run": "one"} for name in TASKS}}
    return Associations(TASKS, tuple(map(str, range(len(UPSTREAM)))), np.ones(len(UPSTREAM)), change, "nats", facts)


def begun(folder: Path, upstream: str = "known", start: str = "") -> Likeness:
    given = loaded(folder, upstream)
    return Likeness(matrix(folder, start), given)


def measure(asked: Likeness, folder: Path) -> str:
    said = io.StringIO()
    with Terminal(folder / "log.txt", said) as terminal:
        asked.measure(RESOURCES, terminal)
    return said.getvalue()


def test_the_correlation_is_that_of_the_start_models_representations(tmp_path: Path, calls: list[float]) -> None:
    asked = begun(tmp_path)
    assert asked.lacks()
    measure(asked, tmp_path)
    assert not asked.lacks()
    upstream, *of_tasks = map(read_representations, asked._places)
    assert [len(each) for each in (upstream, *of_tasks)] == [6, 6, 4, 3]
    near = cosines_of_representations(asked.matrix, dict(zip(TASKS, of_tasks, strict=True)), upstream)
    expected = np.corrcoef(near.ravel(), asked.matrix.change.ravel())[0, 1]
    found = asked.of_representations()
    assert isinstance(found, dict)
    assert found["pearson"] == pytest.approx(expected)
    assert set(found) == {"pearson", "spearman"}
    # A task that learns the upstream documents themselves is nearer to them than others.
    assert near.mean(1)[0] > max(near.mean(1)[1:])


def test_what_was_measured_once_is_found_without_the_model(tmp_path: Path, calls: list[float]) -> None:
    first = begun(tmp_path)
    measure(first, tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    again = Likeness(first.matrix, first.loaded)
    assert not again.lacks()
    assert again.of_representations() == first.of_representations()
    assert calls == [0.0]


def test_cut_texts_are_counted_and_said(tmp_path: Path, calls: list[float]) -> None:
    asked = begun(tmp_path)
    measure(asked, tmp_path)
    assert asked.represented() == {"texts": 19, "cut": 7, "tokens": ROW}
    numbers = analyzed(asked)
    text = "\n".join(page(asked.matrix, numbers))
    assert "7 of 19 texts cut to 8 tokens" in text
    assert f"pearson {numbers['similarity_of_representations']['pearson']:+.3f}" in text
    assert f"pearson {numbers['similarity']['pearson']:+.3f}" in text
    json.dumps(numbers, allow_nan=False)


def test_the_documents_of_a_task_of_lm_eval_are_no_text(tmp_path: Path) -> None:
    asked = begun(tmp_path, "arc_easy")
    assert not asked.lacks()
    assert asked.of_words() == asked.of_representations() == NO_TEXT
    assert asked.represented() is None


def test_hidden_states_that_are_not_finite_are_a_reason_that_is_stored(
    tmp_path: Path, calls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "continual.scoring.hidden.mean_hidden_states",
        lambda model, ids, weights, row_tokens: np.full((len(ids), 4), np.nan, np.float32),
    )
    asked = begun(tmp_path)
    measure(asked, tmp_path)
    assert asked.of_representations() == "not computed: the start model's hidden states are not finite on all texts"
    assert not Likeness(asked.matrix, asked.loaded).lacks()


@pytest.mark.parametrize(
    ("change", "words"),
    [("model", "has changed since this run began"), ("class", "no body of its own")],
)
def test_a_failure_is_said_and_is_the_reason_in_the_results(
    tmp_path: Path, calls: list[float], monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no body of its own")

    if change == "class":
        monkeypatch.setattr("continual.scoring.hidden.mean_hidden_states", fails)
    asked = begun(tmp_path, start="another" if change == "model" else "")
    assert asked.of_representations() == f"not computed: {NOT_MEASURED}"
    said = measure(asked, tmp_path)
    assert words in said
    reason = asked.of_representations()
    assert isinstance(reason, str)
    assert words in reason
    assert asked.lacks(), "the next start tries again"
    assert reason in "\n".join(page(asked.matrix, analyzed(asked)))


def test_it_takes_the_gpus_of_an_evaluating_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(room, "represent", lambda *given: asked.append(given[5]))
    one = begun(tmp_path)
    for resources in ({"CPU": 2.0}, {"CPU": 2.0, "GPU": 2.0}):
        with Terminal(tmp_path / "log.txt", io.StringIO()) as terminal:
            one.measure(resources, terminal)
    assert asked == [0.0, 1.0]


def test_nothing_is_asked_before_all_tasks_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def collected(upstream: str, outcomes: list[Any]) -> Associations:
        read.append(upstream)
        return matrix(tmp_path)

    monkeypatch.setattr("continual.associations.results.collect", collected)
    work, done, failed = Work(loaded(tmp_path)), SimpleNamespace(state="done"), SimpleNamespace(state="failed")
    outcomes: list[Any] = [done, failed]
    assert not work.lacks(outcomes)
    assert not read
    outcomes = [done, done]
    assert work.lacks(outcomes)
    assert work.lacks(outcomes)
    assert read == ["known"]
