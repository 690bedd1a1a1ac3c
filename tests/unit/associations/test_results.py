"""What a page says of a matrix, and what it says where there is nothing to say."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from continual.associations.likeness import Likeness
from continual.associations.matrix import Associations, Kind
from continual.associations.results import analyzed, metrics, page, results_of
from continual.associations.spec import load_associate, prepare_sweep
from continual.sweep.execute import run_sweep
from continual.sweep.outputs import Results
from continual.sweep.parent_run import EVENTS
from tests.kits.associations import loaded_of, matrix_of, write_associations
from tests.kits.project import sequence, write_project
from tests.kits.sweep import TASKS, finish


def text_of(change: np.ndarray, kind: Kind = "lost", probes: int = 4, **facts: Any) -> str:
    tasks, documents = change.shape
    matrix = Associations(
        tuple(f"task{n}" for n in range(tasks)), tuple(map(str, range(documents))), np.ones(documents), change, kind,
        {"upstream": "old", **facts},
    )  # fmt: skip
    evaluate = SimpleNamespace(texts=[])
    base = SimpleNamespace(sequence=SimpleNamespace(seed=0, evaluate=evaluate, stages=[]))
    loaded: Any = SimpleNamespace(base=base, associate=SimpleNamespace(probes=probes, draws=2, upstream="old"))
    return "\n".join(page(matrix, analyzed(Likeness(matrix, loaded))))


def test_nothing_that_is_lost_is_a_result() -> None:
    text = text_of(np.zeros((3, 6)))
    assert "all changes are equal: there is nothing to explain" in text
    assert text.count("not computed, as the documents of a task of lm-eval are no text") == 2


def test_what_is_left_out_is_counted() -> None:
    assert "7 documents are left out: the start model is wrong about them" in text_of(np.eye(3, 6), wrong_before=7)


@pytest.mark.parametrize(("tasks", "words"), [(2, "forecasts are not tried out"), (3, "from 5 probes (instead of 30:")])
def test_fewer_tasks_or_documents_than_asked_for_are_told(tasks: int, words: str) -> None:
    assert words in text_of(np.random.default_rng(0).normal(size=(tasks, 6)), "nats", probes=30)


def test_numbers_for_the_tracker_have_the_names_of_tasks_and_models() -> None:
    change = np.random.default_rng(0).normal(size=(3, 6))
    matrix = replace(matrix_of(), tasks=("a", "b", "c"), documents=tuple("123456"), before=np.ones(6), change=change)
    found = metrics(analyzed(Likeness(matrix, loaded_of("z", probes=4))))
    names = {"r_squared/1", "r_squared/2", "r_squared/3", "explained/additive", "explained/multiplicative"}
    names |= {f"forgotten/{task}" for task in "abc"}
    names |= {f"forecast_error/{model}/rmse" for model in ("additive", "factors", "neighbours", "mean", "random")}
    assert set(found) == names
    left = np.linalg.svd(change, compute_uv=False)
    assert found["r_squared/2"] == pytest.approx(1 - left[2] ** 2 / np.sum((change - change.mean()) ** 2))
    assert found["forgotten/b"] == pytest.approx(sum(change[1]) / 6)


def test_what_is_written_is_what_the_tracker_keeps(tmp_path: Path) -> None:
    write_associations(tmp_path / "z")
    assert sorted(path.name for path in (tmp_path / "z").iterdir()) == sorted(results_of(loaded_of("z")).files)


def test_finished_associations_tell_the_tracker_what_it_lacks_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started: as after an earlier version, and again."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    base = sequence(evaluate=TASKS, mitigation=[], track={"enabled": False})
    (tmp_path / "seq.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "z.yaml").write_text(yaml.safe_dump({"name": "z", "sequence": "seq.yaml", "upstream": "a"}))
    sweep = prepare_sweep(load_associate(tmp_path / "z.yaml"))
    for trial in sweep.listed():
        finish(trial, {"a": -1.0, "b": -1.0})
    sweep.folder.mkdir(parents=True)
    sweep.state.close(True)
    results = Results(lambda folder, source, outcomes: write_associations(folder), ("associations.json",))
    for _ in range(2):
        run_sweep(sweep, False, results)
        assert "4 tasks, 12 documents of `old`" in capsys.readouterr().out
    lines = (sweep.folder / EVENTS).read_text().splitlines()
    [event] = [line for line in map(json.loads, lines) if line["event"] == "results"]
    assert (event["step"], event["files"]) == (2, ["associations.json"])
    assert event["metrics"]["r_squared/1"] > 0.5
    assert sweep.state.closed
