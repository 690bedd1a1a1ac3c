"""A sweep before its trials run: checks of all points, stopped trials, points of an earlier search."""

from pathlib import Path
from typing import Any

import pytest

from continual.errors import ConfigurationError
from continual.sweep import execute
from continual.sweep.state import Stopped
from continual.sweep.sweep import prepare
from tests.kits.sweep import TASKS, load


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"space": {"mitigation.0.temprature": {"choice": [1.0]}}}, "space.mitigation.0.temprature", "`temperature`"),
        ({"space": {"mitigation.0.temperature": {"choice": [1.0, -1]}}}, "space.mitigation.0.temperature", "-1"),
        ({"space": {"mitigation.3.share": {"choice": [1.0]}}}, "space.mitigation.3.share", "not a position"),
        # Found by a check that no schema makes, at the second value only.
        ({"space": {"mitigation.0.ratio": {"choice": [0.25, 0.3]}}}, "space.mitigation.0.ratio", "whole rows"),
        (
            {"space": {"mitigation": {"named": {"plain": [], "odd": [{"type": "context_fre"}]}}}},
            "space.mitigation.0", "context_free",
        ),
        # The far end of a range: no draw of it has to be made.
        (
            {"space": {"train.max_grad_norm": {"uniform": [-1, 1]}}, "search": "optuna", "trials": 1},
            "space.train.max_grad_norm", "greater than 0",
        ),
        ({"metric": "forgeting"}, "metric", "did you mean `forgetting`"),
        ({"metric": "forward"}, "metric", "forward_transfer"),
        ({"metric": "forgetting_old", "space": {"evaluate.texts": {"choice": [TASKS["texts"]]}}}, "metric", "average"),
        ({"sequence": "sequence.yaml"}, "", "no such file"),
        ({"search": "random", "trials": 3, "space": {"train.max_grad_norm": {"choice": [1, 2]}}}, "trials", "only 2"),
        ({"concurrency": 2, "search": "grid"}, "concurrency", "there are 2"),
    ],
)  # fmt: skip
def test_every_point_is_checked_before_a_start(project: Path, changes: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        prepare(load(project, **changes))
    assert error.value.key == key
    assert words in str(error.value)
    assert not (project / "runs").exists()


@pytest.mark.parametrize(("path", "folder"), [("ab", False), ("ab/state.json", True), ("ab/tune", False)])
def test_what_stands_where_the_sweep_keeps_its_files_is_told_before_a_start(
    project: Path, path: str, folder: bool
) -> None:
    place = project / "runs" / path
    place.parent.mkdir(parents=True)
    place.mkdir() if folder else place.write_text("mine")
    with pytest.raises(ConfigurationError, match=f"{place} is a {'folder' if folder else 'file'}") as error:
        prepare(load(project))
    assert error.value.key == "name"


def test_a_stopped_run_is_closed_once_even_after_a_kill(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(execute, "close_run", lambda trial, why: closed.append(trial.name))
    killed = prepare(load(project, scheduler="asha"))
    name = list(killed.trials.made)[1]
    killed.folder.mkdir(parents=True)
    killed.state.stop(name, Stopped(1, 0.1, 0.5))
    for _ in range(2):
        execute._close_stopped(prepare(load(project, scheduler="asha")))
    assert closed == [name]


CLIP, RATE = {"uniform": [1, 2]}, {"choice": [0.1, 0.2]}


@pytest.mark.parametrize(
    ("clip", "rate", "more", "key"),
    [
        (CLIP, None, {}, "learning_rate"),
        ({"uniform": [3, 4]}, RATE, {}, "max_grad_norm"),
        (CLIP, {"choice": [0.2]}, {}, "learning_rate"),
        (CLIP, RATE, {"train.warmup_steps": {"choice": [1]}}, "warmup_steps"),
    ],
)
def test_points_of_an_earlier_search_must_lie_in_the_space(
    project: Path, clip: dict[str, Any], rate: dict[str, Any] | None, more: dict[str, Any], key: str
) -> None:
    pytest.importorskip("optuna")

    def given(clip: Any, rate: Any, more: Any, fresh: bool = False) -> Any:
        swept = {"train.max_grad_norm": clip, **({"train.learning_rate": rate} if rate else {}), **more}
        return prepare(load(project, space=swept, search="optuna", trials=3), fresh)

    begun = given(CLIP, RATE, {})
    begun.folder.mkdir(parents=True)
    begun.state.add({"train.max_grad_norm": 1.5, "train.learning_rate": 0.1})
    wider = given({"uniform": [0.5, 4]}, {"choice": [0.3, 0.1]}, {})
    assert len(wider.listed()) == len(begun.listed()) > 0
    with pytest.raises(ConfigurationError, match="not in this space") as error:
        given(clip, rate, more)
    assert error.value.key == f"space.train.{key}"
    assert "--fresh" in str(error.value)
    assert given(clip, rate, more, fresh=True).listed() == []
